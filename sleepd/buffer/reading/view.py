"""What the buffer's view stands for: the machine that decides whether the last good view still holds. Pure.

Rules
-----
1. Whatever moves the view from one state to another is in this file.
2. This file knows no file and no clock. Its input is what one poll found, and when.
3. A view is never replaced by a worse one before ``patience`` seconds: half a file and a missing file are two things
   that a reader sees while a writer is at work.

Theory ------ Another program writes the buffer at any moment and in any way: it appends, it writes anew in place, it
renames a new file over the old one, it removes the file and makes it again. One poll cannot distinguish a writer at
work from damage. Time distinguishes them: a writer is done within seconds. So each trouble has a timer, which starts at
the first poll that finds it. Until the timer has run for ``patience`` seconds the last good view holds
(``is_settling``). Afterwards a missing file is an empty buffer, and half a file is a problem that the view names while
it keeps its experiences.

Implementation
--------------
``ROWS`` is the table of states: for each result of a poll the state that follows, the view that is shown then, and the
timers that go on. The state before needs no column: all that the machine must remember of it is which timers run.
A torn last line of JSON lines is no trouble of the file: the lines before it are used at once. It has a timer of its
own (:class:`TornLine`), after which the view counts it among the skipped records.
"""

from __future__ import annotations

from array import array
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from sleepd.buffer.columns import BufferColumns, IntArray
from sleepd.buffer.digest import MOST_SKIPPED, Skipped
from sleepd.buffer.parsing import TORN


class View(BufferColumns, kw_only=True):
    """The buffer as it was last read well."""

    form: str = "absent"
    files: int = 1
    """How many it was read from."""
    left_out: int = 0
    """Older ones beyond the most that are used."""
    skipped: list[Skipped] = msgspec.field(default_factory=list)
    """The first hundred."""
    skipped_total: int = 0
    rated: IntArray = msgspec.field(default_factory=lambda: array("Q"))
    """See ``Digest.rated``."""
    read_at: datetime | None = None
    problem: str = ""
    """Why this is the last good view, and not the file as it is now; empty: it is current, or settling."""
    is_settling: bool = False
    """The file is missing or half-written, and has not been so for long: poll again soon. Set on the view in place, so
    that a view that holds stays the same object."""


class PollResult(StrEnum):
    """What one poll found, with how long it has been so."""

    WHOLE = "whole"
    """A file that was parsed to its end."""
    UNCHANGED = "unchanged"
    """The file that the view is of."""
    GONE = "gone"
    """No file, or an empty one, where there were experiences."""
    GONE_FOR_LONG = "gone for long"
    """The same for ``patience`` seconds, or where there never were experiences."""
    HALF = "half"
    """A file that cannot be parsed."""
    HALF_FOR_LONG = "half for long"
    """The same for ``patience`` seconds."""


class ViewState(StrEnum):
    """What the view stands for."""

    CURRENT = "current"
    """The file as it is."""
    VANISHING = "vanishing"
    """The file before it was emptied or removed."""
    HALF_WRITTEN = "half-written"
    """The file before its writer began, or before it was damaged: nobody knows yet."""
    BROKEN = "broken"
    """The file before it was damaged."""


class Shown(StrEnum):
    """Which view is shown."""

    NEW = "new"
    """One made of what was found."""
    LAST = "last"
    """The last good one, as it is."""
    LAST_WITH_PROBLEM = "last with problem"
    """The last good one, which names what is wrong with the file."""


class Timer(StrEnum):
    """Since when a trouble lasts."""

    GONE = "gone"
    HALF = "half"


class StateRow(NamedTuple):
    """What follows from the result of a poll."""

    state: ViewState
    shown: Shown
    timers: tuple[Timer, ...] = ()
    """Those that go on. The others stop."""


ROWS: Final[dict[PollResult, StateRow]] = {
    PollResult.WHOLE: StateRow(ViewState.CURRENT, Shown.NEW),
    PollResult.UNCHANGED: StateRow(ViewState.CURRENT, Shown.LAST),
    PollResult.GONE: StateRow(ViewState.VANISHING, Shown.LAST, (Timer.GONE, Timer.HALF)),
    PollResult.GONE_FOR_LONG: StateRow(ViewState.CURRENT, Shown.NEW),
    PollResult.HALF: StateRow(ViewState.HALF_WRITTEN, Shown.LAST, (Timer.HALF,)),
    PollResult.HALF_FOR_LONG: StateRow(ViewState.BROKEN, Shown.LAST_WITH_PROBLEM, (Timer.HALF,)),
}
STARTS: Final = {PollResult.GONE: Timer.GONE, PollResult.HALF: Timer.HALF}
"""The timer that a result starts, where it does not run yet."""
SETTLING: Final = frozenset({ViewState.VANISHING, ViewState.HALF_WRITTEN})
"""In these nobody knows yet whether something is wrong."""


class ViewMachine(msgspec.Struct, frozen=True, kw_only=True):
    """The state, and the timers that run. Frozen: each poll makes the next one."""

    state: ViewState = ViewState.CURRENT
    since: dict[Timer, float] = {}
    """When each timer that runs was started."""

    def gone(self, now: float, *, patience: float, has_experiences: bool) -> PollResult:
        """What a missing or an empty file is: without experiences to lose there is nothing to wait for."""
        is_early = has_experiences and self._is_early(Timer.GONE, now, patience)
        return PollResult.GONE if is_early else PollResult.GONE_FOR_LONG

    def half(self, now: float, *, patience: float) -> PollResult:
        """What a file is that cannot be parsed."""
        return PollResult.HALF if self._is_early(Timer.HALF, now, patience) else PollResult.HALF_FOR_LONG

    def _is_early(self, timer: Timer, now: float, patience: float) -> bool:
        return now - self.since.get(timer, now) < patience

    def after(self, found: PollResult, now: float) -> ViewMachine:
        """The state that follows."""
        row = ROWS[found]
        running = {timer: since for timer, since in self.since.items() if timer in row.timers}
        if found in STARTS:
            running.setdefault(STARTS[found], now)
        return ViewMachine(state=row.state, since=running)


class TornLine(msgspec.Struct, frozen=True, kw_only=True):
    """A last line without its end: since when, its place and length, and the record as which it would be skipped."""

    since: float
    place: tuple[int, int]
    skipped: Skipped

    def is_due(self, now: float, *, patience: float) -> bool:
        """Whether its writer has had time enough to end it."""
        return now - self.since >= patience


def torn_line(before: TornLine | None, *, start: int, length: int, line: int, now: float) -> TornLine | None:
    """The torn line that is waited for: the one before if it has not changed; None: the last line has its end.

    Args:
        before: what was waited for until now.
        start: where it begins, in bytes.
        length: its bytes; 0: there is none.
        line: its number, counted from 1.
        now: the moment of this poll.
    """
    if not length:
        return None
    if before is not None and before.place == (start, length):
        return before
    skipped = Skipped(position=f"line {line}", reason=TORN)
    return TornLine(since=now, place=(start, length), skipped=skipped)


def with_torn_line(view: View, torn: TornLine) -> View:
    """The view that counts a torn line among the skipped records."""
    listed = [*view.skipped, torn.skipped][:MOST_SKIPPED]
    return msgspec.structs.replace(view, skipped=listed, skipped_total=view.skipped_total + 1)
