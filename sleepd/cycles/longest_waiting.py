"""Since when the experience waits that has waited longest to be learned.

It waits from the moment at which it was screened, which is just after it was first read. An upgrade that screens all of
them by new rules begins anew.
"""

from __future__ import annotations

import asyncio
from array import array
from datetime import datetime
from typing import Final

from sleepd.quarantine.screening_table import Screenings

_AT_ONCE: Final = 500
"""Experiences that are asked for before the event loop turns."""


class LongestWaiting:
    """Of one buffer."""

    def __init__(self, screenings: Screenings) -> None:
        self._screenings = screenings
        self._oldest: tuple[int, datetime] | None = None

    @property
    def since(self) -> datetime | None:
        """None: nothing waits."""
        return self._oldest[1] if self._oldest else None

    async def follow(self, waiting: array[int]) -> None:
        """Take the keys of all that wait now.

        What comes later was screened later: all are asked for only once the oldest has been learned or has gone.
        """
        if self._oldest is not None and self._oldest[0] in waiting:
            return
        found = []
        for start in range(0, len(waiting), _AT_ONCE):
            found += self._screenings.earliest(waiting[start : start + _AT_ONCE])
            await asyncio.sleep(0)
        self._oldest = min(found, key=lambda each: each[1], default=None)
