"""What earlier sleeps left behind: the ledger, and before it the older scheduler's ``scheduler_state.json``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec

from sleepd.buffer.reading.view import View
from sleepd.cycle import JUDGED_STATES, TERMINAL_STATES, State
from sleepd.errors import CheckpointInvalid
from sleepd.log import get_logger
from sleepd.policy.selecting.selection import HashSet, Known
from sleepd.policy.timing.thresholds import CYCLES, Judged, Trend, trend
from sleepd.store.adoption import note_trained, older_directories
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.legacy_formats import (
    SchedulerState,
    SleepEntry,
    from_local,
    read_scheduler_state,
    read_training_state,
    sleep_entry,
    write_scheduler_state,
)
from sleepd.store.split_secret import split_secret
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.ledger_rows import CycleRecord
from sleepd.store.sqlite.notes import IMPORTED_SEEN, IMPORTED_STATE

from .running.pair import spokesman
from .running.resume import crashes

KEPT_ENTRIES = 50
"""In ``scheduler_state.json``; the ledger keeps all."""


class NotedError(msgspec.Struct, frozen=True, kw_only=True):
    """The newest thing that went wrong and has not gone right since."""

    message: str
    hint: str
    at: datetime


class PastCycles:
    """The past of one state directory.

    Raises:
        CheckpointInvalid: an older ``scheduler_state.json`` is there and cannot be understood.
        StateDirectoryUnusable: the secret of the holdout is there and cannot be read.
    """

    def __init__(self, directory: Path, ledger: Ledger, checkpoints: Checkpoints) -> None:
        self._directory = directory
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._known: Known | None = None
        self._secret = split_secret(directory)
        self._imported = SchedulerState()
        self._import()

    def _import(self) -> None:
        """Take over the older state, once: afterwards that file is ours."""
        noted = self._ledger.note(IMPORTED_STATE)
        if noted is not None:
            self._imported = noted
            return
        found = read_scheduler_state(self._directory)
        if found is None or not found.total_sleep_cycles:
            found = self._read_older_checkpoints() or found
        self._imported = self._without_ours(found) if found else SchedulerState()
        self._ledger.set_note(IMPORTED_STATE, self._imported)
        if self._imported.total_sleep_cycles:
            get_logger().info(
                "older_state_imported",
                text=f"{self._imported.total_sleep_cycles} sleeps so far, the last at {self._imported.last_sleep_time}",
            )

    def _read_older_checkpoints(self) -> SchedulerState | None:
        """The newest history that an older trainer's checkpoints carry."""
        for path in older_directories(self._directory):
            try:
                found = read_training_state(path)
            except CheckpointInvalid as error:
                get_logger().warning("older_history_left_out", text=error.message)
                continue
            if found is not None:
                return found
        return None

    def _without_ours(self, state: SchedulerState) -> SchedulerState:
        """The older scheduler's part of a file to which we have added: the ledger is new, but we are not."""
        ours = {summary.cycle for summary in self._ledger.judged(limit=-1, is_own=True)}
        if not ours:
            return state
        theirs = [entry for entry in state.sleep_history if entry.cycle not in ours]
        return SchedulerState(
            last_sleep_time=theirs[-1].timestamp if theirs else None,
            last_sleep_cycle=theirs[-1].cycle if theirs else 0,
            total_sleep_cycles=max(0, state.total_sleep_cycles - len(ours)),
            sleep_history=theirs,
        )

    def take_first_poll(self, view: View) -> None:
        """Note which experiences the older scheduler had seen: the first so many of the buffer, as it counted.

        Where nobody knows how many, it is all that are there: what is new is then what comes from now on.
        """
        has_slept = self._imported.total_sleep_cycles > 0 or bool(self._checkpoints.adopted())
        if not has_slept or view.form == "absent" or self._ledger.note(IMPORTED_SEEN) is not None:
            return
        count = self._imported.experiences_at_last_sleep if self._imported.total_sleep_cycles else None
        note_trained(self._ledger, self._checkpoints, view, count=count)
        self._ledger.set_note(IMPORTED_SEEN, list(islice(view.keys, count)))
        self.forget_cached()
        self.write()

    def forget_cached(self) -> None:
        """Look again: a cycle ended, or the champion changed."""
        self._known = None

    def known(self) -> Known:
        """What is seen, learned and held out."""
        if self._known is None:
            judged = self._ledger.last_judged()
            imported = self._ledger.note(IMPORTED_SEEN) or []
            seen = self._ledger.seen(judged.cycle) if judged else imported
            self._known = Known(
                seen=HashSet(seen),
                learned=HashSet(self._ledger.learned(self._checkpoints.champion())),
                splits=self._ledger.recorded_splits(),
                secret=self._secret,
            )
        return self._known

    def champion_directory(self) -> Path | None:
        """Of the cycle in use; None: the base itself.

        Raises:
            CheckpointInvalid: ``current`` is damaged.
        """
        champion = self._checkpoints.champion()
        return None if champion is None else self._checkpoints.promoted_path(champion)

    def newest_failure(self) -> NotedError | None:
        """The newest cycle that failed or was cut short by a death, where nothing was judged since."""
        suspended = self._ledger.suspended_cycle()
        if suspended is not None and (cut := self._ledger.summary(suspended)).hint:
            at = crashes(self._ledger, suspended).at or cut.started_at
            return NotedError(message=f"cycle {suspended} was interrupted: {cut.reason}", hint=cut.hint, at=at)
        newest = next((each for each in self._ledger.unjudged_in_a_row() if each.state == State.FAILED), None)
        if newest is None:
            return None
        at = newest.ended_at or newest.started_at
        return NotedError(message=f"cycle {newest.cycle} failed: {newest.reason}", hint=newest.hint, at=at)

    @property
    def last_sleep_at(self) -> datetime | None:
        """When the last judged cycle ended, in UTC; None: there was none."""
        judged = self._ledger.last_judged()
        if judged:
            return judged.ended_at
        return from_local(self._imported.last_sleep_time) if self._imported.last_sleep_time else None

    @property
    def trend(self) -> Trend:
        """How the last cycles with a verdict went."""
        judged = self._ledger.judged(limit=2 * CYCLES, is_own=True)
        return trend([_judged(each) for each in without_losers(judged)][:CYCLES])

    @property
    def total_cycles(self) -> int:
        """Judged cycles, those of the older scheduler included."""
        return self._imported.total_sleep_cycles + sum(self.endings.get(state, 0) for state in JUDGED_STATES)

    @property
    def endings(self) -> dict[str, int]:
        """How many cycles of this machine's own ended in each way."""
        return {state: number for state, number in self._ledger.own_by_state().items() if state in TERMINAL_STATES}

    def next_cycle(self) -> int:
        """A number that no cycle has borne."""
        older = (self._imported.last_sleep_cycle, *(entry.cycle for entry in self._imported.sleep_history))
        return 1 + max(self._ledger.highest_cycle(), self._checkpoints.highest_number(), *older)

    def imported_entries(self) -> list[SleepEntry]:
        """The older scheduler's history, oldest first; its losses are over whole sequences."""
        return self._imported.sleep_history

    def entries(self) -> list[SleepEntry]:
        """All judged sleeps in the older words, oldest first."""
        judged = reversed(self._ledger.judged(limit=KEPT_ENTRIES, is_own=True))
        ours = [sleep_entry(summary, self._ledger.report(summary.cycle)) for summary in judged]
        return [*self._imported.sleep_history, *ours]

    def write(self) -> None:
        """Bring ``scheduler_state.json`` up to date."""
        judged = self._ledger.last_judged()
        if judged is None:
            self._write_imported()
            return
        assert judged.ended_at is not None
        entries = self.entries()
        state = SchedulerState(
            last_sleep_time=entries[-1].timestamp,
            last_sleep_cycle=judged.cycle,
            experiences_at_last_sleep=len(self._ledger.seen(judged.cycle)),
            total_sleep_cycles=self.total_cycles,
            sleep_history=entries[-KEPT_ENTRIES:],
        )
        write_scheduler_state(self._directory, state)

    def _write_imported(self) -> None:
        """Before the first cycle of ours: what only the older checkpoints had, for whoever reads that file alone."""
        seen = self._ledger.note(IMPORTED_SEEN)
        if seen is None or not self._imported.total_sleep_cycles:
            return
        written = read_scheduler_state(self._directory)
        if written is None or not written.total_sleep_cycles:
            state = msgspec.structs.replace(self._imported, experiences_at_last_sleep=len(seen))
            write_scheduler_state(self._directory, state)


def without_losers(newest_first: Sequence[CycleRecord]) -> list[CycleRecord]:
    """Of each pair only the cycle that speaks for both: that the other one was not as good says nothing of the data."""
    by_number = {each.cycle: each for each in newest_first}
    pairs = ((each, by_number.get(each.rival or 0, each)) for each in newest_first)
    return [each for each, rival in pairs if spokesman((each, rival)) is each]


def _judged(record: CycleRecord) -> Judged:
    def gain(before: float | None, after: float | None) -> float | None:
        return None if before is None or after is None else before - after

    return Judged(
        outcome=record.state,
        gain=gain(record.holdout_before, record.holdout_after),
        trained_gain=gain(record.train_before, record.train_after),
    )
