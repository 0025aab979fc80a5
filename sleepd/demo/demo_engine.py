"""The engine of ``try --serve``: llama.cpp's server on the demo's base, which the daemon gives the adapter.

The server is a process of its own. ``serve.command`` sends it SIGHUP and waits until it answers again, as the restart
of a unit would.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import msgspec

from sleepd.config.serve_config import ENVIRONMENT_FILE, ServeConfig
from sleepd.errors import EngineFailed, WorkerFailed
from sleepd.protocol.capability import Capability
from sleepd.serving.http import HttpLimits, HttpServer
from sleepd.worker_program import NoAnswer, ask_worker

from .interrupts import interrupted_later
from .sample import Sample

_PROGRAM: Final = Path(__file__).with_name("llama_server.py")
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 300.0
"""On a slow or busy machine."""
_REPLY_TOKENS: Final = 64
_MODEL: Final = "agent"
_RESTART: Final = "rm -f {ready}; kill -HUP {pid}; until [ -e {ready} ]; do sleep 0.1; done"


class _DemoMessage(msgspec.Struct, frozen=True):
    content: str


class _DemoChoice(msgspec.Struct, frozen=True):
    message: _DemoMessage


class _DemoAnswer(msgspec.Struct, frozen=True):
    choices: list[_DemoChoice]


class DemoEngine:
    """A running server, until the block ends.

    Args:
        directory: of the demo.
        python: the interpreter that has xllamacpp.
        worker_python: the interpreter that knows where the base is.
        is_kept: the server outlives this process.

    Raises:
        WorkerFailed: there is no base.
        EngineFailed: the server does not start.
    """

    def __init__(self, directory: Path, *, python: Path, worker_python: Path, is_kept: bool) -> None:
        self._is_kept = is_kept
        self._ready, self.log = directory / "engine-ready", directory / "engine.log"
        self._adapters = directory / "serving" / ENVIRONMENT_FILE
        base = _base(worker_python)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        for old in (self._ready, self.log, self._adapters):
            old.unlink(missing_ok=True)
        command = [str(python), str(_PROGRAM), "--model", base, "--alias", _MODEL, "--port", str(port)]
        command += ["--adapters", str(self._adapters), "--ready", str(self._ready)]
        with self.log.open("ab") as log, interrupted_later():
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> DemoEngine:
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None or not self._is_kept:
            self.stop()

    @property
    def pid(self) -> int:
        """The server's; it stays the same over a restart."""
        return self._process.pid

    def config(self) -> ServeConfig:
        """The section ``[serve]`` for it."""
        script = _RESTART.format(ready=shlex.quote(str(self._ready)), pid=self.pid)
        return ServeConfig(
            kind="llama-restart",
            url=self.url,
            model=_MODEL,
            directory=str(self._adapters.parent),
            command=shlex.join(["sh", "-c", script]),
            answer_seconds=_ANSWER_SECONDS,
        )

    def ask(self, sample: Sample) -> list[str]:
        """The server's replies to all questions, as its agent gets them.

        Raises:
            EngineUnreachable: it does not answer.
            EngineFailed: it answers with an error.
        """
        server, system = HttpServer(self.url, limits=HttpLimits(seconds=_ANSWER_SECONDS)), []
        if sample.system_prompt:
            system = [{"role": "system", "content": sample.system_prompt}]
        replies = []
        for question in sample.questions:
            messages = [*system, {"role": "user", "content": question.text}]
            body = {"model": _MODEL, "messages": messages, "temperature": 0, "max_tokens": _REPLY_TOKENS}
            body["cache_prompt"] = False  # what was asked before changes the last digits, and then a word
            found = server.json("POST", "/v1/chat/completions", _DemoAnswer, body)
            replies.append(found.choices[0].message.content.strip())
        return replies

    def stop(self) -> None:
        """Ask the server to end, and see to it that it does."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._process.kill()
        self._process.wait()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EngineFailed("llama.cpp's server did not come up", hint=f"its log: {self.log}")
            time.sleep(0.1)


def _base(worker_python: Path) -> str:
    try:
        found = ask_worker(str(worker_python), ["sleepd.worker.probe", "--base", "embedded"], Capability)
    except NoAnswer as error:
        raise WorkerFailed(f"{worker_python} does not answer: {error}", hint="./install.sh try") from error
    if found.base_problem:
        raise WorkerFailed(found.base_problem, hint=found.base_hint)
    return found.base_path
