"""The replies that a log of requests has held so far, by which it is known where each conversation began. Pure.

Each request repeats what was said before. What stands in it before the first reply that the log holds itself is a
shared opening: examples that a program gives the model, or the end of a conversation whose beginning the log does not
have. A reply that the log holds several times, to the same message, begins no conversation that can be told from the
others.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import chain
from typing import Final

MOST_REPLIES: Final = 50_000
"""The newest ones are known: with their ids they are 800 kilobytes."""
_SEVERAL: Final = 0
"""In place of the id's hash: replies of several ids."""


class SaidBefore:
    """Of one file.

    Args:
        entries: those of before, as ``entries`` gave them.
    """

    def __init__(self, entries: Iterable[int] = ()) -> None:
        numbers = iter(entries)
        self._keys = dict(zip(numbers, numbers, strict=True))
        """The content hash of a reply with what it answers -> the hash of its id."""

    def begins(self, content: int) -> bool:
        """Whether a conversation may begin with this reply: the log holds it, and once."""
        return self._keys.get(content, _SEVERAL) != _SEVERAL

    def add(self, content: int, key: int) -> None:
        """Take in a reply."""
        known = self._keys.pop(content, key)
        self._keys[content] = key if known == key else _SEVERAL
        if len(self._keys) > MOST_REPLIES:
            del self._keys[next(iter(self._keys))]

    def entries(self) -> array[int]:
        """All, to be kept."""
        return array("Q", chain.from_iterable(self._keys.items()))
