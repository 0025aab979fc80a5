"""Which experiences of a buffer are excluded from training now. Pure.

It follows from four things: what was found in the texts (``near_duplicates``), the operator's overrides, which
cycles are rolled back now, and, for a near-duplicate, whether what it resembles is itself there to be trained. So a
rollback excludes what was recorded under that adapter, and going back to the adapter lifts that, without anything being
written.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import compress
from typing import Final, Literal

import msgspec

from sleepd.buffer.columns import BufferColumns
from sleepd.policy.selecting.selection import Excluded, HashSet
from sleepd.policy.selecting.tally import places_of, table_of

from .near_duplicates import Reason, Screened
from .served_times import NEVER, ServedTimes

BARE_QUESTIONS: Final = 8
"""So many replies of a buffer that are nothing but a question, and they are less than half of it: then they are a flood
of questions, one in each reply, as a collapsed adapter gives them. Fewer are asked for good reasons; an agent whose
replies are mostly questions is meant to ask."""
_REASONS: Final[tuple[Reason, ...]] = (
    *("", "loop", "questions", "near_duplicate", "secret", "too_long", "bare_question", "unscreenable"),
)

OverrideKind = Literal["released", "dropped"]


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's override on one experience."""

    id: str
    group: int
    """Of its text then: a release holds for that text only."""
    kind: OverrideKind
    at: datetime


class Cause(msgspec.Struct, frozen=True):
    """Why an experience is excluded from training."""

    why: str
    """``unscreened``, ``dropped``, ``said_under``, ``personal_data``, or what was found in its text."""
    original: int | None = None
    """Of a near-duplicate: the key of what it resembles."""
    cycle: int | None = None
    """The rolled-back cycle under whose adapter it, or what it resembles, was recorded."""
    is_by_time: bool = False
    """That follows from when it was said and what was served then; its record names no adapter."""


class KeyMap:
    """Numbers by 64-bit key in two arrays: a hundred thousand are less than two megabytes."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._values = array("Q")

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def get(self, key: int) -> int | None:
        """The number; None: there is none."""
        place = bisect_left(self._keys, key)
        return self._values[place] if place < len(self._keys) and self._keys[place] == key else None

    def put(self, key: int, value: int) -> None:
        """Set the number."""
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            self._values[place] = value
        else:
            self._keys.insert(place, key)
            self._values.insert(place, value)

    def drop(self, key: int) -> None:
        """Take the number away, if there is one."""
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            del self._keys[place], self._values[place]


UNSCREENED: Final = 1
"""A mark of a row: its text was not screened."""
OUTDATED: Final = 2
"""Older rules screened it."""
NOTED: Final = 4
"""Its text alone speaks against training it, or it is a near-duplicate."""
PERSONAL: Final = 8
"""It holds personal data."""
SAID: Final = 16
"""Its record names a cycle, or has a time."""
_UNSCREENED: Final = table_of(lambda bits: bool(bits & UNSCREENED))
_NOTHING_ASKED: Final = (BufferColumns(), b"")


class Findings:
    """What was found in the experiences, without their texts."""

    def __init__(self) -> None:
        self.groups = KeyMap()
        """Of every screened one: the group of the text that was screened."""
        self.said_under = KeyMap()
        self.said_at = KeyMap()
        """Of those whose record names no adapter and has a time."""
        self.personal = KeyMap()
        """Of those that hold personal data: how many."""
        self.outdated = KeyMap()
        """Those that older rules screened."""
        self.reasons = KeyMap()
        self.originals = KeyMap()
        self._asked = _NOTHING_ASKED
        """The columns that ``marks`` was asked for, and its answer."""

    def put(self, found: Screened) -> None:
        """Take one in, or the newer finding on it."""
        if self._asked is not _NOTHING_ASKED and self.groups.get(found.key) is not None:
            self._asked = _NOTHING_ASKED
        self.groups.put(found.key, found.group)
        for numbers, value in (
            (self.said_under, found.said_under),
            (self.said_at, found.said_at if found.said_under is None else None),
            (self.reasons, _REASONS.index(found.reason) or None),
            (self.originals, found.original),
            (self.personal, sum(found.personal.values()) or None),
            (self.outdated, int(found.is_outdated) or None),
        ):
            if value is None:
                numbers.drop(found.key)
            else:
                numbers.put(found.key, value)

    def marks(self, columns: BufferColumns) -> bytes:
        """What is known of each experience, as bits of a byte.

        A row that was screened when the same rows were asked for before is not looked up again: that takes a while.
        """
        before, known = self._asked
        marks = bytearray(b"\1" * len(columns.keys))
        for here, there, rows in columns.spans_of(before):
            marks[here : here + rows] = known[there : there + rows]
        kinds = [
            (bit, numbers)
            for bit, numbers in (
                (OUTDATED, self.outdated),
                (NOTED, self.reasons),
                (NOTED, self.originals),
                (PERSONAL, self.personal),
                (SAID, self.said_under),
                (SAID, self.said_at),
            )
            if len(numbers)
        ]
        for place in places_of(marks.translate(_UNSCREENED)):
            key = columns.keys[place]
            bits = UNSCREENED if self.groups.get(key) != columns.groups[place] else 0
            for bit, numbers in kinds:
                bits |= bit if numbers.get(key) is not None else 0
            marks[place] = bits
        self._asked = columns, bytes(marks)
        return self._asked[1]

    def reason(self, key: int) -> Reason:
        """Why the text alone excludes it; empty: it does not."""
        return _REASONS[self.reasons.get(key) or 0]

    def original(self, key: int) -> int | None:
        """Of a near-duplicate: what it resembles."""
        return self.originals.get(key)


class Isolation:
    """The rule, on one state of what it follows from.

    Args:
        findings: what was found in the texts.
        overrides: the operator's overrides, by key.
        rolled_back: cycles whose adapter is rolled back now.
        served: when these were served.
        excludes_personal: whether personal data keep an experience from training.
    """

    def __init__(
        self,
        findings: Findings,
        overrides: Mapping[int, Override],
        rolled_back: Collection[int],
        *,
        served: ServedTimes = NEVER,
        excludes_personal: bool = False,
    ) -> None:
        self._excludes_personal = excludes_personal
        self._findings = findings
        self._overrides = overrides
        self._rolled_back = rolled_back
        self._served = served
        self._dropped_groups = {each.group for each in overrides.values() if each.kind == "dropped"}

    def causes(
        self,
        columns: BufferColumns,
        *,
        learned: HashSet | Container[int],
        min_salience: float,
    ) -> Iterator[tuple[int, Cause]]:
        """The key of each experience that is excluded from training, in file order, and why.

        Of a near-duplicate's originals those count that are learned, or in the
        buffer at ``min_salience`` or above; where none is, the first near-duplicate takes its place.
        """
        marks = self._marks(columns)
        if 1 not in marks:
            return
        marked = array("Q", compress(columns.keys, marks))
        bare = sum(self._findings.reason(key) == "bare_question" for key in marked)
        is_flood = BARE_QUESTIONS <= bare < len(columns.keys) / 2
        originals = {self._findings.original(key) for key in marked} - {None}
        rows = compress(columns.rows(), map(originals.__contains__, columns.keys) if originals else ())
        present = {key for key, _, salience in rows if salience >= min_salience}
        for key, group in zip(marked, compress(columns.groups, marks), strict=True):
            cause = self._own_cause(key, group, is_flood=is_flood)
            original = self._findings.original(key)
            if cause is None and original is not None and not self._is_released(key, group):
                cause = self._cause_of_resembling(original, is_there=original in present or original in learned)
                if cause is None:
                    present.add(original)
            if cause is not None:
                yield key, cause

    def _marks(self, columns: BufferColumns) -> bytearray:
        """1 for each experience against which something may speak. Most are 0, and nothing else is asked of them."""
        speaks = UNSCREENED | OUTDATED | NOTED | (SAID if self._rolled_back else 0)
        speaks |= PERSONAL if self._excludes_personal else 0
        marks = bytearray(self._findings.marks(columns).translate(table_of(lambda bits: bool(bits & speaks))))
        for asked, values in ((self._overrides, columns.keys), (self._dropped_groups, columns.groups)):
            for place in compress(range(len(marks)), map(asked.__contains__, values) if asked else ()):
                marks[place] = 1
        return marks

    def _own_cause(self, key: int, group: int, *, is_flood: bool) -> Cause | None:
        """Without regard to others."""
        decision = self._overrides.get(key)
        if group in self._dropped_groups or (decision is not None and decision.kind == "dropped"):
            return Cause("dropped")
        if self._is_released(key, group):
            return None
        if self._findings.groups.get(key) != group:
            return Cause("unscreened")
        reason = self._findings.reason(key)
        if reason not in ("", "near_duplicate", "bare_question") or (reason == "bare_question" and is_flood):
            return Cause(reason)
        if recorded := self._rolled_back_under(key):
            return recorded
        if self._excludes_personal and self._findings.personal.get(key) is not None:
            return Cause("personal_data")
        return Cause("unscreened") if self._findings.outdated.get(key) is not None else None

    def _cause_of_resembling(self, original: int, *, is_there: bool) -> Cause | None:
        decision = self._overrides.get(original)
        if decision is not None and decision.kind == "dropped":
            return Cause("near_duplicate", original=original)
        recorded = self._rolled_back_under(original) if decision is None else None
        if recorded is not None:
            return msgspec.structs.replace(recorded, why="near_duplicate", original=original)
        return Cause("near_duplicate", original=original) if is_there else None

    def _rolled_back_under(self, key: int) -> Cause | None:
        """What its record names, or what was served when it was said, where that is rolled back."""
        told, second = self._findings.said_under.get(key), self._findings.said_at.get(key)
        cycle = told if told is not None or second is None else self._served.cycle_at(second)
        if cycle is None or cycle not in self._rolled_back:
            return None
        return Cause("said_under", cycle=cycle, is_by_time=told is None)

    def _is_released(self, key: int, group: int) -> bool:
        decision = self._overrides.get(key)
        return decision is not None and decision.kind == "released" and decision.group == group


def excluded(causes: Iterable[tuple[int, Cause]], *, personal: int = 0) -> Excluded:
    """Their keys, eight bytes each, and how many were not screened yet; ``personal``: how many hold personal data."""
    keys, unscreened = array("Q"), 0
    for key, cause in causes:
        keys.append(key)
        unscreened += cause.why == "unscreened"
    return Excluded(keys=HashSet(keys), unscreened=unscreened, personal=personal)
