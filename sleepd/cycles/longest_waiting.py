"""Since when the experience waits that has waited longest to be learned.

It waits from the moment at which it was screened, which is just after it was first read. An upgrade that screens all of
them by new rules begins anew.
"""

from __future__ import annotations

import asyncio
from array import array
from datetime import datetime

from sleepd.quarantine.screening_table import Screenings


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

        What comes later was screened later: they are looked through, in the order in which they were screened, only
        once the oldest has been learned or has gone.
        """
        if self._oldest is not None and self._oldest[0] in waiting:
            return
        oldest: tuple[int, datetime] | None = None
        for page in self._screenings.oldest_first() if waiting else ():
            # As a set of the page: one of all that wait would take megabytes.
            still = frozenset(key for key, _ in page).intersection(waiting)
            oldest = next((each for each in page if each[0] in still), None)
            if oldest is not None:
                break
            await asyncio.sleep(0)
        self._oldest = oldest
