"""The names by which a rating that comes later names a reply: its id, or its conversation with its number. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

REJECTED: Final = -1.0
"""The salience of a reply that a person rated down: below every threshold."""
WHOLE: Final = 0
"""In a rating's key, in place of a reply's number: it counts for each reply that has no rating of its own."""


def rating_key(conversation: str, number: int) -> str:
    """How a rating names a reply that has no id of its own."""
    return f"{conversation}\0{number}"


def conversation_named(key: str) -> str:
    """The conversation that a rating's key names; empty: it names none."""
    return key.rpartition("\0")[0]


def rating_names(conversation: str, number: int = WHOLE) -> tuple[str, ...]:
    """See ``ChatExample.rated_as``; ``conversation`` may be empty."""
    if not conversation:
        return ()
    return tuple(rating_key(conversation, each) for each in dict.fromkeys((number, WHOLE)))


def names_rated(ratings: Mapping[str, float], identifier: str, rated_as: Iterable[str]) -> list[str]:
    """Those of a reply's names that ratings name, the most exact one first."""
    return [name for name in (identifier, *rated_as) if name in ratings] if ratings else []


def rating_of(ratings: Mapping[str, float], identifier: str, rated_as: Iterable[str]) -> float | None:
    """What the ratings say of a reply; None: nothing."""
    names = names_rated(ratings, identifier, rated_as)
    return ratings[names[0]] if names else None
