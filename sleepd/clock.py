"""The one seam through which time comes in, so that tests can bring their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Protocol

import msgspec

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its offset: without one it cannot be compared with ours."""


class Clock(Protocol):
    """Wall time for what is written down, monotonic time for intervals."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back, does not survive a restart."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since boot, those in suspend-to-RAM included, which CLOCK_MONOTONIC leaves out."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class Elapsed:
    """Time since a moment that was written down, by a clock that cannot jump.

    The wall clock is compared once, when the moment is first seen; from then on monotonic time counts. A moment in the
    future (the clock was set back) counts from now: that neither blocks for ever nor starts a storm.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moment: datetime | None = None
        self._anchor = 0.0

    def seconds_since(self, moment: datetime) -> float:
        """Seconds from ``moment`` (aware) to now, at least 0."""
        if moment != self._moment:
            already = max(0.0, (self._clock.now() - moment).total_seconds())
            self._moment, self._anchor = moment, self._clock.monotonic() - already
        return self._clock.monotonic() - self._anchor
