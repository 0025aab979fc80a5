"""Champions with their fingerprints, and a stage whose deployer asks in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from sleepd.cycles.running.planning import Order
from sleepd.protocol.checkpoint.checkpoint_files import WEIGHTS_FILE
from sleepd.protocol.deployment.serve_messages import ServedState, ServeOutcome, ServeRequest, ServeStep, encode
from sleepd.serving import serve_process
from tests.serving.fake_engines import FakeEngine, record_files, write_fingerprint
from tests.stages import OpenSleeper, Stage


def fake_gguf(adapter: Path, output: Path, **_: object) -> Path:
    """A file that says which cycle it is of, under a name of its own."""
    cycle = int(adapter.name.removeprefix("cycle_"))
    output.mkdir(exist_ok=True)
    path = output / f"{adapter.name}-{(adapter / 'adapter_model.safetensors').stat().st_size}.gguf"
    if not path.exists():
        path.write_text(str(cycle))
    return path


def make_champions(directory: Path, *counts: int) -> None:
    """Champions with their fingerprints, each trained from the one before."""
    stage = Stage(directory)
    stage.make_champions(*counts)
    for path in stage.state.glob("cycle_*"):
        cycle = int(path.name.removeprefix("cycle_"))
        write_fingerprint(path, cycle, cycle - 1 or None)
        _write_weights(path, cycle)


def _write_weights(checkpoint: Path, cycle: int) -> None:
    """Two real factors, with the manifest that belongs to them."""
    header = {
        f"base_model.model.q_proj.lora_{factor}.weight": {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [start, start + 32],
        }
        for factor, shape, start in (("A", [2, 4], 0), ("B", [4, 2], 32))
    }
    head = json.dumps(header).encode()
    (checkpoint / WEIGHTS_FILE).write_bytes(len(head).to_bytes(8, "little") + head + bytes([cycle] * 64))
    record_files(checkpoint)


class ServingStage(Stage):
    """``Stage`` with an engine; ``turns`` takes turns of the deployer, as the daemon does."""

    def __init__(self, directory: Path, engine: FakeEngine, kind: str, **settings: Any) -> None:
        super().__init__(directory)
        self.engine = engine
        self.requests: list[ServeRequest] = []
        self.steps: list[str] = []
        self.on_step: Callable[[ServeStep], None] = lambda _step: None
        self.clock.advance(30 * 3600)
        self.configure(kind=kind, url=engine.url, model=engine.model, **settings)

    def configure(self, **settings: Any) -> None:
        serve = msgspec.structs.replace(self.config.serve, **settings)
        self.config = msgspec.structs.replace(self.config, serve=serve)

    async def ask(self, request: ServeRequest, listener: Callable[[ServeStep], object]) -> ServeOutcome:
        """As ``ServeClient.ask``, in this process."""
        self.requests.append(request)

        def report(step: ServeStep) -> None:
            self.steps.append(step.phase)
            self.on_step(step)
            listener(step)

        return serve_process.serve(encode(request), None, report=report, wait=lambda _seconds: True)

    def turns(self, number: int = 1, *, is_asked_for: bool = False) -> ServedState:
        """So many turns after a start of the daemon; what is shown afterwards."""

        async def scene(sleeper: OpenSleeper) -> ServedState:
            deployer = sleeper.parts.deployer
            deployer._ask = self.ask
            deployer.wake(is_asked_for=is_asked_for)
            for _ in range(number):
                await deployer.turn()
            state = deployer.state
            assert state is not None
            return state

        return self.play(scene)

    def roll_back(self, to: int | None = None) -> None:
        async def scene(sleeper: OpenSleeper) -> None:
            await sleeper.refresh()
            sleeper.rollback(to)

        self.play(scene)

    def spans(self) -> list[tuple[int | None, bool]]:
        """Each span's cycle and whether it lasts, newest first."""

        async def scene(sleeper: OpenSleeper) -> list[tuple[int | None, bool]]:
            return [(each.cycle, each.until is None) for each in sleeper.reader.served(limit=50)]

        return self.play(scene)


class _Watched(list[Any]):
    """Events, with a look at the engine whenever the worker begins a phase."""

    def __init__(self, is_free: Callable[[], bool]) -> None:
        super().__init__()
        self.is_free = is_free
        self.seen: list[bool] = []

    def append(self, event: Any) -> None:
        super().append(event)
        if event[0] == "phase_started":
            self.seen.append(self.is_free())


def sleep_with_engine(stage: ServingStage, is_free: Callable[[], bool]) -> tuple[list[bool], ServedState]:
    """A whole third cycle: whether the engine had freed the GPU in each phase, and what is served afterwards."""
    watched = _Watched(is_free)
    stage.events = watched
    stage.write(36)

    async def scene(sleeper: OpenSleeper) -> ServedState:
        deployer = sleeper.parts.deployer
        deployer._ask = stage.ask
        await deployer.turn()
        await sleeper.refresh()
        await sleeper.begin(Order())
        summary = await sleeper.finished()
        assert summary is not None
        write_fingerprint(stage.state / "cycle_003", 3, 2)
        _write_weights(stage.state / "cycle_003", 3)
        sleeper.serve_anew()  # as the daemon does when a cycle has ended
        await deployer.turn()
        state = deployer.state
        assert state is not None
        return state

    state = stage.play(scene)
    return watched.seen, state


def told(stage: Stage, event: str) -> list[dict[str, Any]]:
    return [fields for name, fields in stage.events if name == event]
