"""A real daemon process, started on a folder of its own, and ways to await what it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import psutil

from sleepd.client import Client
from sleepd.config.schema import Config
from sleepd.errors import DaemonNotRunning
from sleepd.protocol.control import GetStatus
from sleepd.protocol.status import Status
from tests.agents import write_config

LIMIT_SECONDS = 300.0
"""Much longer than anything takes: a machine with other work must fail no test."""
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1
"""Between two questions whether something is so; on the way each pause is longer than the one before."""


def _as_user(user: int | None, prelude: str) -> list[str]:
    """The daemon; as another user once it is loaded, who may not be able to read the interpreter itself."""
    if user is None:
        start = "import sys; from sleepd.__main__ import main; sys.exit(main(sys.argv[1:]))"
        return ["-c", f"{prelude}\n{start}"] if prelude else ["-m", "sleepd"]
    # What is loaded only when it is first used must be loaded before.
    load = (
        "import concurrent.futures.thread, encodings.utf_8_sig, sleepd.daemon.service; from sleepd.__main__ import main"
    )
    become = f"import os, sys; os.setgroups([]); os.setgid({user}); os.setuid({user})"
    return ["-c", f"{load}; {become}; sys.exit(main(sys.argv[1:]))"]


class DaemonProcess:
    """``sleepd --config …`` until the end of the block; ``prelude`` is a program that runs in it before it starts."""

    def __init__(
        self,
        directory: Path,
        config: Config,
        *,
        python: str | Path = sys.executable,
        user: int | None = None,
        prelude: str = "",
        **environment: str,
    ) -> None:
        self.directory = directory
        self.config = config
        self.config_path = directory / "config.toml"
        write_config(self.config_path, config)
        self.log_path = directory / "daemon.log"
        self._log = self.log_path.open("ab")
        self.process = subprocess.Popen(
            [python, *_as_user(user, prelude), "--config", str(self.config_path)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **environment},
        )

    def __enter__(self) -> Self:
        self.await_true(self.answers, "the daemon to answer")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self._log.close()

    def client(self, seconds: float | None = LIMIT_SECONDS) -> Client:
        return Client(self.config.control.socket, timeout=seconds)

    def call(self, request: Any, kind: Any) -> Any:
        with self.client() as client:
            return client.call(request, kind)

    def status(self) -> Status:
        return self.call(GetStatus(), Status)

    def sleepctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``sleepctl`` as a process of its own, on this daemon's socket."""
        command = [sys.executable, "-m", "sleepd.sleepctl", "--socket", self.config.control.socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)

    def names(self, problem: str) -> bool:
        """Whether the status names that problem of the buffer, and the decision waits for its end.

        Asked at once: the problem shows as soon as it is met, the decision at the end of the look.
        """
        status = self.status()
        is_waiting = any(text.startswith("Buffer unreadable") for text in status.missing)
        return problem in status.buffer.problem and is_waiting

    def counts(self, experiences: int) -> bool:
        """Whether the buffer is read with so many and nothing is against it, by the status and by the decision."""
        status = self.status()
        is_waiting = any(text.startswith("Buffer unreadable") for text in status.missing)
        is_well = not status.buffer.problem and status.last_error is None and not is_waiting
        return status.buffer.total == experiences and is_well

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            self.client(5.0).close()
        except DaemonNotRunning:
            return False
        return True

    def log(self) -> str:
        return self.log_path.read_text()

    def events(self) -> list[dict[str, Any]]:
        """What it logged, as JSON; a line that a kill cut in two is none."""
        found = []
        for line in self.log().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line))
        return [event for event in found if isinstance(event, dict)]

    def await_event(self, name: str, **fields: Any) -> dict[str, Any]:
        """Wait until an event of that name and those fields is logged."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            wanted = {"event": name, **fields}
            found[:] = [event for event in self.events() if wanted.items() <= event.items()]
            return bool(found)

        self.await_true(is_there, f"the event {name} {fields}")
        return found[0]

    def await_true(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until ``holds()``; fails with the daemon's log when it takes too long."""
        deadline, pause = time.monotonic() + LIMIT_SECONDS, FIRST_PAUSE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{self.log()}"
            time.sleep(pause)
            pause = min(1.2 * pause, LONGEST_PAUSE_SECONDS)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
