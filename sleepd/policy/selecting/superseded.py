"""Which learned replies state what is no longer so. Pure.

A short reply states a fact. Where a newer short reply answers the same prompt otherwise, the older one is superseded:
it is not replayed, for a model that is trained on both learns neither. Long replies to one prompt may differ as they
like: an agent that is asked how it feels says something else each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sleepd.buffer.experience import Experience, content_hash_of, prompt_hash
from sleepd.protocol.job import Role

SHORT_CHARACTERS: Final = 100
"""Of a reply that states a fact."""
SHOWN: Final = 5
"""Of the superseded ones, by their ids."""


class Superseded(NamedTuple):
    """An experience that is not replayed, and the newer one that answers its prompt."""

    older: str
    newer: str


def superseded(found: Sequence[tuple[Experience, Role]]) -> list[Superseded]:
    """Of the replayed experiences those that a newer trained or replayed one contradicts.

    Args:
        found: what the cycle takes, with its role, oldest first.
    """
    newest: dict[int, Experience] = {}
    old: list[Superseded] = []
    for one, role in reversed(found):
        if role == "holdout" or not _states_a_fact(one):
            continue
        newer = newest.setdefault(prompt_hash(one.asked), one)
        if role == "replay" and content_hash_of(newer) != content_hash_of(one):
            old.append(Superseded(one.id, newer.id))
    return old[::-1]


def superseded_text(old: Sequence[Superseded]) -> str:
    """For the report: how many, and which of them by which."""
    pairs = ", ".join(f"{each.older} by {each.newer}" for each in old[:SHOWN])
    rest = f" and {len(old) - SHOWN} more" if len(old) > SHOWN else ""
    return f"learned replies that are not replayed, because newer ones contradict them: {len(old)} ({pairs}{rest})"


def _states_a_fact(one: Experience) -> bool:
    """A reply within a longer conversation may rest on what stands before it, so it is left alone."""
    is_first = all(message.role != "assistant" for message in one.context)
    return is_first and len(one.response) < SHORT_CHARACTERS and not one.calls
