"""The deployer on the real llama.cpp server: every restart is one of the server, and every proof its own answers."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
xllamacpp = pytest.importorskip("xllamacpp")

from sleepd.config.serve_config import ENVIRONMENT_FILE  # noqa: E402
from sleepd.protocol.checkpoint_files import FINGERPRINT_FILE  # noqa: E402
from sleepd.protocol.deployment.serve_messages import Generation, ServeStep  # noqa: E402
from sleepd.serving.http import HttpServer  # noqa: E402
from sleepd.worker.programs import adapter_to_gguf  # noqa: E402
from tests.agents import changed  # noqa: E402
from tests.serving.fake_engines import record_files  # noqa: E402
from tests.serving.serving_stage import ServingStage, make_champions  # noqa: E402
from tests.tiny_engine import base_gguf, llama_server  # noqa: E402

from .conftest import RecordingChannel, examples, make_job, said_by  # noqa: E402

pytestmark = pytest.mark.model

SYSTEMCTL = """#!/bin/sh
echo "$@" >{asked}
read -r status message <{answered}
echo "$message" >&2
exit "$status"
"""


class Death(BaseException):
    """The daemon and its serve process end here."""


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


@pytest.fixture(scope="module")
def champions(plain_model: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two champions with real adapters of the tiny model and real fingerprints, and the base as ``base.gguf``."""
    import torch

    from sleepd.worker.evaluation.fingerprint import write_fingerprint
    from sleepd.worker.model.adapter import save_adapter
    from sleepd.worker.model.loading import load

    directory = tmp_path_factory.mktemp("champions")
    make_champions(directory, 12, 24)
    job = make_job(plain_model, models, tmp_path_factory.mktemp("job") / "staging", threads=1)
    loaded = load(job, RecordingChannel())
    moving = [one for name, one in loaded.model.named_parameters() if ".lora_B." in name]
    for cycle, by in ((1, 0.3), (2, 0.2)):
        dice = torch.Generator().manual_seed(cycle)
        for one in moving:
            one.data = one.data + by * torch.randn(one.shape, generator=dice)
        place = directory / "state" / f"cycle_{cycle:03d}"
        save_adapter(loaded.model, place, plain_model)
        parent = {"parent": str(directory / "state/cycle_001"), "parent_cycle": 1} if cycle == 2 else {}
        own = msgspec.structs.replace(job, cycle=cycle, staging=str(place), **parent)
        write_fingerprint(own, loaded, examples(), lambda _tokens: None)
        record_files(place, FINGERPRINT_FILE)
    base_gguf(plain_model, directory / "base.gguf")
    return directory


@pytest.fixture
def unit(champions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LlamaUnit]:
    """A server that runs the base, in a copy of that directory."""
    shutil.copytree(champions, tmp_path, dirs_exist_ok=True, symlinks=True)
    found = LlamaUnit(tmp_path, tmp_path / "base.gguf", tmp_path / "state/serving" / ENVIRONMENT_FILE)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    found.start()
    yield found
    found.end()


@pytest.fixture
def stage(unit: LlamaUnit, plain_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServingStage:
    """The deployer, with the conversion in this process."""

    def converted(_python: str, arguments: list[str], kind: type[Any]) -> Any:
        return msgspec.json.decode(said_by(adapter_to_gguf.main, *arguments[1:]), type=kind)

    monkeypatch.setattr("sleepd.serving.gguf_conversion.ask_worker", converted)
    found = ServingStage(tmp_path, unit, "llama-restart", unit="llama.service", ready_seconds=20.0)
    found.config = changed(found.config, "model", base=str(plain_model))
    return found


def running(unit: LlamaUnit) -> list[str]:
    """What the server itself says that it was started with."""
    found = HttpServer(unit.url).json("GET", "/lora-adapters", list[dict[str, Any]])
    return [Path(each["path"]).name.partition("-")[0] for each in found]


def test_each_generation_is_served_and_proved(stage: ServingStage, unit: LlamaUnit) -> None:
    """From the base to cycle 1, to cycle 2, back to cycle 1 and to the base: each is proved, after one restart each."""
    for wanted, names in ((1, ["cycle_001"]), (2, ["cycle_002"]), (1, ["cycle_001"]), (0, [])):
        stage.roll_back(wanted)
        state = stage.turns(2)
        assert (state.served, state.is_proved, state.problem) == (wanted or None, True, "")
        assert running(unit) == names
        assert state.distance < 0.1 < state.next_nearest
    assert unit.restarts == 4
    assert stage.spans() == [(None, True), (1, False), (2, False), (1, False)]


def test_other_template_is_left_alone(stage: ServingStage, unit: LlamaUnit) -> None:
    """A server whose chat template writes other tokens is not restarted, and nothing is called served."""
    unit.settings = {"chat_template": "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}[a] "}
    unit.start()
    state = stage.turns()
    assert "another number of tokens" in state.problem
    assert (state.is_proved, unit.restarts) == (False, 0)


def test_second_adapter_is_found_out(stage: ServingStage, unit: LlamaUnit) -> None:
    """A unit that names an adapter of its own beside ours runs neither, and nothing is called served."""
    stage.turns()
    unit.adapters = [str(next((stage.state / "serving/adapters").iterdir()))]
    stage.roll_back(1)
    state = stage.turns()
    assert running(unit) == ["cycle_002", "cycle_002"]
    assert not state.is_proved
    assert "the proof failed" in state.problem


def test_missing_adapter_is_put_back(stage: ServingStage, unit: LlamaUnit) -> None:
    """A server that does not start without its adapter's file is started with the one before, which is proved."""
    stage.roll_back(1)
    stage.turns()
    stage.roll_back(2)

    def remove(step: ServeStep) -> None:
        if step.phase == "swapping":
            next((stage.state / "serving/adapters").glob("cycle_002*")).unlink()

    stage.on_step = remove
    state = stage.turns()
    assert (state.wanted, state.served, state.is_proved) == (2, 1, True)
    assert "restart llama.service ended with 1" in state.problem
    assert running(unit) == ["cycle_001"]


@pytest.mark.parametrize("phase", ["swapping", "proving"])
def test_death_in_a_swap_is_recovered(stage: ServingStage, unit: LlamaUnit, phase: str) -> None:
    """A daemon that dies before or after the restart finds out what the server runs, and serves what is wanted."""

    def die(step: ServeStep) -> None:
        if step.phase == phase:
            raise Death

    stage.on_step = die
    with pytest.raises(Death):
        stage.turns()
    assert running(unit) == ([] if phase == "swapping" else ["cycle_002"])
    stage.on_step = lambda _step: None
    state = stage.turns()
    assert (state.served, state.is_proved, running(unit), unit.restarts) == (2, True, ["cycle_002"], 1)


def test_stale_cache_is_no_proof(stage: ServingStage, unit: LlamaUnit, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rollback by POST /lora-adapters, long prompts are answered from what the adapter left: no proof.

    Asked without its cache, the server is the base. A restart of it is what helps, and then the base is proved.
    """
    stage.turns()

    def post(_settings: object, generation: Generation | None, _adapter: object) -> None:
        body = [{"id": 0, "scale": 1.0 if generation else 0.0}]
        assert HttpServer(unit.url).request("POST", "/lora-adapters", body).status == 200

    monkeypatch.setattr("sleepd.serving.engines.command.run_command", post)
    stage.configure(kind="command", command="curl")
    assert stage.turns().served == 2
    stage.roll_back(0)
    state = stage.turns()
    assert not state.is_proved
    assert "the proof failed" in state.problem
    assert "from what it kept under another adapter: restart the engine" in state.problem

    unit.environment.unlink()
    unit.start()
    state = stage.turns(is_asked_for=True)
    assert (state.served, state.is_proved, state.problem) == (None, True, "")
