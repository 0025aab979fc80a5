"""Tests of vLLM as a fake one that behaves as version 0.32 was measured to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleepd.protocol.checkpoint.checkpoint_files import WEIGHTS_FILE
from sleepd.store.adapter_file import read_header
from tests.kept import kept
from tests.serving.fake_engines import FakeEngine
from tests.serving.serving_stage import ServingStage, sleep_with_engine


class FakeVllm(FakeEngine):
    """Loads adapters by path, once for each path: other bytes under a path that it knows are not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: dict[str, int | None] = {}
        self.aliases: dict[str, str] = {}
        self.is_sleeping = False
        self.can_load = True
        self.running_requests = 0
        self.base_name = "base-model"

    def runs(self, model: str) -> int | None:
        if model == self.base_name:
            return None
        if model not in self.aliases:
            raise LookupError(model)
        return self.loaded[self.aliases[model]]

    def handle(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match method, path:
            case "POST", "/v1/load_lora_adapter" if self.can_load:
                return self.load(body)
            case "GET", "/metrics":
                self.running_requests -= 1
                return 200, None
            case "POST", "/sleep?level=1":
                self.is_sleeping = True
                return 200, {}
            case "POST", "/wake_up":
                self.is_sleeping = False
                return 200, {}
            case "GET", "/is_sleeping":
                return 200, {"is_sleeping": self.is_sleeping}
        if self.is_sleeping:
            return 503, {"error": "asleep"}
        return super().handle(method, path, body)

    def load(self, body: Any) -> tuple[int, Any]:
        name, path = body["lora_name"], body["lora_path"]
        if name == self.base_name:
            return 400, {"error": {"message": f"The lora adapter '{name}' has the name of the base"}}
        if not Path(path, "adapter_config.json").is_file():
            return 404 if not self.can_load else 400, {"error": "no adapter there"}
        if name in self.aliases and not body.get("load_inplace"):
            return 400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
        self.loaded.setdefault(path, cycle_at(Path(path)))
        self.aliases[name] = path
        return 200, "Success"


def cycle_at(path: Path) -> int | None:
    """By the directory's name, as far as its weights have an effect."""
    with (path / WEIGHTS_FILE).open("rb") as file:
        tensors, start = read_header(file, path)
        ups = [tensor.data_offsets for name, tensor in tensors.items() if ".lora_B." in name]
        file.seek(0)
        content = file.read()
    has_effect = any(any(content[start + begin : start + end]) for begin, end in ups)
    return int(path.name[6:9]) if has_effect else None


@pytest.fixture
def vllm() -> Iterator[FakeVllm]:
    with FakeVllm() as engine:
        yield engine


@pytest.fixture
def stage(tmp_path: Path, two_champions: Path, vllm: FakeVllm) -> ServingStage:
    """Two champions, and a vLLM that has only its base."""
    shutil.copytree(two_champions, tmp_path, dirs_exist_ok=True, symlinks=True)
    return ServingStage(tmp_path, vllm, "vllm", ready_seconds=1.0, wait_idle_seconds=1.0)


def test_alias_walks_through_generations(stage: ServingStage, vllm: FakeVllm) -> None:
    """Champion, the one before, the base, and back: each is loaded in place under one name and proved."""
    for wanted in (2, 1, 0, 2):
        if wanted != 2 or vllm.aliases:
            stage.roll_back(wanted)
        state = stage.turns()
        assert (state.problem, state.served, state.is_proved) == ("", wanted or None, True)
    assert list(vllm.aliases) == ["agent"]
    assert all("current" not in path and "-" in Path(path).name for path in vllm.loaded)


def test_base_is_an_adapter_without_effect(stage: ServingStage, vllm: FakeVllm) -> None:
    """For the base the factors B are zero and the factors A are as they were; it is made once."""
    stage.turns()
    stage.roll_back(0)
    stage.turns()
    (made,) = (stage.state / "serving" / "adapters").glob("base-*")
    before = (made / WEIGHTS_FILE).stat().st_mtime_ns
    assert cycle_at(made) is None
    source = (stage.state / "retired" / "cycle_002" / WEIGHTS_FILE).read_bytes()
    assert len((made / WEIGHTS_FILE).read_bytes()) == len(source)

    stage.roll_back(1)
    stage.turns()
    stage.roll_back(0)
    assert stage.turns().is_proved
    assert (made / WEIGHTS_FILE).stat().st_mtime_ns == before


def test_name_of_the_base_is_refused(stage: ServingStage, vllm: FakeVllm) -> None:
    """VLLM answers 400 where the alias is the base's own name, and that is what the problem says."""
    stage.configure(model=vllm.base_name)
    state = stage.turns()
    assert "refused cycle_002-" in state.problem
    assert "status 400" in state.problem


def test_engine_without_runtime_lora_is_told(stage: ServingStage, vllm: FakeVllm) -> None:
    """A vLLM that cannot load adapters answers 404, and the hint has what to start it with."""
    vllm.can_load = False
    state = stage.turns()
    assert state.problem == kept("no-runtime-lora", state.problem, url=vllm.url)
    assert "--enable-lora" in state.hint
    assert not state.is_proved


def test_stale_path_is_found_out(stage: ServingStage, vllm: FakeVllm) -> None:
    """Where the engine answers with what it had under that path before, nothing is called served."""
    from sleepd.serving.engines.engine import adapter_name
    from sleepd.serving.generations import Generations
    from tests.stages import OpenSleeper

    async def scene(sleeper: OpenSleeper) -> str:
        wanted = Generations(sleeper.parts.ledger, sleeper.parts.checkpoints).wanted()
        assert wanted is not None
        return adapter_name(wanted)

    path = stage.state / "serving" / "adapters" / stage.play(scene)
    vllm.loaded[str(path)] = 1
    state = stage.turns()
    assert (state.wanted, state.served) == (2, None)
    assert state.problem == kept("stale-path", state.problem)


def test_gpu_is_freed_for_a_cycle(stage: ServingStage, vllm: FakeVllm) -> None:
    """Asked to, vLLM sleeps while a cycle trains, is woken afterwards, and proved again."""
    stage.configure(free_before_training=True)
    stage.turns()

    async def scene(sleeper: Any) -> list[bool]:
        deployer = sleeper.parts.deployer
        deployer._ask = stage.ask
        await deployer.free()
        asleep = [vllm.is_sleeping, deployer.state.is_proved]
        assert await deployer.turn() is None
        deployer.resume()
        await deployer.turn()
        return [*asleep, vllm.is_sleeping, deployer.state.is_proved]

    assert stage.play(scene) == [True, False, False, True]


def test_gpu_is_free_through_a_whole_cycle(stage: ServingStage, vllm: FakeVllm) -> None:
    """The engine sleeps in every phase of the worker; it is awake afterwards, and the new champion is proved."""
    stage.configure(free_before_training=True)
    seen, state = sleep_with_engine(stage, lambda: vllm.is_sleeping)
    assert seen == [True] * len(seen) != []
    assert (vllm.is_sleeping, state.served, state.is_proved, state.problem) == (False, 3, True, "")
