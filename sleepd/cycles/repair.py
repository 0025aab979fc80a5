"""What a disk that failed left undone in a running daemon, done as soon as the disk takes it again.

A cycle whose end could not be recorded is closed, or gone on with, exactly as after a crash (``recovery``). Until that
is done nothing new begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sleepd.clock import Clock
from sleepd.errors import CheckpointInvalid, LedgerUnusable, StateDirectoryUnusable
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.ledger import Ledger

from .alarms import Alarms
from .history import PastCycles
from .recovery import fix_current, recover


class Repair:
    """The work left undone on one state directory; ``catch_up`` is called before each refresh."""

    def __init__(
        self, ledger: Ledger, checkpoints: Checkpoints, clock: Clock, history: PastCycles, alarms: Alarms
    ) -> None:
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._clock = clock
        self._history = history
        self._alarms = alarms
        self._failure = ""
        """What the disk said, where a recovery is pending; empty: none is."""
        self._owes_history = False

    @contextmanager
    def responsible(self) -> Iterator[None]:
        """If the disk fails the block, what stands on it and what the ledger says may differ: recovery is pending.

        Raises:
            SleepdError: the disk's error.
        """
        try:
            yield
        except (OSError, LedgerUnusable) as failure:
            error = disk_error(failure) if isinstance(failure, OSError) else failure
            self._failure = error.message
            self._alarms.note("state_not_recorded", f"{error.message}; nothing new begins until it is repaired")
            raise error from failure

    def write_history(self) -> None:
        """Bring ``scheduler_state.json`` up to date; where the disk does not take it, ``catch_up`` tries again."""
        try:
            self._history.write()
        except OSError as error:
            self._owes_history = True
            self._alarms.note("history_not_written", f"scheduler_state.json is not up to date: {error}")
        else:
            self._owes_history = False
            self._alarms.note("history_not_written", "")

    def champion_damaged(self, error: CheckpointInvalid) -> CheckpointInvalid:
        """Activate an intact champion where the one in use was found damaged; returns the message."""
        troubles = fix_current(self._ledger, self._checkpoints)
        self._history.forget_cached()
        return CheckpointInvalid(troubles[0] if troubles else error.message, hint=error.hint)

    def catch_up(self) -> None:
        """Do what is pending. While a recovery is, no cycle begins: a refresh comes first, and fails.

        Raises:
            SleepdError: the disk still does not take it.
        """
        if self._failure:
            cause = f"its end could not be recorded: {self._failure}"
            try:
                recover(self._ledger, self._checkpoints, self._clock, cause=cause)
            except OSError as error:
                raise disk_error(error) from error
            self._failure, self._owes_history = "", True
            self._history.forget_cached()
            self._alarms.note("state_not_recorded", "")
        if self._owes_history:
            self.write_history()


def disk_error(error: OSError) -> StateDirectoryUnusable:
    """The disk's error, and what to do."""
    return StateDirectoryUnusable(
        f"the disk did not take it: {error}", hint="make space in the state directory: df -h; it is tried again"
    )
