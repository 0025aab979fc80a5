"""The real llama.cpp server as an engine of the deployer, and champions with real adapters of the tiny model."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import msgspec

from sleepd.protocol.checkpoint.checkpoint_files import FINGERPRINT_FILE
from sleepd.serving.http import HttpServer
from tests.serving.fake_engines import record_files
from tests.serving.serving_stage import make_champions
from tests.tiny_engine import base_gguf, llama_server
from tests.worker.conftest import RecordingChannel, examples, make_job

SYSTEMCTL = """#!/bin/sh
echo "$@" >{asked}
read -r status message <{answered}
echo "$message" >&2
exit "$status"
"""


class LlamaUnit:
    """A unit of systemd's whose service is the real server in this process."""

    model = "agent"

    def __init__(self, directory: Path, base: Path, environment: Path) -> None:
        self.base, self.environment = base, environment
        self.settings: dict[str, Any] = {}
        self.adapters: list[str] = []
        """That run beside what the environment file names."""
        self.restarts = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._server: Any = None
        self._pipes = [directory / "asked", directory / "answered"]
        for pipe in self._pipes:
            os.mkfifo(pipe)
        program = directory / "bin" / "systemctl"
        program.parent.mkdir()
        program.write_text(SYSTEMCTL.format(asked=self._pipes[0], answered=self._pipes[1]))
        program.chmod(0o755)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Stop the server, and start it with what the environment file says."""
        self.stop()
        text = self.environment.read_text() if self.environment.exists() else ""
        named = [word for word in text.partition("=")[2].split() if word != "--lora"]
        adapters = [Path(name) for name in [*named, *self.adapters]]
        self._server = llama_server(self.base, adapters, port=self.port, model_alias={"agent"}, **self.settings)
        self._server.__enter__()
        HttpServer(self.url).request("GET", "/slots")  # its end hangs where its loop has not begun

    def stop(self) -> None:
        if self._server is not None:
            self._server.__exit__(None, None, None)
            self._server = None

    def _serve(self) -> None:
        while True:
            if not self._pipes[0].read_text().strip():
                return
            self.restarts += 1
            try:
                self.start()
                answer = "0"
            except RuntimeError as error:
                answer = f"1 {error}"
            self._pipes[1].write_text(f"{answer}\n")

    def end(self) -> None:
        self._pipes[0].write_text("\n")
        self._thread.join()
        self.stop()


def make_real_champions(directory: Path, model: Path, models: Path, work: Path) -> None:
    """As ``make_recorded_champions``, and the base as ``base.gguf``."""
    make_recorded_champions(directory, model, models, work)
    base_gguf(model, directory / "base.gguf")


def make_recorded_champions(directory: Path, model: Path, models: Path, work: Path, *, by: float = 0.3) -> None:
    """Two champions with real adapters of the model and real fingerprints.

    Args:
        directory: what ``ServingStage`` works on.
        model: the tiny model, or ``embedded``.
        models: where converted copies of models stand.
        work: a new directory.
        by: how far the first adapter is from the base; the second goes on from it by two thirds of that.
    """
    import torch

    from sleepd.worker.evaluation.fingerprint import write_fingerprint
    from sleepd.worker.model.adapter import save_adapter
    from sleepd.worker.model.loading import load

    make_champions(directory, 12, 24)
    job = make_job(model, models, work / "staging", threads=1)
    loaded = load(job, RecordingChannel())
    moving = [one for name, one in loaded.model.named_parameters() if ".lora_B." in name]
    for cycle, step in ((1, by), (2, by * 2 / 3)):
        dice = torch.Generator().manual_seed(cycle)
        for one in moving:
            one.data = one.data + step * torch.randn(one.shape, generator=dice)
        place = directory / "state" / f"cycle_{cycle:03d}"
        save_adapter(loaded.model, place, model)
        parent = {"parent": str(directory / "state/cycle_001"), "parent_cycle": 1} if cycle == 2 else {}
        own = msgspec.structs.replace(job, cycle=cycle, staging=str(place), **parent)
        write_fingerprint(own, loaded, examples(), lambda _tokens: None)
        record_files(place, FINGERPRINT_FILE)
