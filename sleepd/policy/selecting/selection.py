"""Which experiences a cycle trains, replays and is measured on. Pure.

New experiences are trained once; of those already learned a sample is mixed in, so that they are not forgotten; what is
held out is only measured on, until it is released (``holdout``). Experiences are known by 64-bit keys in arrays, so
that a hundred thousand fit in little.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from sleepd.buffer.columns import BufferColumns

from . import holdout
from .replay_budget import most_worthwhile

_MOST_SORTED: Final = 2**14
"""At once: a sorted list takes forty bytes for each key."""


class HashSet:
    """An immutable set of 64-bit keys in eight bytes each."""

    def __init__(self, keys: Iterable[int] = ()) -> None:
        unsorted = array("Q", keys)
        if len(unsorted) <= _MOST_SORTED:
            self._keys = array("Q", sorted(unsorted))
            return
        self._keys = array("Q")
        for part in range(4):
            self._keys.extend(sorted(key for key in unsorted if key >> 62 == part))

    def __contains__(self, key: int) -> bool:
        place = bisect_left(self._keys, key)
        return place < len(self._keys) and self._keys[place] == key

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def test(self) -> Callable[[int], bool]:
        """Tells whether a key is in it, for who asks very often; where it is small, a set of Python is faster."""
        return frozenset(self._keys).__contains__ if len(self._keys) <= _MOST_SORTED else self.__contains__


class Splits(Mapping[int, bool]):
    """Recorded holdout membership, group -> is held out, in eight bytes each: there may be hundreds of thousands.

    Args:
        held_out: groups that were held out and never trained.
        trained: the others.
    """

    def __init__(self, held_out: Iterable[int] = (), trained: Iterable[int] = ()) -> None:
        self._held_out = HashSet(held_out)
        self._trained = HashSet(trained)

    def __getitem__(self, group: int) -> bool:
        found: bool | None = self.get(group)
        if found is None:
            raise KeyError(group)
        return found

    def get(self, group: int, default: Any = None) -> Any:
        """Whether it is held out; without the exception of ``__getitem__``, as most groups were never recorded."""
        if not self._trained and not self._held_out:
            return default
        if group in self._trained:  # whatever else is recorded of it: what was trained is not measured on
            return False
        return True if group in self._held_out else default

    def __iter__(self) -> Iterator[int]:
        return chain(self._held_out, self._trained)

    def __len__(self) -> int:
        return len(self._held_out) + len(self._trained)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier cycles left behind."""

    seen: HashSet
    """The buffer at the last judged cycle: all else is new."""
    learned: HashSet
    """Trained in the champion's lineage."""
    splits: Mapping[int, bool]
    """Recorded holdout membership: group -> is held out."""
    secret: bytes
    """Of the state directory; it decides the membership of all others."""


class Excluded(msgspec.Struct, frozen=True, kw_only=True):
    """What is excluded from training, replay and holdout; see ``quarantine.rules``."""

    keys: HashSet
    unscreened: int = 0
    """Of these, the ones that were not screened yet."""
    personal: int = 0
    """Experiences of the buffer that hold personal data, excluded from training or not."""


NOTHING_EXCLUDED: Final = Excluded(keys=HashSet())


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """A buffer in figures."""

    total: int
    new: int
    eligible: int
    unlearned: int
    held_out: int
    quarantined: int = 0
    """Excluded from training, whatever their salience; not among the eligible."""
    unscreened: int = 0
    """Not screened yet, and so excluded from training too."""
    personal: int = 0
    """They hold personal data."""
    new_salience: float | None = None
    """Mean of the new ones, as far as they are not excluded; None: there are none."""
    most_salient_new: float = 0.0
    """Of these the highest."""
    marked_new: int = 0
    """Of these so many bear a mark of a breakthrough."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Keys by role."""

    train: list[int]
    replay: list[int]
    holdout: list[int]
    unreplayed: int = 0
    """Learned experiences beyond the most that one cycle takes, where it was to replay all."""


FREQUENT_SHARE: Final = 0.2
"""Of what a cycle trains, the most that one prompt fills, once the buffer has ``FREQUENT_FROM`` experiences."""
FREQUENT_FROM: Final = 50


def sampling_shares(prompts: Sequence[int]) -> list[float]:
    """How often each experience is in an epoch, 0 to 1, so that one prompt asked again and again does not crowd out
    the others.

    All experiences of a prompt above the cap are kept, and take turns. Of fewer than ten different prompts each may
    fill twice its even part: nobody can keep five prompts below a fifth each.

    Args:
        prompts: of each experience that a cycle trains or replays (``experience.prompt_hash``), in parallel.
    """
    counts = Counter(prompts)
    cap = max(FREQUENT_SHARE, 2 / max(1, len(counts)))
    most_first = [number for _, number in counts.most_common()]
    above, rest = 0, len(prompts)
    most = cap * rest
    # With ``above`` prompts at ``most`` each beside the rest, each of them is the cap's share of the whole.
    while above < len(most_first) and most_first[above] > most:
        rest -= most_first[above]
        above += 1
        most = cap * rest / (1 - cap * above)
    return [min(1.0, most / counts[prompt]) for prompt in prompts]


class SelectionRule(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the buffer one cycle takes."""

    min_salience: float
    """Below it an experience is not used."""
    max_experiences: int
    """Of more new ones the most salient are taken, the rest wait for the next cycle."""
    max_holdout: int
    """Of more held-out groups those with the smallest rank are taken, the same ones every time."""
    replay_share: float
    """Replayed experiences as a share of the trained ones, another sample in each cycle; infinite: all, and of more
    than ``max_experiences`` the most worthwhile (``replay_budget``)."""
    min_replayed: int
    """At least so many are replayed, as far as there are any."""
    seed: int
    """For the sample of replayed ones, where not all are."""


class _Divided(NamedTuple):
    """Places in the columns of the experiences that may be used, in file order, by what becomes of them.

    In arrays, as there may be hundreds of thousands: a list takes four times as much.
    """

    held_out: array[int]
    learned: array[int]
    unlearned: array[int]


def _divide(columns: BufferColumns, known: Known, min_salience: float, excluded: Excluded) -> _Divided:
    is_excluded, is_learned = excluded.keys.test(), known.learned.test()
    rows = enumerate(columns.rows())
    usable = array("L", (i for i, (key, _, each) in rows if each >= min_salience and not is_excluded(key)))
    conversations = array("Q", (columns.conversations[i] for i in usable))
    held = holdout.divide(conversations, known.splits, known.secret)
    held -= holdout.released(array("Q", (each for each in conversations if each in held)), known.splits)
    divided = _Divided(array("L"), array("L"), array("L"))
    for i, conversation in zip(usable, conversations, strict=True):
        if conversation in held:
            divided.held_out.append(i)
        elif is_learned(columns.keys[i]):
            divided.learned.append(i)
        else:
            divided.unlearned.append(i)
    return divided


def select(
    columns: BufferColumns, *, known: Known, rule: SelectionRule, excluded: Excluded = NOTHING_EXCLUDED
) -> Selection:
    """What the next cycle trains, replays and is measured on, in file order."""
    keys, groups, saliences = columns.keys, columns.groups, columns.saliences
    divided = _divide(columns, known, rule.min_salience, excluded)
    train = sorted(sorted(divided.unlearned, key=lambda i: -saliences[i])[: rule.max_experiences])
    wanted = max(rule.min_replayed, rule.replay_share * len(train))
    share = round(min(len(divided.learned), rule.max_experiences, wanted))
    if math.isinf(rule.replay_share):
        replay = sorted(most_worthwhile(divided.learned, lambda i: (keys[i], saliences[i]), share))
    else:
        replay = sorted(random.Random(rule.seed).sample(divided.learned, share))  # noqa: S311 (no secret)
    # What was trained, or is a copy of it, is not measured on: the side of a conversation is another one where a log no
    # longer shows how it began.
    trained_groups = {groups[i] for i in chain(divided.learned, divided.unlearned)}
    first_of_group = {
        groups[i]: i
        for i in reversed(divided.held_out)
        if groups[i] not in trained_groups and keys[i] not in known.learned
    }
    measured = _of_smallest_rank(first_of_group, known.secret, rule.max_holdout)
    trained, replayed, held_out = ([keys[i] for i in chosen] for chosen in (train, replay, measured))
    unreplayed = len(divided.learned) - share if math.isinf(rule.replay_share) else 0
    return Selection(train=trained, replay=replayed, holdout=held_out, unreplayed=unreplayed)


def held_out_keys(columns: BufferColumns, known: Known, trained: Collection[int] = ()) -> array[int]:
    """Of all experiences of held-out conversations, whether they may be used now or not: no context may show them.

    Args:
        columns: the buffer.
        known: what earlier cycles recorded.
        trained: keys that the cycle trains; a conversation of which it trains one is released.
    """
    held, of_cycle = array("Q"), frozenset(trained)
    rows = list(zip(columns.keys, columns.conversations, strict=True))
    released = {conversation for key, conversation in rows if key in of_cycle}
    for key, conversation in rows:
        if conversation in released:
            continue
        recorded = known.splits.get(conversation)
        if holdout.is_held_out(conversation, known.secret) if recorded is None else recorded:
            held.append(key)
    return held


def _of_smallest_rank(by_group: Mapping[int, int], secret: bytes, most: int) -> list[int]:
    """Of the first ones of each group, those of the smallest ranks: a copy would count the same reply twice."""
    in_order = sorted(by_group, key=lambda group: holdout.keyed_rank(group, secret))
    return sorted(by_group[group] for group in in_order[:most])
