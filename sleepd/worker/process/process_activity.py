"""Whether a process moves on, seen from beside the thread that works: bytes that it read and wrote.

Loading blocks in foreign code for minutes, where nothing can report. A thread that says "alive" from beside it proves
nothing: a chat template without an end computes, and so does a configuration of a billion layers. Neither reads a file.
What loads does: modules, weights, a tokenizer, be the disk ever so slow.
"""

from __future__ import annotations

import contextlib
import resource
from typing import Final

LEAST_BYTES: Final = 64 * 1024
"""Fewer are not counted yet: to look costs some hundred bytes itself."""
_SECTOR: Final = 512


class Movement:
    """The bytes of this process, compared with those at the last sign of life."""

    def __init__(self) -> None:
        self._counted = _moved_bytes()

    def has_moved(self) -> bool:
        """Whether enough bytes were moved since it was last so."""
        moved = _moved_bytes()
        if moved < self._counted + LEAST_BYTES:
            return False
        self._counted = moved
        return True


def _moved_bytes() -> int:
    """Through system calls as the kernel counts them, and through mapped files as far as they came from a disk."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    mapped = _SECTOR * (usage.ru_inblock + usage.ru_oublock) + usage.ru_majflt * resource.getpagesize()
    called = 0
    with contextlib.suppress(OSError), open("/proc/self/io", encoding="ascii") as file:
        # Not every kernel counts them; then those from a disk alone are seen.
        called = sum(int(line.split()[1]) for line in file if line.startswith(("rchar", "wchar")))
    return mapped + called
