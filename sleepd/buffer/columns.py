"""The buffer in parallel columns, so that a hundred thousand experiences take a few megabytes."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

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


class RowSpan(NamedTuple):
    """Neighbouring rows that stand in two columns."""

    here: int
    there: int
    rows: int


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

    def spans_of(self, before: BufferColumns) -> tuple[RowSpan, ...]:
        """The rows of earlier columns that stand here too, with the same key, group and conversation.

        Found are those before and behind the one place where rows were put in or taken out, also where the oldest were
        dropped. So nothing must be worked out again for a row that was there before one more was appended.
        """
        if not self.keys or self.keys[0] not in before.keys:
            dropped = head = 0
        else:
            dropped = before.keys.index(self.keys[0])
            head = self._same_from(before, dropped)
        left = min(len(self.keys) - head, len(before.keys) - dropped - head)
        tail = self._same_before(before, left)
        spans = RowSpan(0, dropped, head), RowSpan(len(self.keys) - tail, len(before.keys) - tail, tail)
        return tuple(span for span in spans if span.rows)

    def _same_from(self, before: BufferColumns, there: int) -> int:
        """How many rows from the first one on are those of ``before`` from ``there`` on."""
        same, most = 0, min(len(self.keys), len(before.keys) - there)
        step = most
        while step and same < most:
            step = min(step, most - same)
            if self._is_same(before, RowSpan(same, there + same, step)):
                same += step
            else:
                step //= 2
        return same

    def _same_before(self, before: BufferColumns, most: int) -> int:
        """How many rows before the end, ``most`` at most, are those before the end of ``before``."""
        same, step = 0, most
        while step and same < most:
            step = min(step, most - same)
            here, there = len(self.keys) - same - step, len(before.keys) - same - step
            if self._is_same(before, RowSpan(here, there, step)):
                same += step
            else:
                step //= 2
        return same

    def _is_same(self, before: BufferColumns, span: RowSpan) -> bool:
        columns = (
            (self.keys, before.keys),
            (self.groups, before.groups),
            (self.conversations, before.conversations),
        )
        here, there = slice(span.here, span.here + span.rows), slice(span.there, span.there + span.rows)
        return all(memoryview(new)[here] == memoryview(old)[there] for new, old in columns)

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
