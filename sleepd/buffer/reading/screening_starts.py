"""Where the screening of JSON lines begins to read, so that a long file is not read again for each line. Pure."""

from __future__ import annotations

import msgspec


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place between two lines, and what must be known of the lines before it."""

    offset: int = 0
    """Bytes from the file's beginning."""
    found: int = 0
    """How many experiences stand before it."""
    said: bytes = b""
    """See ``Reading.said``."""


FROM_THE_BEGINNING = Start()


class ScreeningStarts:
    """Of one file, as long as lines are only appended to it."""

    def __init__(self) -> None:
        self._last = self._end = FROM_THE_BEGINNING

    def next(self, place: int, end: Start) -> Start:
        """The last known place before all that is to be screened.

        Args:
            place: how many experiences stand before the first one that is to be screened.
            end: the end of what was read, from where the next screening may begin.
        """
        if self._end.found <= place:
            self._last = self._end
        elif self._last.found > place:
            self._last = FROM_THE_BEGINNING
        self._end = end
        return self._last
