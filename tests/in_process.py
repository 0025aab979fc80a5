"""Work of other processes in the tests' own one, which saves the start of an interpreter for each.

``tests/conftest.py`` puts the screening and the fake worker in place of their processes, except in tests marked
``processes``. What only a process can do (crash, hang, print) starts one here too. A program of the worker's
interpreter is run here where a test asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import io
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from sleepd.buffer.learnables import HalfWritten, ReadSettings
from sleepd.buffer.reading.experience_buffer import Part
from sleepd.buffer.reading.line_cutter import FirstBytes
from sleepd.buffer.reading.reader_process import read_learnables
from sleepd.buffer.reading.screening_starts import Start
from sleepd.cycles.running.worker_process import Worker, WorkerPolicy
from sleepd.protocol.job import Failure, Notice, Progress, Report, decode_message, encode
from sleepd.quarantine.near_duplicates import Screened
from sleepd.quarantine.screening_client import BATCH, MOST_ASKING, Earlier
from sleepd.quarantine.screening_process import Screener, screen_wanted
from sleepd.text.secret_scan import SecretFinder
from tests.fake_worker import NEEDS_PROCESS, PAUSE_SECONDS, Pause, messages, read_job
from tests.fakes import FAKE_WORKER

NOTHING_EARLIER = Earlier(lambda: (), lambda _: [])


@functools.cache
def secret_finder() -> SecretFinder:
    """One for all tests: the library behind it is slow to load."""
    return SecretFinder()


async def screened_here(
    parts: Sequence[Part], earlier: Earlier, *, settings: ReadSettings
) -> AsyncGenerator[list[Screened], None]:
    """What ``screening_client.screened`` finds, without its process."""
    found: list[Screened] = []
    if sum(len(part.keys) for part in parts) <= MOST_ASKING:
        screener = Screener(secret_finder(), ask=earlier.sharing)
    else:
        screener = Screener(secret_finder(), (pair for page in earlier.signatures() for pair in page))
    for file, keys, start in parts:
        try:
            descriptor = await file.open()
        except OSError as error:
            raise file.unreadable(error) from error
        if descriptor is not None:
            found += _screened(descriptor, set(keys), screener, settings, start)
    for first in range(0, len(found), BATCH):
        yield found[first : first + BATCH]


def _screened(
    descriptor: int, wanted: set[int], screener: Screener, settings: ReadSettings, start: Start
) -> list[Screened]:
    found: list[Screened] = []
    with open(descriptor, "rb") as whole:
        try:
            learnables = read_learnables(FirstBytes(whole, os.fstat(descriptor).st_size), settings, start)[1]
            found.extend(screen_wanted(learnables, wanted, screener))
        except HalfWritten:
            pass  # what was found until there was read whole
    return found


class WorkerHere:
    """The fake worker as ``worker_process.Worker`` runs it, without its process; the messages are the wire's."""

    def __init__(self, behaviour: str, listener: Callable[[Progress | Notice], None]) -> None:
        self._behaviour = behaviour
        self._listener = listener
        self._should_stop = asyncio.Event()

    def stop(self) -> None:
        """As the worker's."""
        self._should_stop.set()

    kill = stop

    async def run(self, staging: Path) -> Report | Failure:
        """As the worker's."""
        job, examples = read_job(staging)
        for sent in messages(self._behaviour, job, examples, staging):
            if await self._is_stopped(PAUSE_SECONDS if isinstance(sent, Pause) else 0.0):
                return Failure(kind="stopped", message="asked to stop")
            if isinstance(sent, Pause):
                continue
            message = decode_message(encode(sent))
            if isinstance(message, Report | Failure):
                return message
            if isinstance(message, Progress | Notice):
                self._listener(message)
        raise AssertionError("the fake worker ended without a report")

    async def _is_stopped(self, seconds: float) -> bool:
        """Whether it was asked to stop; waits so long for it, and lets other tasks run in any case."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._should_stop.wait()
        return self._should_stop.is_set()


def worker_here(policy: WorkerPolicy, listener: Callable[[Progress | Notice], None]) -> Worker | WorkerHere:
    """The fake worker in this process where that can behave as asked, else a process."""
    behaviour = policy.command[-1]
    if str(FAKE_WORKER) not in policy.command or NEEDS_PROCESS & set(behaviour.split(",")):
        return Worker(policy, listener)
    return WorkerHere(behaviour, listener)


def program_here(module: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """What ``python -m MODULE ARGUMENTS`` prints; this process's environment stays as it is."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(shown):
        patched.setattr(sys, "argv", [module, *arguments])
        patched.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        patched.setattr(f"{module}.prepare_environment", lambda: None)
        assert importlib.import_module(module).main() == 0
    return shown.getvalue().encode()
