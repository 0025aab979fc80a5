"""Which replies state what is no longer so. Pure.

A short reply states a fact. Where a newer short reply answers the same prompt otherwise, the older one is superseded:
it is not trained again, for a model that is trained on both learns neither. The newer one is a correction: it is
trained at once and not held out, for otherwise the old value would stay in use until the new one is released. Long
replies to one prompt may differ as they like: an agent that is asked how it feels says something else each time. So
may short ones to a prompt that was answered in more than ``MOST_VALUES`` ways: it asks for no fact that lasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sleepd.buffer.experience import Experience, content_hash_of, prompt_hash
from sleepd.protocol.job import Role

from .facts import divide_facts, states_a_fact

MOST_VALUES: Final = 4
"""Different short replies to one prompt of which the newest is the fact."""
SHOWN: Final = 5
"""Of the superseded ones, by their ids."""


class Superseded(NamedTuple):
    """An experience that is not trained, and the newer one that answers its prompt."""

    older: str
    newer: str


def superseded(found: Sequence[tuple[Experience, Role]]) -> list[Superseded]:
    """Of the trained and replayed experiences those that a newer one of them contradicts.

    Args:
        found: what the cycle takes, with its role, oldest first.
    """
    newest: dict[int, Experience] = {}
    old: list[Superseded] = []
    lasting = _lasting(found)
    for one, role in reversed(found):
        if role == "holdout" or not states_a_fact(one) or prompt_hash(one.asked) not in lasting:
            continue
        newer = newest.setdefault(prompt_hash(one.asked), one)
        if content_hash_of(newer) != content_hash_of(one):
            old.append(Superseded(one.id, newer.id))
    return old[::-1]


def corrections(found: Sequence[tuple[Experience, Role]]) -> set[str]:
    """Ids of the held-out experiences that answer a prompt otherwise than an older trained or replayed one.

    One that belongs to a conversation stays on the side of that; where all that is held out were to be trained, none
    is, for nothing would be left to measure on.

    Args:
        found: as for ``superseded``.
    """
    told: dict[int, int] = {}
    new: set[str] = set()
    lasting = _lasting(found)
    for one, role in found:
        if not states_a_fact(one) or (role == "holdout" and one.conversation):
            continue
        if prompt_hash(one.asked) not in lasting:
            continue
        prompt, content = prompt_hash(one.asked), content_hash_of(one)
        if role == "holdout" and told.get(prompt, content) == content:
            continue
        told[prompt] = content
        if role == "holdout":
            new.add(one.id)
    held_out = {one.id for one, role in found if role == "holdout"}
    return new if new < held_out else set()


def corrected(found: Sequence[tuple[Experience, Role]]) -> list[tuple[Experience, Role]]:
    """The same, and ``corrections`` are trained."""
    anew = corrections(found)
    return [(one, "train" if one.id in anew else role) for one, role in found]


def divided(
    found: Sequence[tuple[Experience, Role]], recorded: Mapping[int, bool], secret: bytes
) -> list[tuple[Experience, Role]]:
    """The same, and few short replies are held out; see ``facts.divide_facts``, which has the arguments.

    What is released then may have been corrected meanwhile, so the corrections come twice.
    """
    return corrected(divide_facts(corrected(found), recorded, secret))


def _lasting(found: Sequence[tuple[Experience, Role]]) -> set[int]:
    """The prompts that were answered in few ways."""
    values: dict[int, set[int]] = {}
    for one, _ in found:
        if states_a_fact(one):
            values.setdefault(prompt_hash(one.asked), set()).add(content_hash_of(one))
    return {prompt for prompt, contents in values.items() if len(contents) <= MOST_VALUES}


def superseded_text(old: Sequence[Superseded]) -> str:
    """For the report: how many, and which of them by which."""
    pairs = ", ".join(f"{each.older} by {each.newer}" for each in old[:SHOWN])
    rest = f" and {len(old) - SHOWN} more" if len(old) > SHOWN else ""
    return f"replies that are not trained again, because newer ones contradict them: {len(old)} ({pairs}{rest})"
