"""The directory that the demo plays in, and the daemon that runs there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from sleepd.client import Client
from sleepd.config.buffer_config import BufferConfig
from sleepd.config.checks import MAX_SOCKET_PATH_BYTES
from sleepd.config.layers import PREFIX, load
from sleepd.config.render import render
from sleepd.config.schema import (
    Config,
    ControlConfig,
    EvaluationConfig,
    ModelConfig,
    StateConfig,
    TrainingConfig,
)
from sleepd.config.serve_config import ServeConfig
from sleepd.config.triggers_config import TriggersConfig
from sleepd.config.worker_config import WorkerConfig
from sleepd.errors import Busy, ConfigError, DaemonNotRunning, RequestFailed, WorkerFailed
from sleepd.experience_log import ExperienceLog
from sleepd.files import replace_file
from sleepd.protocol.control import GetStatus
from sleepd.protocol.status import Status
from sleepd.store.split_secret import BYTES, FILE_NAME

from .interrupts import interrupted_later
from .sample import Sample

START_SECONDS = 30.0
EVALUATION_SECONDS = 900.0
"""On a slow or busy machine the default cuts the replies short, and a candidate that was not measured is rejected."""
STOP_SECONDS = 60.0
"""More than the daemon gives its worker."""


SECRET = b"demo 451".ljust(BYTES, b".")
"""The same experiences of the sample are held out in every demo: those that teach a fact once more."""


class Stage:
    """A fresh buffer, configuration and state in ``directory``, and a daemon in the foreground of this process.

    Args:
        directory: made if absent; what an earlier demo left there is removed, and nothing else.
        worker_python: the interpreter that has torch.
        is_kept: the daemon outlives this process.

    Raises:
        Busy: the daemon of an earlier demo still runs there.
    """

    def __init__(self, directory: Path, *, worker_python: Path, sample: Sample, is_kept: bool) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.buffer = directory / "experiences.jsonl"
        self.config = directory / "config.toml"
        self.log = directory / "daemon.log"
        self._python = worker_python
        self._sample = sample
        self._is_kept = is_kept
        self._serve = ServeConfig()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._experiences = ExperienceLog(self.buffer, state_directory=self.state)
        self._refuse_a_second_daemon()
        self.socket = _socket_path(directory)
        self._clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or not self._is_kept:
            self.stop()

    @property
    def pid(self) -> int:
        """The daemon's."""
        assert self._daemon is not None
        return self._daemon.pid

    def serve_with(self, serve: ServeConfig) -> None:
        """Have the daemon, which is not started yet, serve that engine."""
        self._serve = serve
        self._write_config()

    def start(self) -> None:
        """Start the daemon and wait until it answers.

        Raises:
            RequestFailed: it ended, or did not answer in time.
        """
        with self.log.open("ab") as log, interrupted_later():
            # A session of its own: Ctrl-C reaches this process, which then stops the daemon in order.
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "sleepd", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # The operator's own settings stay out of the demo: they would outrank its configuration.
                env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._daemon.poll() is None:
            try:
                self.client().close()
                return
            except DaemonNotRunning:
                time.sleep(0.1)
        tail = "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-15:])
        raise RequestFailed(f"the daemon did not come up; it wrote:\n{tail}", hint=f"its whole log: {self.log}")

    def stop(self) -> None:
        """Ask the daemon to end, and see to it that it does."""
        if self._daemon is None or self._daemon.poll() is not None:
            return
        self._daemon.terminate()
        try:
            self._daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        if self.socket.parent != self.directory:
            shutil.rmtree(self.socket.parent, ignore_errors=True)

    def client(self, timeout: float | None = 60.0) -> Client:
        """A connection to the daemon."""
        return Client(self.socket, timeout)

    def append(self, experience: dict[str, Any]) -> None:
        """What an agent does: one more experience in its buffer."""
        self._experiences.add(
            prompt=experience["prompt"],
            response=experience["response"],
            salience=experience["salience"],
            id=experience["id"],
            metadata={key: experience[key] for key in ("session", "phase")},
        )

    def ask(self, adapter: Path | None) -> list[str]:
        """The model's replies to all questions: of the base, or with ``adapter``.

        Raises:
            WorkerFailed: it did not reply to all of them.
        """
        questions = self.directory / "questions.json"
        questions.write_text(json.dumps([question.text for question in self._sample.questions]))
        command = [str(self._python), "-m", "sleepd.worker.programs.ask", "--base", "embedded"]
        command += ["--models", str(self.state / "models"), "--questions", str(questions)]
        command += ["--system-prompt", self._sample.system_prompt] if self._sample.system_prompt else []
        command += ["--adapter", str(adapter)] if adapter else []
        (self.state / "models").mkdir(parents=True, exist_ok=True)
        log = self.directory / "questions.log"
        with log.open("ab") as errors:
            status, out = _run(command, errors)
        replies = json.loads(out) if status == 0 else []
        if len(replies) != len(self._sample.questions):
            raise WorkerFailed(
                f"the model replied to {len(replies)} of {len(self._sample.questions)} questions "
                f"(exit status {status})",
                hint=f"see {log}",
            )
        return [str(reply) for reply in replies]

    def sleepctl(self, *arguments: str) -> list[str]:
        """The command line for this daemon."""
        program = Path(sys.executable).with_name("sleepctl")
        start = [str(program)] if program.exists() else [sys.executable, "-m", "sleepd.sleepctl"]
        return [*start, *arguments, "--config", str(self.config)]

    def _refuse_a_second_daemon(self) -> None:
        if not self.config.exists():
            return
        try:
            with Client(load(self.config, environment={}).config.control.socket) as client:
                pid = client.call(GetStatus(), Status).pid
        except (DaemonNotRunning, ConfigError):
            return
        raise Busy(f"the daemon of an earlier demo still runs in {self.directory}", hint=f"stop it first: kill {pid}")

    def _clear(self) -> None:
        self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        if self.state.exists():
            shutil.rmtree(self.state)
        for file in (self.buffer, self.log, self.directory / "questions.log"):
            file.unlink(missing_ok=True)
        self.state.mkdir(mode=0o750)
        replace_file(self.state / FILE_NAME, SECRET, mode=0o600)
        self.buffer.touch()
        self._write_config()

    def _write_config(self) -> None:
        config = demo_config(self, self._python, self._sample, self._serve)
        self.config.write_text(render(config, title="what the demo's daemon was started with", all_keys=False))


def demo_config(stage: Stage, worker_python: Path, sample: Sample, serve: ServeConfig) -> Config:
    """The defaults, but: it sleeps once the last of the sample is there, and again whenever it was fed.

    The strategy is the one for a few short facts, which is what the sample has.
    """
    return Config(
        buffer=BufferConfig(path=str(stage.buffer)),
        triggers=TriggersConfig(min_experiences=len(sample.experiences), min_hours_between_sleep=0.0),
        evaluation=EvaluationConfig(seconds=EVALUATION_SECONDS),
        model=ModelConfig(system_prompt=sample.system_prompt),
        training=TrainingConfig(strategy="rehearse"),
        worker=WorkerConfig(python=str(worker_python), gpu_lock=""),
        state=StateConfig(directory=str(stage.state)),
        control=ControlConfig(socket=str(stage.socket), socket_mode="0600", operator_group=""),
        serve=serve,
    )


def _run(command: list[str], errors: BinaryIO) -> tuple[int, bytes]:
    """Its exit status and what it printed; an interrupt ends it too."""
    process = None
    try:
        with interrupted_later():
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        out, _ = process.communicate()
        return process.returncode, out
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def _socket_path(directory: Path) -> Path:
    """In the directory; where that path is too long for a socket, in a new temporary directory."""
    path = directory / "sleepd.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    return Path(tempfile.mkdtemp(prefix="sleepd-demo-")) / path.name
