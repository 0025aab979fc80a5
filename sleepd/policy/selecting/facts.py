"""How many short replies are held out. Pure.

A short reply states a fact, and a fact that is held out is not known. So of many short replies few judge: a fifth, at
least ``FEWEST_HELD_OUT`` and at most ``MOST_HELD_OUT``. What their ranks hold out beyond that is trained, oldest first.
What their ranks hold out too little is made up for by those of the smallest ranks that no cycle has trained: with one
or two nothing is proved. A reply of a conversation stays on the side of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from sleepd.buffer.experience import Experience, content_hash_of, prompt_hash
from sleepd.protocol.job import Role

from .holdout import ONE_IN, keyed_rank

SHORT_CHARACTERS: Final = 100
"""Of a reply that states a fact."""
MANY: Final = 10
"""Of fewer short replies those are held out that their ranks hold out."""
FEWEST_HELD_OUT: Final = 3
MOST_HELD_OUT: Final = 5


def states_a_fact(one: Experience) -> bool:
    """Whether the reply is short. One within a longer conversation may rest on what stands before it, so it is left
    alone.
    """
    is_first = all(message.role != "assistant" for message in one.context)
    return is_first and len(one.response) < SHORT_CHARACTERS and not one.calls


def divide_facts(
    found: Sequence[tuple[Experience, Role]], recorded: Mapping[int, bool], secret: bytes
) -> list[tuple[Experience, Role]]:
    """What the cycle takes, with the roles that short replies have by this rule.

    Args:
        found: what the cycle takes, with its role, oldest first.
        recorded: what earlier cycles recorded: group -> is held out.
        secret: that of the state directory.
    """
    facts = [(one, role) for one, role in found if states_a_fact(one) and not one.conversation]
    if len(facts) < MANY:
        return list(found)
    held_out = [one.id for one, role in facts if role == "holdout"]
    judging = min(MOST_HELD_OUT, max(FEWEST_HELD_OUT, len(facts) // ONE_IN))
    changed: dict[str, Role] = dict.fromkeys(held_out[: max(0, len(held_out) - judging)], "train")
    prompts = Counter(prompt_hash(one.asked) for one, _ in found)
    free = [one for one, role in facts if role == "train" and prompts[prompt_hash(one.asked)] == 1]
    free = [one for one in free if content_hash_of(one) not in recorded]
    free.sort(key=lambda one: keyed_rank(content_hash_of(one), secret))
    changed |= {one.id: "holdout" for one in free[: max(0, judging - len(held_out))]}
    return [(one, changed.get(one.id, role)) for one, role in found]
