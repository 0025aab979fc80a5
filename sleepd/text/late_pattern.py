"""A pattern that is compiled when it is first asked.

To compile the screening's patterns takes as long as to screen a hundred texts with them, and a text that came alone
asks few of them.
"""

from __future__ import annotations

import re
from functools import cached_property


class LatePattern:
    """One pattern."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """It, compiled once."""
        return re.compile(self._text)
