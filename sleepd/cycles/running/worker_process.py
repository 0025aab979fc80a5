"""The worker process: started, listened to, asked to stop, killed, reaped.

Rule 1: a ``Worker`` runs one process once. A dead one is not replaced: its cycle ends, and the daemon backs off.
Rule 2: messages travel on a socket of their own. What the worker prints is log text, whatever its form.
Rule 3: when ``run`` returns or raises, the process and everything it started are gone.
Rule 4: what the worker sends is read as from a stranger: bounded, checked, never executed.

Theory of operation. A socket pair is made; the worker inherits one end by its number (``--fd N``). It runs in a
session of its own, so that a signal from a terminal reaches the daemon alone, and its group can be killed as a
whole. ``run`` waits for the first of these:

    a message           | progress and notices go to the listener; a report or a failure is the outcome
    no message for      | it hangs: ``WorkerDied``, with the phase it was in. Every message starts the wait anew;
    ``silence_seconds`` | while it loads, the worker sends one only where bytes are read or written
    another line        | it is no message, or of another version: ``WorkerFailed``
    the socket closes   | the worker died: ``WorkerDied``, with the signal or the exit status and its last line
    ``stop``            | the outcome is ``stopped``

Order of the end, the same in every case, and why. SIGTERM asks: the worker may write a resume point. ``stop_seconds``
later, or at once after ``kill``, SIGKILL goes to the whole group, also where the worker has ended by itself: a child of
it may still hold the GPU. Then the process is reaped, and the rest of its output is read to the end.

The worker dies with the daemon: it asks the kernel for a signal at its parent's death, and it ends when its socket
closes. Nothing is left on disk by this module.

Covered: a crash, a hang, a refusal to stop, floods on its standard output, lines on the wire that are no messages, an
orphan after our own death. Not covered: a worker that lies in a well-formed report, and GPU memory held by another
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from sleepd.config.worker_config import WorkerConfig
from sleepd.errors import ProtocolError, WorkerDied, WorkerFailed
from sleepd.host import NO_HUB, SYSTEMD_VARIABLES, worker_python
from sleepd.log import get_logger
from sleepd.protocol.job import MAX_MESSAGE_BYTES, Failure, Hello, Notice, Progress, Report, decode_message
from sleepd.version import VERSION

KEPT_LINES = 20
"""Of the worker's output, for the story of its death."""
MAX_LOG_LINE_BYTES = 16 * 1024


class WorkerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How the worker is run."""

    command: tuple[str, ...]
    """What to start; ``--fd N STAGING`` is added."""
    silence_seconds: float
    stop_seconds: float


def worker_command(worker: WorkerConfig) -> tuple[str, ...]:
    """The real worker, and how many processes it trains in: what another number changes is in no job."""
    # -P: the staging directory, where the worker runs, is no place to import from.
    command = (worker_python(worker.python), "-P", "-m", "sleepd.worker")
    if worker.processes == 1:
        return command
    return (*command, "--processes", str(worker.processes), "--silence", f"{worker.silence_seconds:g}")


class Worker:
    """One worker process, from its start to its end."""

    def __init__(self, policy: WorkerPolicy, listener: Callable[[Progress | Notice], None]) -> None:
        self._policy = policy
        self._listener = listener
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._last_progress: Progress | None = None
        self._should_stop = asyncio.Event()
        self._should_die = asyncio.Event()

    def stop(self) -> None:
        """Ask the worker to stop; ``run`` then returns within ``stop_seconds`` and a little."""
        self._should_stop.set()

    def kill(self) -> None:
        """Stop it without waiting for its consent."""
        self._should_die.set()
        self._should_stop.set()

    async def run(self, staging: Path) -> Report | Failure:
        """Start the worker on the job in ``staging`` and wait for its end.

        Raises:
            WorkerFailed: it could not be started, or does not speak as it should.
            WorkerDied: it ended, or fell silent, without saying why.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = await self._start(staging, theirs, ours)
        log_lines = asyncio.create_task(self._log_output(process))
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_MESSAGE_BYTES)
            try:
                return await self._listen(process, reader)
            finally:
                writer.close()
        finally:
            await self._end(process)
            with contextlib.suppress(asyncio.CancelledError):
                await log_lines

    async def _start(self, staging: Path, theirs: socket.socket, ours: socket.socket) -> asyncio.subprocess.Process:
        descriptor = theirs.fileno()
        command = (*self._policy.command, "--fd", str(descriptor), str(staging))
        environment = {name: value for name, value in os.environ.items() if name not in SYSTEMD_VARIABLES}
        environment |= NO_HUB | {"PYTHONUNBUFFERED": "1"}
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(descriptor,),
                env=environment,
                cwd=staging,
                # Its own group: signals from a terminal reach us alone, and what it starts dies with it.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise WorkerFailed(
                f"the worker cannot be started: {command[0]}: {error.strerror}",
                hint="set [worker] python to an interpreter that has sage-sleepd[worker]",
            ) from error

    async def _listen(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader) -> Report | Failure:
        stop = asyncio.create_task(self._should_stop.wait())
        try:
            while True:
                line = asyncio.create_task(reader.readline())
                done, _ = await asyncio.wait(
                    {line, stop}, timeout=self._policy.silence_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if line not in done:
                    line.cancel()
                    if stop in done:
                        return Failure(kind="stopped", message="asked to stop")
                    raise self._silence()
                message = self._understand(line)
                if message is None:
                    raise WorkerDied(await self._exit_reason(process), hint=self._advice(process.returncode))
                if isinstance(message, Report | Failure):
                    return message
        finally:
            stop.cancel()

    def _silence(self) -> WorkerDied:
        """It hangs: where, and whose fault that is, as far as its last words tell."""
        last = self._last_progress
        doing = last.doing if last and last.doing else f"was in the phase {last.phase}" if last else "started"
        is_loading = last is not None and last.phase == "loading" and last.doing
        seconds = f"{self._policy.silence_seconds:.0f} s"
        return WorkerDied(
            f"the worker gave no sign of life for {seconds} while it {doing}, and was killed",
            hint=_BASE_HANGS if is_loading else "journalctl -u sage-sleepd shows its last lines; " + _RAISE_SILENCE,
        )

    def _understand(self, line: asyncio.Task[bytes]) -> Report | Failure | Progress | Notice | Hello | None:
        """The message in a line; None: the worker closed its end."""
        try:
            text = line.result()
        except (ValueError, ConnectionError) as error:  # ValueError: longer than the limit
            raise WorkerFailed(f"the worker's message cannot be read: {error}", hint=_SAME_VERSION) from error
        if not text:
            return None
        try:
            message = decode_message(text)
        except ProtocolError as error:
            raise WorkerFailed(f"the worker sent what is no message: {error.message}", hint=error.hint) from error
        if isinstance(message, Hello) and message.version != VERSION:
            raise WorkerFailed(
                f"the worker's interpreter has sage-sleepd {message.version}, the daemon {VERSION}", hint=_SAME_VERSION
            )
        if isinstance(message, Progress):
            self._last_progress = message
        if isinstance(message, Progress | Notice):
            self._listener(message)
        return message

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask, wait, kill, reap. The group goes too, so that nothing the worker started stays."""
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await _first_of(process.wait(), self._should_die.wait(), seconds=self._policy.stop_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _log_output(self, process: asyncio.subprocess.Process) -> None:
        """The worker's own output, as log lines of ours: cut where a line is too long, never held as a whole."""
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(MAX_LOG_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in (*lines, *([rest] if len(rest) >= MAX_LOG_LINE_BYTES else [])):
                self._log_line(line)
            if len(rest) >= MAX_LOG_LINE_BYTES:
                rest = b""
        self._log_line(rest)

    def _log_line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self._last_lines.append(text)
            get_logger().debug("worker_output", text=text)

    async def _exit_reason(self, process: asyncio.subprocess.Process) -> str:
        """How the worker ended, in words."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._policy.stop_seconds):
                await process.wait()
        code = process.returncode
        if code is None:
            return "the worker closed its socket and went on running"
        if code == -signal.SIGKILL:
            return "the worker was killed by SIGKILL; the kernel may have run out of memory"
        if code < 0:
            return f"the worker was killed by {signal.Signals(-code).name}"
        last = f": {self._last_lines[-1]}" if self._last_lines else ""
        return f"the worker ended with exit status {code} and no report{last}"

    def _advice(self, code: int | None) -> str:
        if code == -signal.SIGKILL:
            return "journalctl -k | grep -i 'out of memory' shows it; a smaller model or strategy needs less"
        return '[log] level = "debug" keeps the worker\'s own output in the journal'


async def _first_of(*waits: Coroutine[Any, Any, Any], seconds: float) -> None:
    """Wait until one of them is done, or the time is up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


_RAISE_SILENCE = "raise [worker] silence_seconds if it is only slow"
_BASE_HANGS = (
    "what hangs there is the base's own: its config.json, its chat template or the disk that it lies on; "
    f"try another base, or {_RAISE_SILENCE}"
)
_SAME_VERSION = "install the same version of sage-sleepd for the daemon and for [worker] python"
