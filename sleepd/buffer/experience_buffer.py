"""The experience buffer: the user's file, read and never written.

A file that did not change is not read again. JSON lines are read from a cursor; an array or an object as a whole. What
is small is parsed in a thread, what is large in a process (``reader_process``), so the loop turns meanwhile. Half a
file is not corruption: its writer may be in the middle of it, so the last good view holds, and only after
``patience_seconds`` does the view say what is wrong. In the same way a buffer that was just emptied or removed still
counts as it was.

A torn last line of JSON lines does not hold back the complete ones: it is left out while it may still be written, and
set aside once it stayed so for ``patience_seconds``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from array import array
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from sleepd.clock import Clock
from sleepd.errors import BufferUnreadable
from sleepd.protocol.status import SetAside

from .experience import Experience
from .open_file import BufferFile
from .parsing import KEPT_SET_ASIDE
from .reader_client import ReaderProcess
from .reader_process import FirstBytes, Reading, read_digest, read_texts

LARGE_BYTES: Final = 2**20
"""Parsers hold the interpreter's lock while they run, so a thread frees the loop only between records."""
TAIL_BYTES: Final = 4096
"""Before the cursor, compared to notice that a file was rewritten in place; more than what all lines end in."""
FRESH_NANOSECONDS: Final = 50_000_000
"""File times advance with the kernel's tick, which is at most 10 ms."""
_STAT_FIELDS: Final = 5
EXTRACT_TRIES: Final = 20
EXTRACT_PAUSE_SECONDS: Final = 0.25


class View(msgspec.Struct, kw_only=True):
    """The buffer as last read. The arrays run in parallel, in file order, each id once."""

    form: str = "absent"
    keys: array[int] = msgspec.field(default_factory=lambda: array("Q"))
    """See ``experience.experience_key``."""
    groups: array[int] = msgspec.field(default_factory=lambda: array("Q"))
    """See ``experience.group_key``."""
    saliences: array[float] = msgspec.field(default_factory=lambda: array("d"))
    set_aside: list[SetAside] = []
    """The first hundred."""
    set_aside_total: int = 0
    read_at: datetime | None = None
    problem: str = ""
    """Why this is the last good view, and not the file as it is now; empty: it is current, or settling."""
    is_settling: bool = False
    """The file is half-written now and has not been so for long: look again soon. Set on the view in place."""


class _Cursor(msgspec.Struct, kw_only=True):
    """How far JSON lines were read, and how to notice that they are other lines now."""

    inode: tuple[int, int]
    reading: Reading
    """Without its arrays, which the view has."""
    tail: bytes


class _HalfWritten(msgspec.Struct, kw_only=True):
    """A state of the file that did not parse, so that it is not parsed again, and since when it has been so."""

    since: float
    identity: tuple[int, ...]
    why: str


class _Unfinished(msgspec.Struct, kw_only=True):
    """A torn last line: since when, its place and length, and what it would be set aside as."""

    since: float
    place: tuple[int, int]
    set_aside: SetAside


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Equal for an unchanged file. A file changed just now is never equal: its next change may bear the same time."""
    # The machine's own time, since it is compared with the kernel's; ctime, since nobody can set it.
    is_fresh = abs(time.time_ns() - status.st_ctime_ns) < FRESH_NANOSECONDS
    same = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return (*same, time.monotonic_ns() if is_fresh else 0)


class ExperienceBuffer:
    """Reads one buffer file.

    Args:
        path: the file; it need not exist.
        patience_seconds: a file that stays half-written for longer is a problem.
        clock: where time comes from.
        python: the interpreter of the reader process, which reads what is more than ``large_bytes`` at once.
    """

    def __init__(
        self,
        path: Path,
        *,
        patience_seconds: float,
        clock: Clock,
        python: str = sys.executable,
        large_bytes: int = LARGE_BYTES,
    ) -> None:
        self._path = path
        self._file = BufferFile(path)
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._reader = ReaderProcess(path, python, clock)
        self._large_bytes = large_bytes
        self._identity: tuple[int, ...] | None = None
        self._cursor: _Cursor | None = None
        self._half_written: _HalfWritten | None = None
        self._unfinished: _Unfinished | None = None
        self._vanishing_since: float | None = None
        self._reading = asyncio.Lock()
        self.view = View()
        """The last good view."""

    async def read(self) -> View:
        """Look at the file now; the same object is returned as long as nothing changed.

        Raises:
            BufferUnreadable: it is there and cannot be read, or is no file.
        """
        async with self._reading:
            try:
                descriptor = await self._file.open()
                if descriptor is None:
                    return self._take_absence()
                try:
                    return await self._read(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise self._file.unreadable(error) from error

    async def extract(self, wanted: Collection[int], *, characters: int | None = None) -> list[Experience]:
        """The texts of the wanted experiences that are still there, in file order, all from one state of the file.

        ``characters``: of all together, for who only shows them; those beyond it, and what is longer than anything
        that is trained, come without their texts.

        Raises:
            BufferUnreadable: the file is gone, unreadable, or stays half-written.
        """
        keys = array("Q", wanted)
        why = "it is not there"
        for _ in range(EXTRACT_TRIES):
            try:
                descriptor = await self._file.open()
                if descriptor is not None:
                    try:
                        reading = await self._texts(descriptor, keys, characters)
                    finally:
                        os.close(descriptor)
                    if not reading.half_written:
                        return reading.texts
                    why = reading.half_written
            except OSError as error:
                raise self._file.unreadable(error) from error
            await asyncio.sleep(EXTRACT_PAUSE_SECONDS)
        raise BufferUnreadable(f"{self._path}: {why}", hint="sleepctl buffer")

    # --- one look ---

    async def _read(self, descriptor: int) -> View:
        status = os.fstat(descriptor)
        identity = _identity(status)
        if self._half_written is not None:
            if identity == self._half_written.identity:
                return self._wait(identity, self._half_written.why)
        elif identity == self._identity:
            return self._aged()
        cursor = self._valid_cursor(descriptor, status, identity)
        reading = await self._digest(descriptor, status.st_size, cursor)
        if reading.half_written:
            return self._wait(identity, reading.half_written)
        if reading.form == "empty" and self._is_vanishing():
            return self.view
        self._vanishing_since = None
        self._cursor = self._cursor_at(descriptor, status, reading) if reading.form == "lines" else None
        self._note_unfinished(reading)
        self._identity, self._half_written, self.view = identity, None, self._view_of(reading)
        return self._aged()

    def _valid_cursor(self, descriptor: int, status: os.stat_result, identity: tuple[int, ...]) -> _Cursor | None:
        """The cursor, if what stands before it is still what was read."""
        cursor = self._cursor
        if cursor is None or cursor.inode != (status.st_dev, status.st_ino):
            return None
        offset = cursor.reading.consumed
        # Nothing was appended and yet the file changed: an earlier line was edited in place, or lines were cut off.
        is_same = self._identity is not None and identity[:_STAT_FIELDS] == self._identity[:_STAT_FIELDS]
        if status.st_size < offset or (status.st_size == offset and not is_same):
            return None
        return cursor if os.pread(descriptor, len(cursor.tail), offset - len(cursor.tail)) == cursor.tail else None

    @staticmethod
    def _cursor_at(descriptor: int, status: os.stat_result, reading: Reading) -> _Cursor:
        length = min(TAIL_BYTES, reading.consumed)
        tail = os.pread(descriptor, length, reading.consumed - length)
        place = msgspec.structs.replace(reading, keys=b"", groups=b"", saliences=b"")
        return _Cursor(inode=(status.st_dev, status.st_ino), reading=place, tail=tail)

    def _view_of(self, reading: Reading) -> View:
        view = View(form=reading.form, read_at=self._clock.now())
        view.keys.frombytes(reading.keys)
        view.groups.frombytes(reading.groups)
        view.saliences.frombytes(reading.saliences)
        view.set_aside, view.set_aside_total = list(reading.set_aside), reading.set_aside_total
        return view

    def _note_unfinished(self, reading: Reading) -> None:
        """Begin to wait for the end of a torn last line, or go on waiting for the same one."""
        place = (reading.consumed, reading.unfinished)
        if not reading.unfinished:
            self._unfinished = None
        elif self._unfinished is None or self._unfinished.place != place:
            aside = SetAside(position=f"line {reading.lines + 1}", reason="expected a line end, found the file's")
            self._unfinished = _Unfinished(since=self._clock.monotonic(), place=place, set_aside=aside)

    def _aged(self) -> View:
        """The view, with a torn last line set aside once it has been so for too long."""
        unfinished, view = self._unfinished, self.view
        is_due = unfinished is not None and self._clock.monotonic() - unfinished.since >= self._patience_seconds
        known = self._cursor.reading.set_aside_total if self._cursor else 0
        if unfinished is not None and is_due and view.set_aside_total == known:
            listed = [*view.set_aside, unfinished.set_aside][:KEPT_SET_ASIDE]
            self.view = msgspec.structs.replace(view, set_aside=listed, set_aside_total=known + 1)
        return self.view

    def _is_vanishing(self) -> bool:
        """Emptied or removed a moment ago: its writer may be just about to put the content back."""
        if not self.view.keys:
            return False
        now = self._clock.monotonic()
        if self._vanishing_since is None:
            self._vanishing_since = now
        self.view.is_settling = now - self._vanishing_since < self._patience_seconds
        return self.view.is_settling

    def _take_absence(self) -> View:
        if self._is_vanishing():
            return self.view
        self._vanishing_since = None
        self._identity = self._cursor = self._half_written = self._unfinished = None
        if self.view.form != "absent" or self.view.problem or self.view.is_settling or self.view.read_at is None:
            self.view = View(read_at=self._clock.now())
        return self.view

    def _wait(self, identity: tuple[int, ...], why: str) -> View:
        """Keep the last good view; say so once the file has been half-written for too long."""
        now = self._clock.monotonic()
        since = self._half_written.since if self._half_written else now
        self._half_written = _HalfWritten(since=since, identity=identity, why=why)
        if now - since < self._patience_seconds:
            self.view.is_settling = True
        elif self.view.problem != (problem := f"{self._path}: {why}"):
            self.view = msgspec.structs.replace(self.view, problem=problem, is_settling=False)
        return self.view

    # --- the file, and who parses it ---

    async def _digest(self, descriptor: int, size: int, cursor: _Cursor | None) -> Reading:
        view = self.view

        def before() -> Reading | None:
            arrays = {name: getattr(view, name).tobytes() for name in ("keys", "groups", "saliences")}
            return msgspec.structs.replace(cursor.reading, **arrays) if cursor else None

        def parse() -> Reading:
            with open(descriptor, "rb", closefd=False) as file:
                return read_digest(FirstBytes(file, size), before())

        if size - (cursor.reading.consumed if cursor else 0) <= self._large_bytes:
            return await _in_thread(parse)
        known = before()
        return await self._reader.read(descriptor, msgspec.msgpack.encode(known) if known else b"", "digest")

    async def _texts(self, descriptor: int, wanted: array[int], characters: int | None) -> Reading:
        status = os.fstat(descriptor)

        def parse() -> Reading:
            with open(descriptor, "rb", closefd=False) as file:
                return read_texts(FirstBytes(file, status.st_size), set(wanted), characters)

        if status.st_size > self._large_bytes:
            limit = [] if characters is None else [str(characters)]
            reading = await self._reader.read(descriptor, wanted.tobytes(), "texts", *limit)
        else:
            reading = await _in_thread(parse)
        after = os.fstat(descriptor)
        # Lines only grow, so whatever was read of them stands; anything else may be half one state, half another.
        is_same = (status.st_size, status.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        return reading if is_same or reading.form == "lines" else Reading(half_written="it changed while it was read")


async def _in_thread(parse: Callable[[], Reading]) -> Reading:
    work = asyncio.ensure_future(asyncio.to_thread(parse))
    try:
        return await asyncio.shield(work)
    finally:
        # A cancelled look waits for its thread: the descriptor it reads from is closed next, and its number may
        # then be another file's.
        await asyncio.wait([work])
