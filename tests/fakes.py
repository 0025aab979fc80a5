"""The fakes, one at each seam: a clock that stands still, and a worker that does what it is told."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path


class FakeClock:
    """Time that moves when told to; the two clocks can be moved apart."""

    def __init__(self, start: datetime = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)) -> None:
        self.wall = start
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Both clocks go on."""
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds


FAKE_WORKER = Path(__file__).with_name("fake_worker.py")


def fake_interpreter(path: Path, behaviour: str) -> Path:
    """Write an executable to name as ``[worker] python``: whatever it is asked to run, it runs the fake worker."""
    path.write_text(
        f'#!/bin/sh\nwhile [ "$1" != --fd ]; do shift; done\n'
        f'exec {sys.executable} {FAKE_WORKER} --behaviour {behaviour} "$@"\n'
    )
    path.chmod(0o755)
    return path


SHORT_REPLIES = """
import sleepd.worker.evaluation.probe_generation as probes
import sleepd.worker.evaluation.reference_answers as answers
for name in ("REPLY_TOKENS", "PROBE_TOKENS", "RECALL_TOKENS", "TALK_TOKENS"):
    setattr(probes, name, 6)
answers.ANSWER_TOKENS = 12
import sleepd.worker.measure as measure
def some(*asked):
    chosen = answers.chosen_prompts(*asked)
    return answers.Prompts(chosen.regularise[:8], chosen.monitor[:8], chosen.probe[:8])
measure.chosen_prompts = some
"""
"""A tiny random model never ends a reply by itself, so every reply is as long as it may be; and of each set of
reference prompts eight do.
"""

_REAL = """
import gc, runpy, sys
gc.disable()
import torch, transformers, peft, safetensors.torch
{change}
gc.enable()
sys.argv = ["sleepd.worker", *sys.argv[sys.argv.index("--fd"):]]
runpy.run_module("sleepd.worker", run_name="__main__", alter_sys=True)
"""


def real_interpreter(path: Path, change: str = SHORT_REPLIES) -> Path:
    """Write an executable to name as ``[worker] python``: the real worker, after a program that changes it."""
    path.with_suffix(".py").write_text(_REAL.format(change=change))
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -P {path.with_suffix(".py")} "$@"\n')
    path.chmod(0o755)
    return path


def fake_worker(behaviour: str) -> tuple[str, ...]:
    """The command of a worker that behaves so; see ``fake_worker.py``."""
    return (sys.executable, str(FAKE_WORKER), "--behaviour", behaviour)
