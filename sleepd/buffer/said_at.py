"""When a reply was said, by what its record holds. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

_FIRST, _BEYOND = 10**9, 10**10
"""The seconds from 2001 to 2286. In milli-, micro- and nanoseconds the same years are other numbers."""
_UNITS: Final = (1, 10**3, 10**6, 10**9)
_DIGITS: Final = re.compile(r"[0-9]{10,19}")
_LONGEST_DATE: Final = 40


def said_at(value: Any) -> int | None:
    """The Unix time in whole seconds, rounded down; None: it is no time, or could be several.

    A number is one of seconds, or of milli-, micro- or nanoseconds. A text is such a number or a date of ISO 8601 with
    its zone: without a zone it could be any of 27 hours.
    """
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value):
            return _of_date(value)
        value = int(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return next((int(value // unit) for unit in _UNITS if _FIRST * unit <= value < _BEYOND * unit), None)


def _of_date(text: str) -> int | None:
    if len(text) > _LONGEST_DATE:
        return None
    try:
        moment = datetime.fromisoformat(text)
        seconds = int(moment.timestamp() // 1) if moment.tzinfo else 0
    except (ValueError, OverflowError):
        return None
    return seconds if _FIRST <= seconds < _BEYOND else None
