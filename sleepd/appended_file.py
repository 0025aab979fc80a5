"""A file of JSON lines to which several processes and threads append, and which they rotate.

Each append opens the file anew, locks it (flock), writes the line in one go, and closes it. A lock belongs to an open
file, so threads and forked processes exclude each other too, and nothing is left open between two lines. This takes
some microseconds.

Rotation. Whoever would make the file longer than it may be holds its lock, gives it its second name (``NAME.1``), and
replaces the first name by an empty file. So a reader always finds the file. Who waited for the lock of the old file
finds that the name leads to another one, and opens that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from .files import fsync_path

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_OTHER_FORM: Final = re.compile(rb'(\xef\xbb\xbf)?\s*(\[|\{\s*(\n|"experiences"))')
"""How an array or an object of experiences begins. A line behind it would make the whole file unreadable."""


class AppendedFile:
    """The file at ``path``; it is made with the first line.

    Args:
        path: where it stands.
        mode: of the file when it is made, whatever the umask. One that is there keeps its own, also when it is rotated.
        max_bytes: it is rotated before it grows beyond this; 0: never.
        backups: so many rotated files are kept: ``path.1`` is the newest.
        is_durable: each line is synced to the disk before the call returns.
    """

    def __init__(self, path: Path, *, mode: int, max_bytes: int, backups: int, is_durable: bool) -> None:
        self.path = path
        self._mode = mode
        self._max_bytes = max_bytes
        self._backups = backups
        self._is_durable = is_durable

    def append(self, line: bytes) -> None:
        """Append ``line`` and a line end. A last line that somebody left torn is ended first.

        Raises:
            OSError: it was not written, and nothing of it is left in the file. Where another program appended behind it
                without the lock, its torn beginning stays, as a line of its own.
        """
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not self._is_in_place(descriptor):
                    continue  # it was rotated while this waited for the lock
                if _OTHER_FORM.match(os.pread(descriptor, 64, 0)):
                    raise OSError(errno.EINVAL, "it holds an array or an object of experiences, expected JSON lines")
                size = os.fstat(descriptor).st_size
                if self._max_bytes and size and size + len(line) + 1 > self._max_bytes:
                    self._rotate(descriptor)
                    continue
                self._write(descriptor, line, size)
                return
            finally:
                os.close(descriptor)

    def _open(self) -> int:
        """A descriptor for appending; where there is no file, of a new one."""
        # Where a link leads to cannot be rotated under the link's name.
        flags = _FLAGS | (os.O_NOFOLLOW if self._max_bytes else 0)
        while True:
            with suppress(FileNotFoundError):
                descriptor = os.open(self.path, flags)
                break
            with suppress(FileExistsError):  # another process was faster
                descriptor = self._make(Path(os.path.realpath(self.path)), self._mode)
                break
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "expected a regular file")

    def _make(self, path: Path, mode: int) -> int:
        descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode & 0o600)
        os.fchmod(descriptor, mode)
        if self._is_durable:
            fsync_path(path.parent)
        return descriptor

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _write(self, descriptor: int, line: bytes, size: int) -> None:
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        whole = (b"\n" if is_torn else b"") + line + b"\n"
        written = 0
        try:
            while written < len(whole):  # once; a second write is what tells why the first one was cut short
                written += os.write(descriptor, whole[written:])
            if self._is_durable:
                os.fsync(descriptor)
        except OSError:
            # Who appends without the lock may have written behind it: then the torn line stays, and is ended later.
            with suppress(OSError):
                if os.fstat(descriptor).st_size == size + written:
                    os.ftruncate(descriptor, size)
            raise

    def _rotate(self, descriptor: int) -> None:
        """Rename the file, which is locked, and put an empty one with its mode and group in its place."""
        status = os.fstat(descriptor)
        empty = self.path.with_name(f".{self.path.name}.new")
        empty.unlink(missing_ok=True)  # left by a rotation that was cut short
        made = self._make(empty, stat.S_IMODE(status.st_mode))
        try:
            if os.fstat(made).st_gid != status.st_gid:
                with suppress(PermissionError):  # who is not in that group cannot; the daemon says what it cannot read
                    os.fchown(made, -1, status.st_gid)
        finally:
            os.close(made)
        if not self._is_named_already(status):
            # Up to the first free number, so that what fails below does not push out one file with each try.
            numbers = range(1, self._backups)
            free = next((number for number in numbers if not self._backup(number).exists()), self._backups)
            for number in range(free - 1, 0, -1):
                self._backup(number).replace(self._backup(number + 1))
            os.link(self.path, self._backup(1))
        empty.replace(self.path)
        if self._is_durable:
            fsync_path(self.path.parent)

    def _is_named_already(self, status: os.stat_result) -> bool:
        """Whether a rotation was cut short after the file had its second name."""
        try:
            return os.path.samestat(self._backup(1).stat(), status)
        except FileNotFoundError:
            return False

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
