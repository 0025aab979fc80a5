"""A state directory with a cycle of every ending, made by the real parts with the fake worker, copied for each use."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sleepd.config.schema import Config
from sleepd.cycles.running import runner
from sleepd.cycles.running.planning import Order
from sleepd.quarantine import keeper
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import FakeClock, fake_interpreter
from tests.in_process import screened_here, worker_here
from tests.stages import OpenSleeper, Stage

ENDINGS = {
    1: "inconclusive",
    2: "promoted",
    3: "rejected",
    4: "promoted",
    5: "failed",
    6: "cancelled",
    7: "interrupted",
    8: "promoted",
}
"""How each cycle ended. The last one was rolled back, so that the fourth is in use."""
BEHAVIOURS = {1: "open", 2: "promote", 3: "reject", 4: "promote", 5: "fail", 7: "not_resumable", 8: "promote"}
HOURS = 7
EXCLUDED = ("I feel ready to learn. " * 20, "The lamp is on. " * 30, "We sail at dawn. " * 25)
"""Replies that the screening excludes as loops."""
SECRET = "AKIA" + "Z7QH4LM2RTWXK3PB"
MARKUP = "<img src=x onerror=alert(1)>\u202e Where is the lamp?"


def make_history(directory: Path) -> None:
    """Eight cycles, seven hours apart, the last one three hours ago."""
    stage = Stage(directory)
    stage.config = changed(stage.config, "promotion", inconclusive="keep")
    stage.clock = FakeClock(datetime.now(UTC) - timedelta(hours=HOURS * len(ENDINGS) - HOURS + 3))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keeper, "screened", screened_here)
        patched.setattr(runner, "Worker", worker_here)
        for cycle, ending in ENDINGS.items():
            _write(stage.buffer, 4 + 8 * cycle)
            if ending in ("cancelled", "interrupted"):
                stage.play(_begin, behaviour="wait")
            if ending == "cancelled":
                stage.play(_cancel)
            else:
                assert stage.sleep(Order(force=True), behaviour=BEHAVIOURS[cycle]).state == ending
            stage.clock.advance(HOURS * 3600 if cycle < len(ENDINGS) else 60)
        stage.play(_roll_back)
    _write(stage.buffer, 4 + 8 * (len(ENDINGS) + 1))


def use_history(made: Path, directory: Path) -> Config:
    """A copy, and the configuration of a daemon on it: no cycle is due, and one that is forced trains until told."""
    shutil.copytree(made, directory, symlinks=True)
    config = config_for(directory, min_new_experiences=20)
    return changed(config, "worker", python=str(fake_interpreter(directory / "worker", "wait")))


def _write(path: Path, count: int) -> None:
    more: list[dict[str, Any]] = [
        {"id": f"loop-{number}", "prompt": "What happened?", "response": text, "salience": 0.9}
        for number, text in enumerate(EXCLUDED)
    ]
    more.append({"id": "secret", "prompt": "Which key?", "response": f"Your key is {SECRET}.", "salience": 0.9})
    more.append({"id": "markup", "prompt": MARKUP, "response": f"{MARKUP} On the shelf.", "salience": 0.9})
    write_buffer(path, [*experiences(count), *more])


async def _begin(sleeper: OpenSleeper) -> None:
    await sleeper.refresh()
    await sleeper.begin(Order(force=True))


async def _cancel(sleeper: OpenSleeper) -> None:
    sleeper.cancel()


async def _roll_back(sleeper: OpenSleeper) -> None:
    await sleeper.refresh()
    sleeper.rollback(None)
