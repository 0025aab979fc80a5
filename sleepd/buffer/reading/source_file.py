"""One file of the experience buffer: the user's, read and never written.

A file that did not change is not read again. JSON lines are read from a cursor; an array or an object as a whole. What
is small is parsed in a thread, what is large in a process (``reader_process``), so the loop turns meanwhile.

What a half-written, an emptied and a missing file mean for the view is decided by the table in ``view``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from array import array
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sleepd.buffer.columns import BufferColumns
from sleepd.buffer.experience import Experience
from sleepd.buffer.learnables import READ_BY_DEFAULT, ReadSettings
from sleepd.clock import Clock
from sleepd.errors import BufferUnreadable

from .open_file import BufferFile, identity_of
from .prefix_hash import prefix_hash
from .reader_client import ReaderProcess, read_in_thread
from .reader_process import Reading, ReadRequest
from .screening_starts import FROM_THE_BEGINNING, ScreeningStarts, Start
from .view import ROWS, SETTLING, PollResult, Shown, TornLine, View, ViewMachine, ViewState, torn_line, with_torn_line

LARGE_BYTES: Final = 2**20
"""Parsers hold the interpreter's lock while they run, so a thread frees the loop only between records."""
_STAT_FIELDS: Final = 5
EXTRACT_TRIES: Final = 20
EXTRACT_PAUSE_SECONDS: Final = 0.25


class _Cursor(msgspec.Struct, kw_only=True):
    """How far JSON lines were read, and how to notice that they are other lines now."""

    inode: tuple[int, int]
    reading: Reading
    """Without its columns, which the view has."""
    hash: bytes
    """See ``prefix_hash``, of all that was read."""


class _Parsed(msgspec.Struct, kw_only=True):
    """The state of the file that the view is of."""

    identity: tuple[int, ...]
    cursor: _Cursor | None
    """Of JSON lines; None: the file is parsed as a whole each time."""


class _Refused(msgspec.Struct, kw_only=True):
    """A state of the file that could not be parsed, so that it is not parsed again."""

    identity: tuple[int, ...]
    why: str


class Extract(NamedTuple):
    """What was asked for beyond the figures."""

    texts: list[Experience]
    answers: array[int]


class Due(msgspec.Struct, kw_only=True):
    """A file that must be read: it is new, or not what it was."""

    descriptor: int
    status: os.stat_result
    identity: tuple[int, ...]
    request: ReadRequest

    @property
    def bytes_to_read(self) -> int:
        """What was appended since, or the whole."""
        before = self.request.before
        return self.status.st_size - (before.consumed if before else 0)


class SourceFile:
    """Reads one file.

    Args:
        path: the file; it need not exist.
        patience_seconds: a file that stays half-written for longer is a problem.
        clock: where time comes from.
        settings: how it is read.
        python: the interpreter of the reader process, which reads what is more than ``large_bytes`` at once.
    """

    def __init__(
        self,
        path: Path,
        *,
        patience_seconds: float,
        clock: Clock,
        settings: ReadSettings = READ_BY_DEFAULT,
        python: str = sys.executable,
        large_bytes: int = LARGE_BYTES,
    ) -> None:
        self._path = path
        self.file = BufferFile(path)
        """For whoever reads it in another process."""
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._settings = settings
        self._reader = ReaderProcess(path, python, clock)
        self._large_bytes = large_bytes
        self._parsed: _Parsed | None = None
        self._refused: _Refused | None = None
        self._machine = ViewMachine()
        self._torn: TornLine | None = None
        self._starts = ScreeningStarts()
        self._reading = asyncio.Lock()
        self.view = View()
        """The last good view."""

    async def read(self) -> View:
        """Poll the file; the same object is returned as long as nothing changed.

        Raises:
            BufferUnreadable: it is there and cannot be read, or is no file.
        """
        async with self._reading:
            try:
                descriptor = await self.file.open()
                if descriptor is None:
                    return self._take_absence()
                try:
                    due = self._due(descriptor)
                    return due if isinstance(due, View) else self.take(due, await self._answer(due))
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise self.file.unreadable(error) from error

    async def due(self) -> Due | None:
        """What must be read, for who reads many files at once, calls ``take`` and closes the descriptor; None: nothing.

        Raises:
            BufferUnreadable: it is there and cannot be read, or is no file.
        """
        try:
            descriptor = await self.file.open()
            due = self._take_absence() if descriptor is None else self._due(descriptor)
        except OSError as error:
            raise self.file.unreadable(error) from error
        if isinstance(due, Due):
            return due
        if descriptor is not None:
            os.close(descriptor)
        return None

    @property
    def is_waiting(self) -> bool:
        """Whether it must be polled though nothing changed: a trouble, or a torn line, is waited out."""
        return self.view.is_settling or self._torn is not None or self._refused is not None

    def screening_start(self, first: int | None) -> Start:
        """Where the screening begins to read, for what is in the view from its place ``first`` on; None: nothing."""
        before, cursor = self.view.left_out, self._parsed.cursor if self._parsed else None
        count, end = before + len(self.view.keys), FROM_THE_BEGINNING
        if cursor is not None:
            end = Start(offset=cursor.reading.consumed, found=count, said=cursor.reading.said.tobytes())
        return self._starts.next(count if first is None else before + first, end)

    def rate(self, ratings: dict[str, float]) -> bool:
        """Read it anew at the next poll, where these ratings are others than before; returns whether they are."""
        is_other = ratings is not self._settings.ratings and ratings != self._settings.ratings
        if is_other:
            self._settings = msgspec.structs.replace(self._settings, ratings=ratings)
            self._parsed = None
        return is_other

    async def extract(
        self, wanted: Collection[int], *, characters: int | None = None, answers_of: Collection[int] = ()
    ) -> Extract:
        """The texts of the wanted experiences that are still there, in file order, all from one state of the file.

        Args:
            wanted: their keys.
            characters: of all together, for who only shows them; those beyond it, and what is longer than anything
                that is trained, come without their texts.
            answers_of: keys of replies of which the hashes are wanted, and no texts; see ``answers``.

        Raises:
            BufferUnreadable: the file is gone, unreadable, or stays half-written.
        """
        request = ReadRequest(
            settings=self._settings,
            wanted=array("Q", wanted).tobytes(),
            characters=characters,
            answers_of=array("Q", answers_of).tobytes(),
        )
        why = "it is not there"
        for _ in range(EXTRACT_TRIES):
            try:
                descriptor = await self.file.open()
                if descriptor is not None:
                    try:
                        reading = await self._texts(descriptor, request)
                    finally:
                        os.close(descriptor)
                    if not reading.half_written:
                        return Extract(reading.texts, reading.answers)
                    why = reading.half_written
            except OSError as error:
                raise self.file.unreadable(error) from error
            await asyncio.sleep(EXTRACT_PAUSE_SECONDS)
        raise BufferUnreadable(f"{self._path}: {why}", hint="sleepctl buffer")

    # --- one poll ---

    def _due(self, descriptor: int) -> Due | View:
        status = os.fstat(descriptor)
        identity = identity_of(status)
        if self._refused is not None and identity == self._refused.identity:
            return self._take_half(self._refused)
        if self._refused is None and self._parsed is not None and identity == self._parsed.identity:
            return self._take(PollResult.UNCHANGED)
        cursor = self._valid_cursor(descriptor, status, identity)
        if cursor is not None and self._refused is None and status.st_size == cursor.reading.consumed:
            self._parsed = _Parsed(identity=identity, cursor=cursor)  # looked at anew, for it had changed just before
            return self._take(PollResult.UNCHANGED)
        request = ReadRequest(settings=self._settings, before=self._before(cursor))
        return Due(descriptor=descriptor, status=status, identity=identity, request=request)

    def take(self, due: Due, reading: Reading) -> View:
        """Take in what a process or a thread read of it."""
        if reading.half_written:
            return self._take_half(_Refused(identity=due.identity, why=reading.half_written))
        if reading.form == "empty" and self._gone() is PollResult.GONE:
            return self._take(PollResult.GONE)
        cursor = self._cursor_at(due.descriptor, due.status, reading) if reading.form == "lines" else None
        if due.request.before is None:
            self._starts = ScreeningStarts()
        self._parsed, self._refused = _Parsed(identity=due.identity, cursor=cursor), None
        self._torn = torn_line(
            self._torn,
            start=reading.consumed,
            length=reading.unfinished,
            line=reading.lines + 1,
            now=self._clock.monotonic(),
        )
        return self._take(PollResult.WHOLE, self._view_of(reading))

    def _take_absence(self) -> View:
        """There is no file."""
        found = self._gone()
        if found is PollResult.GONE:
            return self._take(found)
        self._parsed = self._refused = self._torn = None
        is_known = self.view.form == "absent" and not self.view.problem and self.view.read_at is not None
        return self._take(found, self.view if is_known else View(read_at=self._clock.now()))

    def _take_half(self, refused: _Refused) -> View:
        self._refused = refused
        return self._take(self._machine.half(self._clock.monotonic(), patience=self._patience_seconds))

    def _gone(self) -> PollResult:
        now, has_experiences = self._clock.monotonic(), bool(self.view.keys)
        return self._machine.gone(now, patience=self._patience_seconds, has_experiences=has_experiences)

    def _take(self, found: PollResult, new: View | None = None) -> View:
        """Move the machine, and show the view that its table names."""
        now, row = self._clock.monotonic(), ROWS[found]
        self._machine = self._machine.after(found, now)
        if row.shown is Shown.NEW:
            assert new is not None
            self.view = new
        elif row.shown is Shown.LAST_WITH_PROBLEM:
            assert self._refused is not None
            problem = f"{self._path}: {self._refused.why}"
            if self.view.problem != problem:
                self.view = msgspec.structs.replace(self.view, problem=problem)
        self.view.is_settling = row.state in SETTLING
        if row.state is ViewState.CURRENT:
            self._count_torn_line(now)
        return self.view

    def _count_torn_line(self, now: float) -> None:
        cursor = self._parsed.cursor if self._parsed else None
        if cursor is None or self._torn is None or not self._torn.is_due(now, patience=self._patience_seconds):
            return
        if self.view.skipped_total == cursor.reading.skipped_total:  # not counted yet
            self.view = with_torn_line(self.view, self._torn)

    def _valid_cursor(self, descriptor: int, status: os.stat_result, identity: tuple[int, ...]) -> _Cursor | None:
        """The cursor, if what stands before it is still what was read."""
        parsed = self._parsed
        cursor = parsed.cursor if parsed else None
        if parsed is None or cursor is None or cursor.inode != (status.st_dev, status.st_ino):
            return None
        offset = cursor.reading.consumed
        # Nothing was appended and yet the file changed: an earlier line was edited in place, or lines were cut off.
        is_same = identity[:_STAT_FIELDS] == parsed.identity[:_STAT_FIELDS]
        if status.st_size < offset or (status.st_size == offset and not is_same):
            return None
        return cursor if prefix_hash(descriptor, offset) == cursor.hash else None

    @staticmethod
    def _cursor_at(descriptor: int, status: os.stat_result, reading: Reading) -> _Cursor:
        place = msgspec.structs.replace(reading, columns=BufferColumns())
        found = prefix_hash(descriptor, reading.consumed)
        return _Cursor(inode=(status.st_dev, status.st_ino), reading=place, hash=found)

    def _view_of(self, reading: Reading) -> View:
        arrays = {name: getattr(reading.columns, name) for name in BufferColumns.__struct_fields__}
        view = View(form=reading.form, read_at=self._clock.now(), left_out=reading.left_out, **arrays)
        view.skipped, view.skipped_total, view.rated = list(reading.skipped), reading.skipped_total, reading.rated
        return view

    # --- the file, and who parses it ---

    def _before(self, cursor: _Cursor | None) -> Reading | None:
        """What is known of the lines before the cursor."""
        if cursor is None:
            return None
        arrays = {name: getattr(self.view, name) for name in BufferColumns.__struct_fields__}
        return msgspec.structs.replace(cursor.reading, columns=BufferColumns(**arrays))

    async def _answer(self, due: Due) -> Reading:
        if due.bytes_to_read > self._large_bytes:
            return await self._reader.read(due.descriptor, due.request)
        return await read_in_thread(due.descriptor, due.status.st_size, due.request)

    async def _texts(self, descriptor: int, request: ReadRequest) -> Reading:
        status = os.fstat(descriptor)
        if status.st_size > self._large_bytes:
            reading = await self._reader.read(descriptor, request)
        else:
            reading = await read_in_thread(descriptor, status.st_size, request)
        after = os.fstat(descriptor)
        # Lines only grow, so whatever was read of them stands; anything else may be half one state, half another.
        is_same = (status.st_size, status.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        return (
            reading
            if is_same or reading.form in ("lines", "session")
            else Reading(half_written="it changed while it was read")
        )
