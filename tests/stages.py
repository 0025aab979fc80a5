"""A state directory and a buffer, on which a sleeper with a fake clock and a fake worker is opened again and again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sleepd.clock import Clock
from sleepd.config.schema import Config
from sleepd.cycles.composition import Listener, Parts
from sleepd.cycles.read_model import ReadModel
from sleepd.cycles.running.planning import Order
from sleepd.cycles.sleeper import Sleeper
from sleepd.store.sqlite.ledger_rows import CycleRecord
from tests.agents import config_for, experiences, write_buffer
from tests.fakes import FakeClock, fake_worker
from tests.processes import LIMIT_SECONDS


class OpenSleeper(Sleeper):
    """The service, and what stands beside it on the same state directory: its parts and its read model."""

    def __init__(self, parts: Parts, *, worker: tuple[str, ...] | None = None) -> None:
        super().__init__(parts, worker=worker)
        self.parts = parts
        self.reader = ReadModel(parts)


Scene = Callable[[OpenSleeper], Awaitable[Any]]


def open_sleeper(
    config: Config,
    *,
    clock: Clock,
    worker: tuple[str, ...],
    listener: Listener = lambda _event, _fields: None,
) -> OpenSleeper:
    return OpenSleeper(Parts(config, clock=clock, listener=listener), worker=worker)


class Stage:
    """A state directory and a buffer; ``play`` opens a sleeper on it, as a restart would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.buffer = directory / "buffer.json"
        self.state = directory / "state"
        self.config: Config = config_for(directory)
        self.clock = FakeClock()
        self.events: list[tuple[str, dict[str, Any]]] = []

    def write(self, count: int, **more: Any) -> None:
        write_buffer(self.buffer, experiences(count, **more))

    def play(self, scene: Scene, *, behaviour: str = "promote") -> Any:
        async def life() -> Any:
            sleeper = open_sleeper(
                self.config,
                clock=self.clock,
                listener=lambda event, fields: self.events.append((event, fields)),
                worker=fake_worker(behaviour),
            )
            try:
                return await asyncio.wait_for(scene(sleeper), LIMIT_SECONDS)
            finally:
                await sleeper.end_cycle()
                sleeper.close()

        return asyncio.run(life())

    def sleep(self, order: Order | None = None, *, behaviour: str = "promote") -> CycleRecord:
        """One cycle to its end."""

        async def scene(sleeper: OpenSleeper) -> CycleRecord:
            await sleeper.refresh()
            await sleeper.begin(order or Order())
            summary = await sleeper.finished()
            assert summary is not None
            return summary

        return self.play(scene, behaviour=behaviour)

    def make_champions(self, *counts: int) -> None:
        """One after the other, each on a buffer of so many, seven hours apart."""
        for count in counts:
            self.write(count)
            self.sleep()
            self.clock.advance(7 * 3600)

    def read(self, name: str) -> Any:
        return json.loads((self.state / name).read_text())


async def refresh(sleeper: OpenSleeper) -> Any:
    return await sleeper.refresh()
