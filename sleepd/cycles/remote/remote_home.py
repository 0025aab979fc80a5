"""The daemon's side of a worker on another machine: to the daemon this process is the worker.

``python -m sleepd.cycles.remote.remote_home --settings JSON --fd N STAGING`` stands in the place of
``sleepd.worker``: the same job in the same directory, the same messages, SIGTERM to stop it. It sends what was staged
to the host, passes on what the worker there says, and puts what it has left into the staging directory before it passes
on how it ended.

Rule 1: no text and no adapter leaves before the host has shown the same version, code and base.
Rule 2: a report is passed on only after its files are here, whole and synced.
Rule 3: which machine measured is said here, not there (``Report.host``).

A line that breaks is opened again, ``PAUSES`` long. The host's worker is asked to stop meanwhile, and writes a resume
point; the next connection goes on from it. Where the line stays broken the cycle is suspended, and goes on later.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from sleepd.config.schema import Config
from sleepd.errors import LineBroken, ProtocolError, WorkerFailed
from sleepd.files import read_document
from sleepd.protocol.job import (
    RESUME_POINT,
    Failure,
    FailureKind,
    Hello,
    Notice,
    Progress,
    Report,
    decode_job,
    encode,
)
from sleepd.protocol.remote_job import (
    ADAPTERS,
    JOB,
    RETURNED,
    SENT,
    FileEntry,
    HostMessage,
    JobRefused,
    MachineIdentity,
    Offer,
    Results,
    ResultsReceived,
    Stop,
    Wanted,
    refuse_list,
)
from sleepd.version import VERSION

from .identity import own_identity
from .line import HostLine, entry_of
from .ssh import open_line

PAUSES: Final = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 60.0)
"""Between two attempts to reach the host in one cycle, in seconds; after the last one it is given up."""
_BEAT_SECONDS: Final = 2.0

Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[HostLine[HostMessage]]]


class _NotNow(Exception):
    """The host refuses for the moment."""


class Home:
    """One job on the host.

    Args:
        staging: the cycle's directory.
        host: the name of the host in messages.
        identity: this machine's.
        open_host: a line to the host.
        tell: what the daemon gets.
        limits: ``silence_seconds`` and ``stop_seconds`` of the worker there.
        pauses: see ``PAUSES``.
    """

    def __init__(
        self,
        staging: Path,
        host: str,
        identity: MachineIdentity,
        open_host: Opener,
        tell: Callable[[Progress | Notice], None],
        limits: tuple[float, float],
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self._staging = staging
        self._host = host
        self._identity = identity
        self._open_host = open_host
        self._tell = tell
        self._silence_seconds, self._stop_seconds = limits
        self._pauses = pauses
        self._files = dict(offered_files(staging))
        self._notices: list[Notice] = []
        self._should_stop = asyncio.Event()
        self._has_begun = RESUME_POINT in self._files

    def stop(self) -> None:
        """Ask the worker there to stop."""
        self._should_stop.set()

    async def work(self) -> Report | Failure:
        """Have the job done there, and its results brought here."""
        why = ""
        for pause in (0.0, *self._pauses):
            if await self._is_stopped(pause):
                return Failure(kind="stopped", message="asked to stop")
            try:
                async with self._open_host() as line, line.beating():
                    return await self._on_line(line)
            except _NotNow as error:
                why = str(error)
            except LineBroken as error:
                why = f"{self._host}: {error.message}"
                if not self._has_begun:
                    return Failure(kind="error", message=why, hint=error.hint)
                self._tell(Notice(event="host_line_broken", text=why, level="warning"))
        kind: FailureKind = "line_lost" if self._has_begun else "error"
        return Failure(kind=kind, message=why, hint="sleepctl worker-host check; a job that began stays on the host")

    async def _is_stopped(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._should_stop.wait()
        return self._should_stop.is_set()

    async def _on_line(self, line: HostLine[HostMessage]) -> Report | Failure:
        offered = await asyncio.to_thread(self._entries)
        line.post(
            Offer(
                identity=self._identity,
                files=list(offered.values()),
                silence_seconds=self._silence_seconds,
                stop_seconds=self._stop_seconds,
            )
        )
        answer = await line.receive()
        if isinstance(answer, JobRefused) and answer.is_passing:
            raise _NotNow(f"{self._host}: {answer.message}")
        if isinstance(answer, JobRefused):
            return self._marked(Failure(kind="error", message=answer.message, hint=answer.hint))
        if not (isinstance(answer, Wanted) and offered.keys() >= set(answer.names)):
            raise _unexpected(answer)
        self._tell(Progress(phase="loading", doing=f"sent the job to {self._host}"))
        await line.send_files([(offered[name], self._files[name]) for name in answer.names])
        had_begun, self._has_begun = self._has_begun, True
        stopping = asyncio.create_task(self._pass_stop(line))
        try:
            return await self._listen(line)
        except _NotNow:
            self._has_begun = had_begun
            raise
        finally:
            stopping.cancel()

    def _entries(self) -> dict[str, FileEntry]:
        found = {name: entry_of(name, path) for name, path in self._files.items()}
        return {name: entry for name, entry in found.items() if entry is not None}

    async def _pass_stop(self, line: HostLine[HostMessage]) -> None:
        await self._should_stop.wait()
        with contextlib.suppress(LineBroken):  # who listens finds out too
            line.post(Stop())

    async def _listen(self, line: HostLine[HostMessage]) -> Report | Failure:
        while True:
            message = await line.receive()
            if isinstance(message, Progress):
                device = f"{message.device} on {self._host}" if message.device else ""
                self._tell(msgspec.structs.replace(message, device=device))
            elif isinstance(message, Notice):
                if message not in self._notices:  # a job on Ray is read from its beginning each time
                    self._notices.append(message)
                    self._tell(message)
            elif isinstance(message, Results):
                refuse_list(message.files, RETURNED)
                await line.receive_files(message.files, self._staging)
                outcome = await line.receive()
                if not isinstance(outcome, Report | Failure):
                    raise _unexpected(outcome)
                line.post(ResultsReceived())
                return self._marked(outcome)
            elif isinstance(message, JobRefused) and message.is_passing:
                raise _NotNow(f"{self._host}: {message.message}")
            elif isinstance(message, JobRefused):
                return self._marked(Failure(kind="error", message=message.message, hint=message.hint))
            else:
                raise _unexpected(message)

    def _marked(self, outcome: Report | Failure) -> Report | Failure:
        if isinstance(outcome, Report):
            return msgspec.structs.replace(outcome, host=self._host)
        if outcome.kind == "died" and self._should_stop.is_set():  # Ray stops a job's worker too, as a signal does
            outcome = msgspec.structs.replace(outcome, kind="stopped")
        return msgspec.structs.replace(outcome, message=f"{self._host}: {outcome.message}")


def offered_files(staging: Path) -> Iterator[tuple[str, Path]]:
    """Every file that the job needs and that is here, by the name that it has on the line.

    Raises:
        OSError: the job cannot be read.
        ProtocolError: it is no job.
    """
    job = decode_job(read_document(staging / JOB))
    for name in SENT:
        folder, _, rest = name.partition("/")
        at = getattr(job, folder) if folder in ADAPTERS else str(staging / folder)
        path = Path(at or os.devnull, rest)
        if at and path.is_file():
            yield name, path


def _unexpected(message: object) -> ProtocolError:
    return ProtocolError(
        f"the host sent {type(message).__name__} where something else was expected",
        hint="install the same version of sage-sleepd on both machines",
    )


async def _run(config: Config, staging: Path, wire: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=wire)
    last = Progress(phase="loading", doing=f"asked {config.worker.place} whether it has the same base")

    def tell(message: Progress | Notice) -> None:
        nonlocal last
        last = message if isinstance(message, Progress) else last
        if not gone.done():
            writer.write(encode(message))

    async def beat() -> None:
        while True:  # every wait of ``work`` is bounded; a worker that hangs is noticed on the host
            tell(last)
            await asyncio.sleep(_BEAT_SECONDS)

    writer.write(encode(Hello(version=VERSION, pid=os.getpid())))
    asked = asyncio.Event()
    gone = asyncio.create_task(reader.read())
    work = asyncio.create_task(_outcome(config, staging, tell, asked))
    beating = asyncio.create_task(beat())
    await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
    beating.cancel()
    if not work.done():
        if not asked.is_set():  # else the resume point still comes home, until the daemon kills this process
            work.cancel()
        await asyncio.wait([work])
        return
    writer.write(encode(work.result()))
    await writer.drain()


async def _outcome(
    config: Config, staging: Path, tell: Callable[[Progress | Notice], None], asked: asyncio.Event
) -> Report | Failure:
    worker = config.worker
    try:
        home = Home(
            staging,
            worker.place,
            await own_identity(config),
            lambda: open_line(config),
            tell,
            (worker.silence_seconds, worker.stop_seconds / 2),
        )

        def stop() -> None:
            asked.set()
            home.stop()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await home.work()
    except (WorkerFailed, ProtocolError) as error:
        return Failure(kind="error", message=f"{worker.place}: {error.message}", hint=error.hint)
    except OSError as error:
        hint = "make space in the state directory (df -h), and see who may read it"
        return Failure(kind="error", message=f"{worker.place}: {error}", hint=hint)


def main() -> int:
    """Work as the worker of one cycle."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.cycles.remote.remote_home", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--settings", required=True, help="the daemon's configuration as JSON")
    parser.add_argument("--fd", type=int, required=True, help="inherited end of a socket pair")
    parser.add_argument("staging", type=Path, help="the cycle's staging directory")
    given = parser.parse_args()
    config = msgspec.json.decode(given.settings, type=Config)
    asyncio.run(_run(config, given.staging, socket.socket(fileno=given.fd)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
