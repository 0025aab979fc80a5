"""The experience buffer: the user's file, read and never written.

A file that did not change is not read again. JSON lines are read from a cursor; an array or an object as a whole. What
is small is parsed in a thread, what is large in a process (``reader``), so the loop turns meanwhile. Half a file is not
corruption: its writer may be in the middle of it, so the last good view holds, and only after ``patience_seconds`` does
the view say what is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import sys
import time
from array import array
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from .clock import Clock
from .errors import BufferUnreadable
from .experience import Experience
from .reader import Reading, read_digest, read_texts
from .status import SetAside

LARGE_BYTES: Final = 8 * 2**20
READER_SECONDS: Final = 600.0
TAIL_BYTES: Final = 64
"""Before the cursor, compared to notice that a file was rewritten in place."""
FRESH_NANOSECONDS: Final = 50_000_000
"""File times advance with the kernel's tick, which is at most 10 ms."""
EXTRACT_TRIES: Final = 20
EXTRACT_PAUSE_SECONDS: Final = 0.25


class View(msgspec.Struct, kw_only=True):
    """The buffer as last read. The arrays run in parallel, in file order, each id once."""

    form: str = "absent"
    keys: array[int] = array("Q")
    """See ``experience.experience_key``."""
    groups: array[int] = array("Q")
    """See ``experience.group_key``."""
    saliences: array[float] = array("d")
    set_aside: list[SetAside] = []
    """The first hundred."""
    set_aside_total: int = 0
    read_at: datetime | None = None
    problem: str = ""
    """Why this is the last good view, and not the file as it is now; empty: it is current."""


class _Cursor(msgspec.Struct, kw_only=True):
    """How far JSON lines were read, and how to notice that they are other lines now."""

    inode: tuple[int, int]
    offset: int
    lines: int
    tail: bytes


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Equal for an unchanged file. A file changed just now is never equal: its next change may bear the same time."""
    fresh = time.time_ns() - status.st_mtime_ns < FRESH_NANOSECONDS
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        time.monotonic_ns() if fresh else 0,
    )


class ExperienceBuffer:
    """Reads one buffer file.

    Args:
        path: the file; it need not exist.
        patience_seconds: a file that stays half-written for longer is a problem.
        clock: where time comes from.
        large_bytes: more than this to read at once is read in a process of its own.
    """

    def __init__(
        self, path: Path, *, patience_seconds: float, clock: Clock, large_bytes: int = LARGE_BYTES
    ) -> None:
        self._path = path
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._large_bytes = large_bytes
        self._identity: tuple[int, ...] | None = None
        self._cursor: _Cursor | None = None
        self._half_written_since: float | None = None
        self._reading = asyncio.Lock()
        self.view = View()
        """The last good view."""

    async def read(self) -> View:
        """Look at the file now; the same object is returned as long as nothing changed.

        Raises:
            BufferUnreadable: it is there and cannot be read, or is no file.
        """
        async with self._reading:
            descriptor = self._open()
            if descriptor is None:
                return self._take(None, View(read_at=self._clock.now()))
            try:
                return await self._read(descriptor)
            finally:
                os.close(descriptor)

    async def extract(self, wanted: Collection[int]) -> list[Experience]:
        """The texts of the wanted experiences that are still there, in file order.

        Raises:
            BufferUnreadable: the file is gone, unreadable, or stays half-written.
        """
        keys = array("Q", wanted)
        reading = Reading(half_written="it is not there")
        for _ in range(EXTRACT_TRIES):
            descriptor = self._open()
            if descriptor is not None:
                try:
                    reading = await self._texts(descriptor, keys)
                finally:
                    os.close(descriptor)
                if not reading.half_written:
                    return reading.texts
            await asyncio.sleep(EXTRACT_PAUSE_SECONDS)
        raise BufferUnreadable(f"{self._path}: {reading.half_written}", hint="sleepctl buffer")

    # --- one look ---

    async def _read(self, descriptor: int) -> View:
        status = os.fstat(descriptor)
        identity = _identity(status)
        if identity == self._identity and self._half_written_since is None:
            return self.view
        cursor = self._valid_cursor(descriptor, status)
        os.lseek(descriptor, cursor.offset if cursor else 0, os.SEEK_SET)
        reading = await self._digest(descriptor, status.st_size - (cursor.offset if cursor else 0), cursor)
        if reading.half_written:
            return self._wait(reading.half_written)
        offset, view = (cursor.offset if cursor else 0) + reading.consumed, self._merged(reading, cursor)
        if reading.form == "lines":
            self._cursor = _Cursor(
                inode=(status.st_dev, status.st_ino),
                offset=offset,
                lines=(cursor.lines if cursor else 0) + reading.lines,
                tail=os.pread(descriptor, min(TAIL_BYTES, offset), offset - min(TAIL_BYTES, offset)),
            )
        else:
            self._cursor = None
        return self._take(identity, view)

    def _valid_cursor(self, descriptor: int, status: os.stat_result) -> _Cursor | None:
        """The cursor, if what stands before it is still what was read."""
        cursor = self._cursor
        if cursor is None or cursor.inode != (status.st_dev, status.st_ino) or status.st_size < cursor.offset:
            return None
        start = cursor.offset - len(cursor.tail)
        return cursor if os.pread(descriptor, len(cursor.tail), start) == cursor.tail else None

    def _merged(self, reading: Reading, cursor: _Cursor | None) -> View:
        """The view that a reading makes, alone or after the lines before the cursor."""
        fresh = View(form=reading.form, read_at=self._clock.now())
        fresh.keys, fresh.groups, fresh.saliences = array("Q"), array("Q"), array("d")
        if cursor is not None:
            fresh.keys.extend(self.view.keys)
            fresh.groups.extend(self.view.groups)
            fresh.saliences.extend(self.view.saliences)
            fresh.set_aside = self.view.set_aside
            fresh.set_aside_total = self.view.set_aside_total
        new_keys, new_groups, new_saliences = array("Q"), array("Q"), array("d")
        new_keys.frombytes(reading.keys)
        new_groups.frombytes(reading.groups)
        new_saliences.frombytes(reading.saliences)
        # A scan of the array is faster than building a set, for the few lines that an agent appends at a time.
        known = set(fresh.keys) if len(new_keys) > 100 else self.view.keys if cursor else ()
        for key, group, salience in zip(new_keys, new_groups, new_saliences, strict=True):
            if key not in known:
                fresh.keys.append(key)
                fresh.groups.append(group)
                fresh.saliences.append(salience)
        fresh.set_aside = [*fresh.set_aside, *reading.set_aside][:100]
        fresh.set_aside_total += reading.set_aside_total
        return fresh

    def _take(self, identity: tuple[int, ...] | None, view: View) -> View:
        if identity is None and self.view.form == "absent" and not self.view.problem and self.view.read_at:
            return self.view
        self._identity, self._half_written_since, self.view = identity, None, view
        if identity is None:
            self._cursor = None
        return view

    def _wait(self, why: str) -> View:
        """Keep the last good view; say so once the file has been half-written for too long."""
        now = self._clock.monotonic()
        if self._half_written_since is None:
            self._half_written_since = now
        if now - self._half_written_since >= self._patience_seconds and not self.view.problem:
            self.view = msgspec.structs.replace(self.view, problem=f"{self._path}: {why}")
        return self.view

    # --- the file, and who parses it ---

    def _open(self) -> int | None:
        """A descriptor; None: there is no file. A pipe or a device in its place is never waited for."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError:
            return None
        except OSError as error:
            hint = "let this user read it, and pass through every directory above it"
            if error.errno not in (errno.EACCES, errno.EPERM):
                hint = "mend [buffer] path"
            raise BufferUnreadable(f"{self._path}: {error.strerror}", hint=hint) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BufferUnreadable(f"{self._path}: expected a regular file", hint="mend [buffer] path")
        return descriptor

    async def _digest(self, descriptor: int, size: int, cursor: _Cursor | None) -> Reading:
        first_line = cursor.lines + 1 if cursor else None
        if size > self._large_bytes:
            return await self._in_process(descriptor, ["digest", *([str(first_line)] if first_line else [])], b"")

        def parse() -> Reading:
            with open(descriptor, "rb", closefd=False) as file:
                return read_digest(file, first_line=first_line)

        return await asyncio.to_thread(parse)

    async def _texts(self, descriptor: int, wanted: array[int]) -> Reading:
        if os.fstat(descriptor).st_size > self._large_bytes:
            return await self._in_process(descriptor, ["texts"], wanted.tobytes())

        def parse() -> Reading:
            with open(descriptor, "rb", closefd=False) as file:
                return read_texts(file, set(wanted))

        return await asyncio.to_thread(parse)

    async def _in_process(self, descriptor: int, arguments: list[str], given: bytes) -> Reading:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "sleepd.reader",
            str(descriptor),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(descriptor,),
        )
        try:
            answer, complaint = await asyncio.wait_for(process.communicate(given), READER_SECONDS)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            last = complaint.decode("utf-8", "replace").strip().split("\n")[-1]
            raise BufferUnreadable(
                f"{self._path}: the reader process ended with {process.returncode}: {last}",
                hint="a buffer of this size needs about four times as much memory for a moment",
            )
        return msgspec.msgpack.decode(answer, type=Reading)
