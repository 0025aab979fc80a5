"""One GPU, several daemons: who trains holds a lock that all of them name.

The file is only ever opened for reading, which is enough for flock(2), so that a sandbox may show it read-only. The
kernel releases the lock when the daemon dies; its worker dies with it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sleepd.errors import Busy

_HINT = "sleepctl status shows the other one; worker.gpu_lock names the file, and empty means to wait for nobody"


class GpuLock:
    """The lock at ``path``; where there is no such file, or the path is empty, it is always free."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process has taken it."""
        return self._descriptor is not None

    def problem(self, path: str) -> str:
        """Why no cycle may begin now; empty: one may. A lock that is ours is no problem."""
        if self.is_held:
            return ""
        try:
            self.take(path)
        except Busy as error:
            return error.message
        self.release()
        return ""

    def take(self, path: str) -> None:
        """Take it, until ``release``.

        Raises:
            Busy: another process has it, or the file may not be opened.
        """
        if not path:
            return
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        except OSError as error:
            text = f"{path} cannot be opened, so whether another daemon trains is unknown: {error.strerror}"
            raise Busy(text, hint=_HINT) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise Busy("another sage-sleepd trains on this machine", hint=_HINT) from error
        self._descriptor = descriptor

    @contextmanager
    def taken(self, path: str) -> Iterator[None]:
        """Take it; it stays taken unless the block ends in an error.

        Raises:
            Busy: as ``take``.
        """
        self.take(path)
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let the next one train; without effect where nothing is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
