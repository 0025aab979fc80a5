"""The machine that trains for another one: one job over standard input and output, then the end.

``sleepctl worker-host serve`` becomes this program; in ``authorized_keys`` it is the forced command of home's key, so
that the key can do nothing else.

Rule 1: home chooses data, strategy and limits. Base, device, caches and every path are those of this machine's own
configuration, and so is the only command that a job may name (``evaluation.command``).
Rule 2: the worker is run and watched as the daemon's own is (``worker_process``).
Rule 3: what stands below ``hosted/`` belongs to jobs that were not brought to their end. It is removed when home has
the results, or after ``KEPT_DAYS``.

On disk, below the state directory:

    hosted/lock           one job at a time
    hosted/ID/            what home sent, by its names; ID is made from the contents (``remote_job.job_id``)
    hosted/ID/run/        the worker's staging directory, with the resume point

A line that breaks asks the worker to stop. The job stays: the same job, offered again, is known by its id, nothing is
sent twice, and the worker goes on from its resume point.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sleepd.config.layers import load
from sleepd.config.schema import Config
from sleepd.cycles.running.gpu_lock import GpuLock
from sleepd.cycles.running.worker_process import Worker, WorkerPolicy, worker_command
from sleepd.errors import Busy, LineBroken, ProtocolError, SleepdError, WorkerDied, WorkerFailed
from sleepd.files import make_directory, open_lock, read_document, write_durably
from sleepd.host import worker_python
from sleepd.log import configure
from sleepd.protocol.capability import Capability
from sleepd.protocol.job import MAX_MESSAGE_BYTES, RESUME_POINT, Failure, Job, Report, decode_job, encode
from sleepd.protocol.remote_job import (
    ADAPTERS,
    EXAMPLES,
    JOB,
    RETURNED,
    SENT,
    Examine,
    Examined,
    FileEntry,
    HomeMessage,
    JobRefused,
    Offer,
    Results,
    ResultsReceived,
    Stop,
    Wanted,
    decode_home,
    job_id,
    refuse_list,
)
from sleepd.worker_program import NoAnswer, ask_worker

from .identity import difference, own_identity
from .line import HostLine, entry_of

KEPT_DAYS: Final = 7.0
_MIB: Final = 2**20


class JobNotTaken(Exception):
    """The job is not taken; the message that says so is its argument."""

    def __init__(self, message: str, hint: str, *, is_passing: bool = False) -> None:
        super().__init__(message)
        self.answer = JobRefused(message=message, hint=hint, is_passing=is_passing)


class Host:
    """Serves one line.

    Args:
        config: this machine's own.
        line: to home.
        command: what starts a worker.
    """

    def __init__(self, config: Config, line: HostLine[HomeMessage], command: tuple[str, ...]) -> None:
        self._config = config
        self._line = line
        self._command = command
        self._place = Path(config.state.directory, "hosted")

    async def serve(self) -> None:
        """Answer an examination, or do a job; what else comes is not answered.

        Raises:
            LineBroken: home is gone.
            SleepdError: home does not speak as it should.
            OSError: the disk did not take it.
        """
        async with self._line.beating():
            asked = await self._line.receive()
            try:
                if isinstance(asked, Examine):
                    self._line.post(await self._examined())
                if isinstance(asked, Offer):
                    await self._accept(asked)
            except JobNotTaken as refusal:
                self._line.post(refusal.answer)
            except (ProtocolError, WorkerFailed, OSError) as error:
                if isinstance(error, LineBroken):
                    raise
                self._line.post(JobRefused(message=str(error), hint="sleepctl worker-host check tells more"))

    async def _examined(self) -> Examined:
        config, found = self._config, Capability(version="")
        arguments = ["sleepd.worker.probe", "--device", config.worker.device, "--base", config.model.base]
        arguments += ["--cache", config.model.cache_directory]
        python = worker_python(config.worker.python)
        try:
            if config.worker.trains:
                found = await asyncio.to_thread(ask_worker, python, arguments, Capability)
            else:
                found = Capability(version="", device_problem='worker.device is "none"', device_hint="set it there")
        except NoAnswer as error:
            found = Capability(version="", device_problem=str(error), device_hint="set worker.python there")
        make_directory(self._place)
        return Examined(
            identity=await own_identity(config),
            device=found.device,
            device_problem=found.device_problem,
            device_hint=found.device_hint,
            free_bytes=shutil.disk_usage(self._place).free,
            is_confined="SSH_ORIGINAL_COMMAND" in os.environ,
        )

    async def _accept(self, offer: Offer) -> None:
        refuse_list(offer.files, SENT)
        text, hint = difference(offer.identity, await own_identity(self._config))
        if text:
            raise JobNotTaken(f"the cycle does not start: {text}", hint)
        if not self._config.worker.trains:
            raise JobNotTaken('worker.device is "none" there: it trains nothing', "set worker.device on that machine")
        make_directory(self._place)
        gpu = GpuLock()
        with _one_job(self._place / "lock"):
            try:
                gpu.take(self._config.worker.gpu_lock)
            except Busy as error:
                raise JobNotTaken(error.message, error.hint, is_passing=True) from error
            try:
                await self._host(offer)
            finally:
                gpu.release()

    async def _host(self, offer: Offer) -> None:
        directory = self._place / job_id(offer.files)
        self._remove_old(directory.name)
        make_directory(directory)
        wanted = await asyncio.to_thread(missing, offer.files, directory)
        needed = sum(each.bytes for each in wanted) + self._config.state.min_free_megabytes * _MIB
        free = shutil.disk_usage(directory).free
        if free < needed:
            text = f"{needed / _MIB:.0f} MiB are needed there and {free / _MIB:.0f} MiB are free"
            raise JobNotTaken(text, f"make space in {directory.parent} on that machine")
        self._line.post(Wanted(names=[each.name for each in wanted]))
        await self._line.receive_files(wanted, directory)
        job = self._stage(directory)
        outcome = await self._run(offer, Path(job.staging))
        await self._deliver(outcome, Path(job.staging))
        shutil.rmtree(directory)

    def _remove_old(self, wanted: str) -> None:
        """Jobs that nobody has asked for in a week; the wanted one is used now."""
        for each in self._place.iterdir():
            if each.is_dir() and each.name != wanted and time.time() - each.stat().st_mtime > KEPT_DAYS * 86400:
                shutil.rmtree(each)
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._place / wanted)

    def _stage(self, directory: Path) -> Job:
        """The job as this machine runs it, in its staging directory."""
        config, sent = self._config, decode_job(read_document(directory / JOB))
        if sent.evaluation_command not in ("", config.evaluation.command):
            raise JobNotTaken(
                "evaluation.command there is not the one of the job, and no other command is run",
                "set evaluation.command to the same on both machines, or leave it out here",
            )
        staging = directory / "run"
        adapters = {name: str(directory / name) if getattr(sent, name) else getattr(sent, name) for name in ADAPTERS}
        job = msgspec.structs.replace(
            sent,
            staging=str(staging),
            base=config.model.base,
            cache_directory=config.model.cache_directory,
            models_directory=str(Path(config.state.directory, "models")),
            device=config.worker.torch_device,
            threads=config.worker.threads,
            **adapters,
        )
        (staging / "work").mkdir(mode=0o750, parents=True, exist_ok=True)
        write_durably(staging / JOB, encode(job))
        (staging / EXAMPLES).unlink(missing_ok=True)
        os.link(directory / EXAMPLES, staging / EXAMPLES)
        came, own = directory / RESUME_POINT, staging / RESUME_POINT
        if came.is_file():
            came.rename(own)
        return job

    async def _run(self, offer: Offer, staging: Path) -> Report | Failure:
        policy = WorkerPolicy(
            command=self._command, silence_seconds=offer.silence_seconds, stop_seconds=offer.stop_seconds
        )
        worker = Worker(policy, self._line.post)
        obeying = asyncio.create_task(self._obey(worker))
        try:
            return await worker.run(staging)
        except WorkerDied as error:
            return Failure(kind="died", message=error.message, hint=error.hint)
        except WorkerFailed as error:
            return Failure(kind="error", message=error.message, hint=error.hint)
        finally:
            obeying.cancel()
            await asyncio.wait([obeying])  # before somebody else reads from the line

    async def _obey(self, worker: Worker) -> None:
        try:
            while not isinstance(await self._line.receive(), Stop):
                pass
        except SleepdError:
            pass  # home is gone, or speaks nonsense: ``_deliver`` meets it again
        worker.stop()

    async def _deliver(self, outcome: Report | Failure, staging: Path) -> None:
        """Send what the worker has left, then how it ended; returns when home has it."""
        names = [name for name in RETURNED if (name == RESUME_POINT) != isinstance(outcome, Report)]
        found = {name: await asyncio.to_thread(entry_of, name, staging / name) for name in names}
        entries = [entry for entry in found.values() if entry is not None]
        self._line.post(Results(files=entries))
        await self._line.send_files([(each, staging / each.name) for each in entries])
        self._line.post(outcome)
        while not isinstance(await self._line.receive(), ResultsReceived):
            pass


def missing(files: Sequence[FileEntry], directory: Path) -> list[FileEntry]:
    """Those that are not here. A resume point of this machine goes before one that comes."""
    has_point = (directory / "run" / RESUME_POINT).is_file()
    return [
        each
        for each in files
        if not (each.name == RESUME_POINT and has_point) and entry_of(each.name, directory / each.name) != each
    ]


@contextlib.contextmanager
def _one_job(lock: Path) -> Iterator[None]:
    descriptor = open_lock(lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JobNotTaken("it works on another job", "wait until that one has ended", is_passing=True) from error
    else:
        yield
    finally:
        os.close(descriptor)


async def _serve(config: Config, output: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(output, "wb")
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    line = HostLine(reader, writer, decode_home)
    try:
        await Host(config, line, worker_command(config.worker)).serve()
        await writer.drain()
    finally:
        line.close()


def main() -> int:
    """Serve one line on standard input and output."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.cycles.remote.remote_host", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--config", type=Path, help="this machine's own configuration")
    given = parser.parse_args()
    # Standard output is the line: whatever else is printed goes to the log.
    output = os.dup(1)
    os.dup2(2, 1)
    configure("warning")
    try:
        asyncio.run(_serve(load(given.config, environment=os.environ).config, output))
    except (SleepdError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
