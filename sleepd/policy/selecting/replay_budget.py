"""Which learned experiences a cycle replays, where all of them would cost too much. Pure.

A lineage that is retrained from the base replays what it has learned, so the cost of a cycle would grow with the
history. A budget ends that. Half of it is first open to short replies alone: a fact is known by its own training, while
what one long reply teaches others teach too.

The budget is filled in the order of ``by_worth``: first what the champion was found to have lost; then in turn the
newest experience and the one of the smallest *draw*. A draw is an exponential variate whose rate is the salience, made
of the hash of the id: those of the smallest draws are a sample without replacement, weighted by salience, of all ages
(Efraimidis and Spirakis 2006). A draw belongs to its experience, so that the same experiences stay from cycle to cycle
(bottom-k sampling, Cohen and Kaplan 2007). An adapter that is retrained forgets what it is not trained on, so another
sample in each cycle would forget something else each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from heapq import nsmallest
from itertools import chain
from typing import Final

import msgspec

from sleepd.buffer.experience import Experience, id_hash
from sleepd.protocol.evidence import LossPair
from sleepd.protocol.job import Role

from .facts import states_a_fact
from .holdout import rank

CHARACTERS_A_TOKEN: Final = 4
"""Where no tokenizer is at hand: three real buffers have 4.5 to 5.7."""
TOKENS_AROUND: Final = 20
"""That a chat template puts around a prompt and a reply."""
LEAST_OF_CHAMPION: Final = 0.8
"""A cycle trains at least this share of the number of experiences that the champion was trained on. A candidate that
was trained on far fewer would lose against it, in each cycle again."""
LOST_NATS: Final = 0.1
"""A replayed reply whose loss grew by more than this, nats a token, was lost."""
_LEAST_SALIENCE: Final = 0.01
_RANKS: Final = 2**32


class ReplayBudget(msgspec.Struct, frozen=True, kw_only=True):
    """How much a cycle replays."""

    tokens: int
    """Most tokens of all that is replayed, each experience counted once."""
    longest: int
    """Most tokens of one experience: what is longer is cut before it is trained."""
    trained_before: int = 0
    """Experiences that the champion was trained on, new and replayed ones; see ``LEAST_OF_CHAMPION``."""
    lost: frozenset[str] = frozenset()
    """Ids of what the champion was found to have lost."""


def draw(key: int, salience: float) -> float:
    """Of an experience, by its key: the smaller, the rather it stays."""
    return -math.log((rank(key) + 1) / (_RANKS + 1)) / max(salience, _LEAST_SALIENCE)


def by_worth(rows: Sequence[tuple[int, float]], lost: Collection[int] = ()) -> list[int]:
    """Places in ``rows``, the most worthwhile first.

    Args:
        rows: key and salience of each experience, oldest first.
        lost: keys of those that come before all others.
    """
    newest = range(len(rows) - 1, -1, -1)
    sampled = sorted(range(len(rows)), key=lambda place: (draw(*rows[place]), place))
    again = (place for place in newest if rows[place][0] in lost)
    return list(dict.fromkeys(chain(again, chain.from_iterable(zip(newest, sampled, strict=True)))))


def most_worthwhile(places: Sequence[int], row_of: Callable[[int], tuple[int, float]], most: int) -> list[int]:
    """Of the places so many, the most worthwhile ones first; the same as the first ones of ``by_worth`` of all.

    Args:
        places: of the learned experiences, oldest first; there may be hundreds of thousands.
        row_of: key and salience of a place.
        most: so many.
    """
    sampled = nsmallest(most, places, key=lambda place: (draw(*row_of(place)), place))
    candidates = sorted({*sampled, *places[max(0, len(places) - most) :]})
    return [candidates[number] for number in by_worth([row_of(place) for place in candidates])[:most]]


def beyond_budget(found: Sequence[tuple[Experience, Role]], budget: ReplayBudget) -> set[str]:
    """Ids of the replayed experiences that the budget has no room for.

    Args:
        found: what the cycle takes, with its role, oldest first.
        budget: what it may replay.
    """
    replayed = [one for one, role in found if role == "replay"]
    new = sum(role == "train" for _, role in found)
    least = math.floor(LEAST_OF_CHAMPION * budget.trained_before) - new
    order = by_worth([(id_hash(one.id), one.salience) for one in replayed], {id_hash(id_) for id_ in budget.lost})
    facts = [place for place in order if states_a_fact(replayed[place])]
    kept, room = set[int](), budget.tokens
    for places, spared, fewest in ((facts, budget.tokens // 2, 0), (order, 0, least)):
        for place in places:
            cost = min(budget.longest, estimated_tokens(replayed[place]))
            if place not in kept and (cost <= room - spared or len(kept) < fewest):
                kept.add(place)
                room -= cost
    return {one.id for place, one in enumerate(replayed) if place not in kept}


def estimated_tokens(one: Experience) -> int:
    """About how many tokens go through the model where this experience is trained once."""
    return TOKENS_AROUND + one.characters // CHARACTERS_A_TOKEN


def lost_ids(repeated: Sequence[LossPair]) -> frozenset[str]:
    """Of what a cycle replayed and measured, that which it knows less well than its parent did."""
    return frozenset(each.id for each in repeated if each.candidate - each.parent > LOST_NATS)


def left_out_text(left_out: int, replayed: int, tokens: int) -> str:
    """For the report: how much of the lineage is not replayed."""
    return (
        f"{left_out} of {left_out + replayed} learned experiences are not trained again, and may be forgotten: there "
        f"is no room for them in training.replay_tokens = {tokens}"
    )
