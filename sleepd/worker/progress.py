"""How far a cycle is: its phase, the wall time of each phase, and how long the rest takes.

Outside of training, whose steps report themselves, a phase reports its progress whenever something was computed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from sleepd.protocol.job import Phase, Progress

from .channel import Channel
from .evaluation.probe_generation import DECODING_WORK
from .model.memory.out_of_memory import free_memory

FORWARD = 1.0
"""Work of one token that only goes forward: the unit."""
TRAINED = 3.0
"""Work of one token that goes backward too; measured 2.6 to 3.2 for a frozen base with an adapter."""


class Pace:
    """Planned and finished work, in forward tokens, and the wall time it took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._planned = 0.0
        self._done = 0.0
        self._started: float | None = None

    def plan(self, work: float) -> None:
        """Add work that is still to come."""
        self._planned += work

    def begin(self) -> None:
        """Start the clock: from here on time is spent on planned work."""
        if self._started is None:
            self._started = self._clock()

    def did(self, work: float) -> None:
        """Count finished work."""
        self._done += work

    def eta_seconds(self) -> float | None:
        """Until all planned work is done; None while nothing is."""
        if self._started is None or self._done <= 0:
            return None
        elapsed = self._clock() - self._started
        return max(0.0, (self._planned - self._done) * elapsed / self._done)


class Phases:
    """Which phase it is, how long each took, and how far the whole is."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.pace = Pace()
        self.seconds: dict[str, float] = {}
        """Wall time by phase, of those that are over."""
        self.device = ""
        """As it is described to the operator."""
        self._current: Phase = "loading"
        self._started = time.monotonic()

    @contextlib.contextmanager
    def enter(self, phase: Phase) -> Iterator[None]:
        """The body is that phase."""
        self._current = phase
        self._started = time.monotonic()
        free_memory()  # each phase keeps blocks of other sizes, in which the next one finds no room
        self.report()
        yield
        self.seconds = self.spent()

    def spent(self) -> dict[str, float]:
        """Wall time by phase up to now."""
        seconds = self.seconds.get(self._current, 0.0) + time.monotonic() - self._started
        return {**self.seconds, self._current: round(seconds, 3)}

    def measured(self, tokens: int) -> None:
        """So many tokens went through the model."""
        self.pace.did(FORWARD * tokens)
        self.report()

    def generated(self, tokens: int) -> None:
        """One step of generation computed so many tokens."""
        self.pace.did(DECODING_WORK + tokens)
        self.report()

    def report(self) -> None:
        """The heartbeat.

        Raises:
            Stopped: SIGTERM came.
            DaemonGone: the daemon ended.
        """
        self._channel.progress(Progress(phase=self._current, device=self.device, eta_seconds=self.pace.eta_seconds()))
