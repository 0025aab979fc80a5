"""Has a large buffer read in a process of its own (``reader_process``), which has limits of time and memory.

A process that fails is not started again at every poll: it waits a minute, then two, at most an hour, unless the file
has become smaller meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sleepd.clock import Clock
from sleepd.errors import BufferUnreadable

from .line_cutter import FirstBytes
from .reader_process import Reading, ReadRequest, answer, batch_of, packed, unpacked

READER_SECONDS: Final = 600.0
FIRST_PAUSE_SECONDS: Final = 60.0
LONGEST_PAUSE_SECONDS: Final = 3600.0


class _Failed(NamedTuple):
    """How it failed the last time."""

    error: BufferUnreadable
    size: int
    pause_seconds: float
    until: float


class ReaderProcess:
    """Reads files for one buffer.

    Args:
        path: as the file, or all of them, are named in messages.
        python: the interpreter.
        clock: where time comes from.
    """

    def __init__(self, path: Path | str, python: str, clock: Clock) -> None:
        self._path = path
        self._python = python
        self._clock = clock
        self._failed: dict[str, _Failed] = {}
        """By what was asked for."""

    async def read(self, descriptor: int, request: ReadRequest) -> Reading:
        """As ``read_all``, of one file."""
        return (await self.read_all([descriptor], [request]))[0]

    async def read_all(self, descriptors: Sequence[int], requests: Sequence[ReadRequest]) -> list[Reading]:
        """The answers of one process, from open files.

        Raises:
            BufferUnreadable: it could not be started, failed or took too long, now or a short while ago.
        """
        what = "digest" if requests[0].wanted is None else "texts"
        size, failed = sum(os.fstat(each).st_size for each in descriptors), self._failed.get(what)
        if failed is not None and size >= failed.size and self._clock.monotonic() < failed.until:
            raise failed.error
        try:
            readings = await self._read(descriptors, packed([batch_of(requests)]))
        except BufferUnreadable as error:
            pause = min(2 * failed.pause_seconds, LONGEST_PAUSE_SECONDS) if failed else FIRST_PAUSE_SECONDS
            self._failed[what] = _Failed(error, size, pause, self._clock.monotonic() + pause)
            raise
        self._failed.pop(what, None)
        return readings

    async def _read(self, descriptors: Sequence[int], given: bytes) -> list[Reading]:
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._python, "-P", "-m", "sleepd.buffer.reading.reader_process", *map(str, descriptors)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=descriptors,
            )
        except OSError as error:
            how = f"{self._python} could not be started: {error.strerror}"
            raise self._failure(how, "was Python upgraded or removed? systemctl restart sage-sleepd") from error
        try:
            async with asyncio.timeout(READER_SECONDS):
                answer, complaint = await process.communicate(given)
        except TimeoutError:
            how = f"did not end within {READER_SECONDS:g} seconds"
            hint = "let the agent keep fewer experiences, or check the disk: journalctl -k"
            raise self._failure(how, hint) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            last = complaint.decode("utf-8", "replace").strip().split("\n")[-1][:200]
            hint = "a buffer of this size needs about four times as much memory for a moment"
            raise self._failure(f"ended with {process.returncode}: {last}", hint)
        return unpacked(answer, Reading)

    def _failure(self, how: str, hint: str) -> BufferUnreadable:
        return BufferUnreadable(f"{self._path}: the reader process {how}", hint=hint)


async def read_in_thread(descriptor: int, size: int, request: ReadRequest) -> Reading:
    """What is asked for of a small file: a thread reads it."""

    def parse() -> Reading:
        with open(descriptor, "rb", closefd=False) as file:
            return answer(FirstBytes(file, size), request)

    work = asyncio.ensure_future(asyncio.to_thread(parse))
    try:
        return await asyncio.shield(work)
    finally:
        # A cancelled poll waits for its thread: the descriptor it reads from is closed next, and its number may
        # then be another file's.
        await asyncio.wait([work])
