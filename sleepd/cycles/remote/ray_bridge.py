"""Between home and a Ray cluster: to home this process is the host, to the cluster one that submits a job.

It alone imports ray, and speaks to nothing but the Ray Jobs API at ``worker.ray_address``. Standard input and output
are the line to home, as ssh's are.

Rule 1: a job is known by what home offers (``remote_job.job_id``). One that is there is read from its beginning, also
after this process, the daemon or the connection has ended; home has then whatever the job has said.
Rule 2: a job that is over without having said how it ended is deleted, and submitted anew when home asks again.
Rule 3: where home is gone the job goes on. Where home asks it to stop, the cluster stops it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from sleepd.config.schema import Config
from sleepd.config.worker_config import WorkerConfig
from sleepd.errors import DECODE_ERRORS, ProtocolError, RayFailed, SleepdError
from sleepd.files import read_document, write_durably
from sleepd.protocol.job import MAX_MESSAGE_BYTES, Notice, encode
from sleepd.protocol.remote_job import (
    SENT,
    Examine,
    HomeMessage,
    JobRefused,
    Offer,
    Stop,
    Wanted,
    decode_home,
    decode_host,
    job_id,
    refuse_list,
)

from .line import HostLine
from .ray_job import OFFER_FILE
from .ray_log import LogReader

_POLL_SECONDS: Final = 0.5
_DELETIONS, _MONITOR_SECONDS = 3, 1.5
"""Ray's monitor looks at each job every second, and records one that was deleted meanwhile as failed."""
_HINT: Final = "is worker.ray_address right, and does the cluster run? ray job list --address shows it"
_SETUP_HINT: Final = (
    "the nodes need the same sage-sleepd for worker.ray_python, by worker.ray_runtime_env or in their image; "
    "ray job logs shows more"
)

_Found = TypeVar("_Found")


class RayJobState(NamedTuple):
    """Of a submitted job."""

    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str
    has_started: bool

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.status not in ("PENDING", "RUNNING")


class RayCluster:
    """The Ray Jobs API, with its errors as ``RayFailed``.

    Args:
        worker: which cluster, and what a job gets there.
    """

    def __init__(self, worker: WorkerConfig) -> None:
        self._worker = worker
        self._client: Any = None
        self._environment: dict[str, Any] = {}

    async def connect(self) -> None:
        """Raises ``RayFailed``: ray is not installed, the cluster does not answer, or has a version that differs; or
        the runtime environment cannot be read.
        """
        self._environment = runtime_environment(self._worker)

        def client() -> Any:
            try:
                from ray.job_submission import JobSubmissionClient
            except ImportError as error:
                hint = "pip install 'sage-sleepd[ray]' in the daemon's environment"
                raise RayFailed(f"ray cannot be imported: {error}", hint=hint) from error
            return JobSubmissionClient(self._worker.ray_address)

        self._client = await self._ask(client)

    async def state(self, job: str) -> RayJobState | None:
        """Of that job; None: the cluster does not know it. Raises ``RayFailed``."""

        def found() -> RayJobState | None:
            try:
                info = self._client.get_job_info(job)
            except RuntimeError as error:
                if "404" in str(error) or "does not exist" in str(error):
                    return None
                raise
            has_started = bool(info.driver_agent_http_address)
            return RayJobState(str(info.status.value), (info.message or "").strip(), has_started)

        return await self._ask(found)

    async def state_once(self, job: str, holds: Callable[[RayJobState], bool]) -> RayJobState | None:
        """As ``state``, once that holds."""
        while True:
            state = await self.state(job)
            if state is None or holds(state):
                return state
            await asyncio.sleep(_POLL_SECONDS)

    async def submit(self, job: str, directory: Path) -> None:
        """Have the job in that directory done. Raises ``RayFailed``."""
        worker = self._worker
        environment = dict(self._environment)
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(int(worker.stop_seconds) + 15), "PYTHONUNBUFFERED": "1"}
        environment["env_vars"] = variables | environment.get("env_vars", {})
        resources = worker.resources

        def submitted() -> None:
            self._client.submit_job(
                entrypoint=f"{worker.ray_python} -P -m sleepd.cycles.remote.ray_job",
                submission_id=job,
                runtime_env=environment | {"working_dir": str(directory)},
                entrypoint_num_cpus=resources.pop("CPU", None),
                entrypoint_num_gpus=resources.pop("GPU", None),
                entrypoint_resources=resources or None,
            )

        await self._ask(submitted)

    async def stop(self, job: str) -> None:
        """Ask it to stop. Raises ``RayFailed``."""
        await self._ask(lambda: self._client.stop_job(job))

    async def delete(self, job: str) -> None:
        """Have the cluster forget it. Raises ``RayFailed``."""
        await self._ask(lambda: self._client.delete_job(job))

    async def log(self, job: str) -> AsyncIterator[str]:
        """What it has written and writes, from the beginning to its end. Raises ``RayFailed``."""
        try:
            async for text in self._client.tail_job_logs(job):
                yield text
        except Exception as error:
            raise self._failed(error) from error

    async def _ask(self, question: Callable[[], _Found]) -> _Found:
        try:
            return await asyncio.to_thread(question)
        except RayFailed:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> RayFailed:
        """Ray, requests and aiohttp have no error in common."""
        words = " ".join(str(error).split())[:300] or type(error).__name__
        return RayFailed(f"the Ray cluster at {self._worker.ray_address}: {words}", hint=_HINT)


def runtime_environment(worker: WorkerConfig) -> dict[str, Any]:
    """What ``worker.ray_runtime_env`` holds.

    Raises:
        RayFailed: it cannot be read, or is no JSON object.
    """
    if not worker.ray_runtime_env:
        return {}
    try:
        return msgspec.json.decode(read_document(Path(worker.ray_runtime_env)), type=dict[str, Any])
    except (OSError, *DECODE_ERRORS) as error:
        hint = "worker.ray_runtime_env is a file with one JSON object, as Ray's documentation has it"
        raise RayFailed(f"{worker.ray_runtime_env}: {error}", hint=hint) from error


class Bridge:
    """One job.

    Args:
        cluster: where it is done.
        place: the cluster in messages.
        line: to home.
        write: sends bytes to home that are no message of this process.
    """

    def __init__(
        self, cluster: RayCluster, place: str, line: HostLine[HomeMessage], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self._cluster = cluster
        self._place = place
        self._line = line
        self._write = write
        self._log = LogReader()
        self._is_refused = False
        """The node did not take the job: home has no results to wait for."""

    async def serve(self) -> None:
        """From what home asks for to its end.

        Raises:
            SleepdError: the cluster is gone or home is, or one of them does not speak as it should.
        """
        async with contextlib.AsyncExitStack() as beating:
            await beating.enter_async_context(self._line.beating())
            asked = await self._line.receive()
            if not isinstance(asked, Offer | Examine):
                return
            await self._cluster.connect()
            job = await self._submitted(asked)
            obeying = asyncio.create_task(self._obey(job))
            passing = asyncio.create_task(self._pass_on(job, beating))
            try:
                await asyncio.wait([obeying, passing], return_when=asyncio.FIRST_COMPLETED)
                if passing.done():
                    passing.result()
                    await asyncio.wait([obeying])
                if isinstance(asked, Offer) and not self._is_refused:
                    obeying.result()
                await self._forget(job)
            finally:
                obeying.cancel()
                passing.cancel()

    async def _submitted(self, asked: Offer | Examine) -> str:
        files = asked.files if isinstance(asked, Offer) else []
        refuse_list(files, SENT)
        job = f"sage-sleepd-{job_id(files) if files else secrets.token_hex(8)}"
        known = await self._cluster.state(job)
        if known is not None and known.status in ("FAILED", "STOPPED"):
            await self._cluster.delete(job)
            known = None
        with tempfile.TemporaryDirectory(prefix="sage-sleepd-ray-") as place:
            if isinstance(asked, Offer):
                wanted = files if known is None else []
                self._line.post(Wanted(names=[each.name for each in wanted]))
                await self._line.receive_files(wanted, Path(place))
            if known is None:
                write_durably(Path(place, OFFER_FILE), encode(asked))
                await self._cluster.submit(job, Path(place))
        if isinstance(asked, Offer):
            event, what = ("submitted", "was submitted to") if known is None else ("found", "was found on")
            self._line.post(Notice(event=f"ray_job_{event}", text=f"job {job} {what} {self._place}"))
        return job

    async def _forget(self, job: str) -> None:
        """Home has all of it: delete it as soon as it is over."""
        for _ in range(_DELETIONS):
            if await self._cluster.state_once(job, lambda state: state.is_over) is None:
                return
            await self._cluster.delete(job)
            await asyncio.sleep(_MONITOR_SECONDS)

    async def _obey(self, job: str) -> None:
        """Returns when home has the results.

        Raises:
            LineBroken: home is gone; the job goes on.
        """
        while True:
            message = await self._line.receive()
            if isinstance(message, Stop):
                await self._cluster.stop(job)
            elif not isinstance(message, Examine | Offer):
                return

    async def _pass_on(self, job: str, beating: contextlib.AsyncExitStack) -> None:
        """Send home what the job says. From its first byte on its own signs of life take the place of this one's."""
        state = await self._cluster.state_once(job, lambda state: state.has_started or state.is_over)
        has_spoken = False
        if state is not None and state.has_started:
            async for text in self._cluster.log(job):
                content = self._log.feed(text)
                if content and not has_spoken:
                    has_spoken = True
                    with contextlib.suppress(ProtocolError):  # a piece of a message: no short refusal
                        self._is_refused = isinstance(decode_host(content.partition(b"\n")[0]), JobRefused)
                    await beating.aclose()
                await self._write(content)
        if self._log.is_ended:
            return
        state = await self._cluster.state(job)
        if state is None:
            raise RayFailed(f"{self._place} does not know job {job} any more: it was started anew", hint=_HINT)
        said = self._log.last_line
        text = f"job {job} ended as {state.status} and has no result: {state.message}" + (f"; {said}" if said else "")
        if has_spoken:
            raise RayFailed(text, hint=_HINT)
        self._line.post(JobRefused(message=text, hint=_SETUP_HINT))


async def _serve(config: Config) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # Standard output is the line: whatever else is printed goes to the log.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), output
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    line = HostLine(reader, writer, decode_home)

    async def write(content: bytes) -> None:
        writer.write(content)
        await writer.drain()

    try:
        await Bridge(RayCluster(config.worker), config.worker.place, line, write).serve()
        await writer.drain()
    finally:
        line.close()


def main() -> int:
    """Serve one line on standard input and output."""
    parser = argparse.ArgumentParser(
        prog="python -m sleepd.cycles.remote.ray_bridge", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--settings", required=True, help="the daemon's configuration as JSON")
    given = parser.parse_args()
    try:
        asyncio.run(_serve(msgspec.json.decode(given.settings, type=Config)))
    except (SleepdError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
