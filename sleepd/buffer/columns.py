"""The buffer in parallel columns, so that a hundred thousand experiences take a few megabytes."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from .experience import Experience, content_hash_of, conversation_of, id_hash

if TYPE_CHECKING:
    IntArray = array[int]
    FlagArray = array[int]
    FloatArray = array[float]
else:  # before Python 3.12 arrays have no parameters, which msgspec looks up
    IntArray = FloatArray = FlagArray = array
MOST_EXPERIENCES: Final = 200_000
"""The newest ones are used: they stand last. 200,000 are 6 megabytes."""


class BufferColumns(msgspec.Struct, kw_only=True):
    """One entry an experience in each column, in file order, each id once."""

    keys: IntArray = msgspec.field(default_factory=lambda: array("Q"))
    """See ``experience.id_hash``."""
    groups: IntArray = msgspec.field(default_factory=lambda: array("Q"))
    """See ``experience.content_hash``."""
    saliences: FloatArray = msgspec.field(default_factory=lambda: array("d"))
    """0 to 1; ``conversation.REJECTED``: a person rated it down."""
    conversations: IntArray = msgspec.field(default_factory=lambda: array("Q"))
    """Equal for what must be on one side of the split; see ``conversation``."""
    given: FlagArray = msgspec.field(default_factory=lambda: array("B"))
    """1: the salience stands in the record or in a rating; 0: it is the default."""
    marked: FlagArray = msgspec.field(default_factory=lambda: array("B"))
    """1: the agent marked it as a breakthrough; see ``breakthrough_marks``."""

    def rows(self) -> Iterator[tuple[int, int, float]]:
        """Key, group and salience of each experience."""
        return zip(self.keys, self.groups, self.saliences, strict=True)

    def same_rows(self, before: BufferColumns) -> tuple[int, int]:
        """Of earlier columns, to which more were appended: where the first row here stands there, and how many rows
        from there on have the same key and group; none: other columns.
        """
        if not self.keys or self.keys[0] not in before.keys:
            return 0, 0
        first = before.keys.index(self.keys[0])
        count = min(len(self.keys), len(before.keys) - first)
        pairs = ((self.keys, before.keys), (self.groups, before.groups))
        is_same = all(memoryview(new)[:count] == memoryview(old)[first : first + count] for new, old in pairs)
        return (first, count) if is_same else (0, 0)

    def keep_newest(self, most: int) -> int:
        """Drop the older ones, in place; returns how many."""
        over = max(0, len(self.keys) - most)
        if over:
            for column in BufferColumns.__struct_fields__:
                del getattr(self, column)[:over]
        return over

    def followed_by(self, more: Collection[Experience]) -> BufferColumns:
        """These columns with more experiences at their end."""
        return BufferColumns(
            keys=self.keys + array("Q", (id_hash(one.id) for one in more)),
            groups=self.groups + array("Q", map(content_hash_of, more)),
            saliences=self.saliences + array("d", (one.salience for one in more)),
            conversations=self.conversations + array("Q", map(conversation_of, more)),
            given=self.given + array("B", bytes(len(more))),
            marked=self.marked + array("B", bytes(len(more))),
        )
