"""Opening the buffer: whatever stands in its place, and however long its file system takes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from sleepd.errors import BufferUnreadable

from .stuck_calls import Caller, Stuck

OPEN_SECONDS: Final = 10.0


class BufferFile:
    """The path of a buffer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._caller = Caller("buffer-open")

    async def open(self) -> int | None:
        """A descriptor; None: there is no file.

        Raises:
            BufferUnreadable: the file system does not answer, or it is no regular file.
            OSError: it cannot be opened.
        """

        def close(descriptor: int | None) -> None:
            if descriptor is not None:
                os.close(descriptor)

        try:
            return await self._caller.call(self._open, seconds=OPEN_SECONDS, undo=close)
        except Stuck:
            raise BufferUnreadable(
                f"{self._path}: the file system has not answered for more than {OPEN_SECONDS:g} s",
                hint="look at the share or disk it lies on: journalctl -k; it is read again once that answers",
            ) from None

    def _open(self) -> int | None:
        """A descriptor; None: there is no file. A pipe or a device in its place is never waited for."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BufferUnreadable(f"{self._path}: expected a regular file", hint="mend [buffer] path")
        return descriptor

    def unreadable(self, error: OSError) -> BufferUnreadable:
        """The error with its next step."""
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = "let this user read it, and pass through every directory above it"
        elif error.errno in (errno.EIO, errno.ESTALE):
            hint = "look at the disk or share it lies on: journalctl -k"
        else:
            hint = "mend [buffer] path"
        return BufferUnreadable(f"{self._path}: {error.strerror or error}", hint=hint)
