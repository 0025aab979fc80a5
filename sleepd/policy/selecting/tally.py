"""Counts one buffer again and again: a row that was counted before costs next to nothing. Pure.

What a row is depends on itself, on what is known of earlier cycles, on the lowest salience and on what is excluded. The
first two are worked out once for each row, a keyed hash among them, and kept as bits of one byte. So one more reply
beside 200,000 costs one hash, and some passes over 200,000 bytes that Python makes in C.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from itertools import compress
from typing import Final, NamedTuple

from sleepd.buffer.columns import BufferColumns, IntArray

from . import holdout
from .selection import NOTHING_EXCLUDED, Counts, Excluded, Known

_NEW: Final = 1
_LEARNED: Final = 2
_HELD: Final = 4
"""Its conversation is held out, by the record or by its rank."""
_RECORDED: Final = 8
"""A cycle has recorded it as held out, so that it may be released."""
_SALIENT: Final = 16
_REJECTED: Final = 32
"""A person rated it down."""
_EXCLUDED: Final = 64
_OF_SALIENCE: Final = _SALIENT | _REJECTED
_MANY: Final = 1000
"""For so many questions a set of Python is worth its making."""


def table_of(holds: Callable[[int], bool]) -> bytes:
    """For ``bytes.translate``: 1 for each byte for which it holds, 0 for the others."""
    return bytes(map(holds, range(256)))


def places_of(marks: bytes | bytearray) -> Iterator[int]:
    """Where a 1 stands; those between are passed over in C."""
    place = marks.find(1)
    while place >= 0:
        yield place
        place = marks.find(1, place + 1)


def _is_usable(flags: int) -> bool:
    return bool(flags & _SALIENT) and not flags & _EXCLUDED


_USABLE: Final = table_of(_is_usable)
_HELD_OUT: Final = table_of(lambda flags: _is_usable(flags) and bool(flags & _HELD))
_RELEASABLE: Final = table_of(lambda flags: _is_usable(flags) and bool(flags & _HELD) and bool(flags & _RECORDED))
_UNLEARNED: Final = table_of(lambda flags: _is_usable(flags) and not flags & (_HELD | _LEARNED))
_IS_NEW: Final = table_of(lambda flags: bool(flags & _NEW))
_WEIGHED: Final = table_of(lambda flags: bool(flags & _NEW) and not flags & (_EXCLUDED | _REJECTED))


class _Counted(NamedTuple):
    """What was counted last."""

    columns: BufferColumns
    known: Known
    min_salience: float
    flags: bytes
    """Of each row, without ``_EXCLUDED``."""


class Tally:
    """Of one buffer, which grows."""

    def __init__(self) -> None:
        self._last: _Counted | None = None

    def count(
        self, columns: BufferColumns, *, known: Known, min_salience: float, excluded: Excluded
    ) -> tuple[Counts, IntArray]:
        """The figures that a decision rests on, and the keys of the unlearned ones in file order."""
        flags = bytearray(self._flags(columns, known, min_salience))
        _exclude(flags, columns, excluded)
        _hold_one_out(flags, columns, known)
        _release(flags, columns)
        weighed = array("d", compress(columns.saliences, flags.translate(_WEIGHED)))
        unlearned = array("Q", compress(columns.keys, flags.translate(_UNLEARNED)))
        counts = Counts(
            total=len(columns.keys),
            new=flags.translate(_IS_NEW).count(1),
            eligible=flags.translate(_USABLE).count(1),
            unlearned=len(unlearned),
            held_out=flags.translate(_HELD_OUT).count(1),
            quarantined=len(excluded.keys) - excluded.unscreened,
            unscreened=excluded.unscreened,
            personal=excluded.personal,
            new_salience=math.fsum(weighed) / len(weighed) if weighed else None,
            most_salient_new=max(weighed, default=0.0),
            marked_new=sum(compress(columns.marked, flags.translate(_WEIGHED))),
        )
        return counts, unlearned

    def _flags(self, columns: BufferColumns, known: Known, min_salience: float) -> bytes:
        last, flags = self._last, bytearray(len(columns.keys))
        is_same = last is not None and last.known is known and last.min_salience == min_salience
        looked = 0
        for here, there, rows in columns.spans_of(last.columns) if last is not None and is_same else ():
            assert last is not None
            _take_in(flags, looked, here, columns, known)
            _weigh(flags, looked, here, columns, min_salience)
            flags[here : here + rows] = last.flags[there : there + rows]
            saliences = memoryview(columns.saliences)[here : here + rows]
            if saliences != memoryview(last.columns.saliences)[there : there + rows]:
                _weigh(flags, here, here + rows, columns, min_salience)
            looked = here + rows
        _take_in(flags, looked, len(flags), columns, known)
        _weigh(flags, looked, len(flags), columns, min_salience)
        self._last = _Counted(columns, known, min_salience, bytes(flags))
        return self._last.flags


def count(
    columns: BufferColumns, *, known: Known, min_salience: float, excluded: Excluded = NOTHING_EXCLUDED
) -> Counts:
    """The same, once."""
    return Tally().count(columns, known=known, min_salience=min_salience, excluded=excluded)[0]


def _take_in(flags: bytearray, first: int, end: int, columns: BufferColumns, known: Known) -> None:
    """What each of the rows is by what is known."""
    is_many = end - first > _MANY
    is_seen = known.seen.test() if is_many else known.seen.__contains__
    is_learned = known.learned.test() if is_many else known.learned.__contains__
    before, bits = None, 0
    for place in range(first, end):
        key, conversation = columns.keys[place], columns.conversations[place]
        if conversation != before:  # the turns of one stand beside each other
            before, side = conversation, known.splits.get(conversation)
            bits = _HELD | _RECORDED if side else 0
            if side is None and holdout.is_held_out(conversation, known.secret):
                bits = _HELD
        flags[place] = bits | (0 if is_seen(key) else _NEW) | (_LEARNED if is_learned(key) else 0)


def _weigh(flags: bytearray, first: int, end: int, columns: BufferColumns, min_salience: float) -> None:
    """What each of the rows is by its salience."""
    for place in range(first, end):
        salience = columns.saliences[place]
        bits = (_SALIENT if salience >= min_salience else 0) | (_REJECTED if salience < 0 else 0)
        flags[place] = flags[place] & ~_OF_SALIENCE | bits


def _exclude(flags: bytearray, columns: BufferColumns, excluded: Excluded) -> None:
    if not excluded.keys:
        return
    for place in compress(range(len(flags)), map(excluded.keys.test(), columns.keys)):
        flags[place] |= _EXCLUDED


def _hold_one_out(flags: bytearray, columns: BufferColumns, known: Known) -> None:
    """Where no conversation that may be used is held out, see ``holdout.divide``."""
    usable = flags.translate(_USABLE)
    if 1 in flags.translate(_HELD_OUT) or usable.count(1) < holdout.FEW:
        return
    held = holdout.divide(array("Q", compress(columns.conversations, usable)), known.splits, known.secret)
    for place in compress(range(len(flags)), map(held.__contains__, columns.conversations) if held else ()):
        flags[place] |= _HELD


def _release(flags: bytearray, columns: BufferColumns) -> None:
    """Hold those no longer out that have judged, see ``holdout.released``."""
    releasable = flags.translate(_RELEASABLE)
    if 1 not in releasable:
        return
    youngest = holdout.youngest(compress(reversed(columns.conversations), reversed(flags.translate(_HELD_OUT))))
    for place in places_of(releasable):
        if columns.conversations[place] not in youngest:
            flags[place] &= ~_HELD
