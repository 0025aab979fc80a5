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


def fake_worker(behaviour: str) -> tuple[str, ...]:
    """The command of a worker that behaves so; see ``fake_worker.py``."""
    return (sys.executable, str(FAKE_WORKER), "--behaviour", behaviour)
