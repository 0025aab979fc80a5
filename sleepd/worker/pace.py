"""How long the whole job still takes, from how long its tokens took so far."""

from __future__ import annotations

import time
from collections.abc import Callable

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
