"""The deployer on the real llama.cpp server: every restart is one of the server, and every proof its own answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
xllamacpp = pytest.importorskip("xllamacpp")

from sleepd.config.serve_config import ENVIRONMENT_FILE  # noqa: E402
from sleepd.protocol.deployment.serve_messages import Generation, ServeStep  # noqa: E402
from sleepd.serving.http import HttpServer  # noqa: E402
from sleepd.worker.programs import adapter_to_gguf  # noqa: E402
from tests.agents import changed  # noqa: E402
from tests.serving.real_llama import LlamaUnit, make_real_champions  # noqa: E402
from tests.serving.serving_stage import ServingStage  # noqa: E402

from .conftest import said_by  # noqa: E402

pytestmark = pytest.mark.model


class Death(BaseException):
    """The daemon and its serve process end here."""


@pytest.fixture(scope="module")
def champions(plain_model: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two champions, made once: a test works on a copy."""
    directory = tmp_path_factory.mktemp("champions")
    make_real_champions(directory, plain_model, models, tmp_path_factory.mktemp("job"))
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
    assert "under another adapter" in state.problem

    unit.environment.unlink()
    unit.start()
    state = stage.turns(is_asked_for=True)
    assert (state.served, state.is_proved, state.problem) == (None, True, "")
