"""Opening the buffer: whatever stands in its place, and however long its file system takes."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Final

from sleepd.errors import BufferUnreadable
from sleepd.files import regular_descriptor

from .stuck_calls import Caller, Stuck

FRESH_NANOSECONDS: Final = 50_000_000
"""File times advance with the kernel's tick, which is at most 10 ms."""
OPEN_SECONDS: Final = 10.0


class BufferFile:
    """The path of a buffer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._caller = Caller("buffer-open")

    async def open(self) -> int | None:
        """A descriptor; None: there is no file.

        Raises:
            BufferUnreadable: the file system does not answer.
            OSError: it cannot be opened, or is no regular file.
        """

        def close(descriptor: int | None) -> None:
            if descriptor is not None:
                os.close(descriptor)

        try:
            return await self._caller.call(self._open, seconds=OPEN_SECONDS, undo=close)
        except Stuck:
            raise BufferUnreadable(
                f"{self._path}: the file system has not answered for more than {OPEN_SECONDS:g} s",
                hint="check the share or disk that holds it: journalctl -k; the daemon reads it once that answers",
            ) from None

    def _open(self) -> int | None:
        """A descriptor; None: there is no file."""
        try:
            return regular_descriptor(self._path, follows_links=True)
        except FileNotFoundError:
            return None

    def unreadable(self, error: OSError) -> BufferUnreadable:
        """The error with its next step."""
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = "let this user read it, and pass through every directory above it"
        elif error.errno in (errno.EIO, errno.ESTALE):
            hint = "check the disk or share that holds it: journalctl -k"
        else:
            hint = "fix [buffer] path"
        return BufferUnreadable(f"{self._path}: {error.strerror or error}", hint=hint)


def identity_of(status: os.stat_result) -> tuple[int, ...]:
    """Equal for an unchanged file. A file changed just now is never equal: its next change may bear the same time."""
    # The machine's own time, since it is compared with the kernel's; ctime, since nobody can set it.
    is_fresh = abs(time.time_ns() - status.st_ctime_ns) < FRESH_NANOSECONDS
    same = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return (*same, time.monotonic_ns() if is_fresh else 0)
