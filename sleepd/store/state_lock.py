"""One writer: the lock of a state directory, and who holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from sleepd.errors import DECODE_ERRORS, StateDirectoryUnusable, StateLocked
from sleepd.files import MAX_LOCK_BYTES, open_lock, read_document
from sleepd.text.shell import quoted

from .state_directory import prepare

LOCK_NAME = "lock"


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lock."""

    pid: int
    socket: str
    """Where it answers; empty: it is no daemon."""


class StateLock:
    """Held from construction to ``release``; the kernel releases it when the process dies.

    Raises:
        StateLocked: another process holds it; the message names it.
        StateDirectoryUnusable: the directory may not be used (``state_directory``), or the lock file not be written.
    """

    def __init__(self, directory: Path, *, socket: str) -> None:
        self._directory = directory
        prepare(directory)
        try:
            self._descriptor = open_lock(directory / LOCK_NAME, 0o640)
        except OSError as error:
            raise StateDirectoryUnusable(
                f"{directory}: cannot be used as state directory: {error.strerror}",
                hint="set [state] directory to one that this user may write",
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            holder = read_holder(directory)
            who = f"process {holder.pid}" if holder else "another process"
            answers = f", which answers on {holder.socket}" if holder and holder.socket else ""
            raise StateLocked(
                f"{directory} is in use by {who}{answers}",
                hint="speak to it with sleepctl, or stop it: systemctl stop sage-sleepd",
            ) from None
        try:
            # ``open_lock`` has seen that it is no larger than a lock and no link.
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, msgspec.json.encode(Holder(pid=os.getpid(), socket=socket)) + b"\n", 0)
        except OSError as error:
            os.close(self._descriptor)
            raise StateDirectoryUnusable(
                f"{directory / LOCK_NAME}: cannot be written: {error.strerror}",
                hint=f"make space: df -h {quoted(directory)}",
            ) from error

    def require_held(self) -> None:
        """See that the directory is still the one that was locked: it may have been removed and made again.

        Raises:
            StateDirectoryUnusable: it is gone, or another one stands in its place, which another process may hold.
        """
        try:
            is_held = os.path.samestat(os.fstat(self._descriptor), os.stat(self._directory / LOCK_NAME))
        except FileNotFoundError:
            is_held = False
        if not is_held:
            raise StateDirectoryUnusable(
                f"{self._directory} is not the directory that this process has locked: it was removed or replaced",
                hint="systemctl restart sage-sleepd, once the right directory is in its place",
            )

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._descriptor)


def read_holder(directory: Path) -> Holder | None:
    """Who wrote the lock file last; None: nobody did, or it cannot be read."""
    try:
        return msgspec.json.decode(read_document(directory / LOCK_NAME, MAX_LOCK_BYTES), type=Holder)
    except (OSError, *DECODE_ERRORS):
        return None
