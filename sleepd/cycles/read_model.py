"""What the views ask about one state directory. Nothing here changes anything, in memory or on disk.

The answers are the core's own structures; the daemon's views make the wire's of them.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sleepd.config.schema import Config
from sleepd.cycle import State
from sleepd.errors import CheckpointInvalid
from sleepd.policy.timing.forecast import Forecast, forecast
from sleepd.policy.timing.overdue import ActiveAlarm
from sleepd.policy.timing.simulation import Look
from sleepd.policy.timing.triggers import Decision
from sleepd.protocol.deployment.serve_messages import ServedSpan, ServedState
from sleepd.protocol.job import Progress, Report
from sleepd.protocol.verdict import AddedMetric, Comparison, Verdict
from sleepd.registry.rollback import undo_of
from sleepd.registry.strategy_choice import adopted_strategy
from sleepd.store.checkpoint_documents import assignments_of, evaluation_of, released_of
from sleepd.store.checkpoints import has_weights, read_manifest
from sleepd.store.legacy_formats import SleepEntry
from sleepd.store.sqlite.ledger_rows import CycleRecord, RecordedDecision, SplitAssignment
from sleepd.store.sqlite.notes import AlarmSpan

from .buffer_read_model import BufferReadModel
from .composition import Parts
from .history import NotedError
from .running.pair import spokesman

RATE_OVER = timedelta(days=7)
"""How far back experiences are counted to foresee the next sleep."""


class ReadModel:
    """The state of the service, its decisions, champion and cycles; of the buffer: ``buffer``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.buffer = BufferReadModel(parts)

    # --- the service ---

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._parts.state.config

    @property
    def directory(self) -> Path:
        """The state directory."""
        return self._parts.directory

    @property
    def free_bytes(self) -> int:
        """On the disk of the state directory."""
        return shutil.disk_usage(self._parts.directory).free

    @property
    def now(self) -> datetime:
        """The service's clock."""
        return self._parts.clock.now()

    @property
    def is_paused(self) -> bool:
        """Whether the operator wants no cycle to start."""
        return self._parts.finding.is_paused

    @property
    def running_cycle(self) -> int | None:
        """The cycle under way."""
        return self._parts.state.running_cycle

    @property
    def suspended_cycle(self) -> int | None:
        """The interrupted cycle, which is resumed before anything new begins."""
        return self._parts.ledger.suspended_cycle()

    @property
    def state_since(self) -> datetime:
        """When the cycle under way changed its state, or when the last one ended."""
        return self._parts.state.state_since

    @property
    def progress(self) -> Progress | None:
        """Where the worker stands; None: none is running."""
        return self._parts.runner.progress

    @property
    def last_error(self) -> NotedError | None:
        """The newest thing that went wrong and has not gone right since."""
        return self._parts.state.last_error

    @property
    def decision(self) -> Decision:
        """The last recorded decision, or, where none is known, one on the buffer as last read."""
        return self._parts.state.decision or self._parts.finding.decide()

    def decisions(self, *, limit: int, since: datetime | None = None) -> list[RecordedDecision]:
        """The recorded decisions, newest first; those from ``since`` on."""
        return self._parts.ledger.decisions(limit=limit, since=since)

    def looks(self, since: datetime) -> list[Look]:
        """The recorded facts from then on, oldest first."""
        return self._parts.looks.since(since)

    def spread_looks(self, most: int) -> list[Look]:
        """At most so many of the recorded facts, evenly spread over time, oldest first."""
        return self._parts.looks.spread(most)

    def forecast(self) -> Forecast:
        """When the next sleep is expected, by the rate of the last week."""
        decision, facts = self._parts.finding.decide_with_facts()
        return forecast(self.looks(self.now - RATE_OVER), facts, decision, self.now)

    def begun_since(self, since: datetime) -> int:
        """How many cycles began from then on."""
        return self._parts.ledger.begun_between(since, self.now)

    def active_alarms(self) -> list[ActiveAlarm]:
        """Everything that the operator should know."""
        return [*self._parts.alarms.active, *self._parts.demotion.alarms]

    def past_alarms(self, *, limit: int, since: datetime | None = None) -> list[AlarmSpan]:
        """Those that lasted at a poll, newest first; those that began from ``since`` on."""
        return [each for each in self._parts.alarms.past if since is None or each.since >= since][:limit]

    # --- the engine ---

    @property
    def serving(self) -> ServedState | None:
        """What the engine runs, as far as that is proved; None: no engine is configured."""
        return self._parts.deployer.state

    def served(self, *, limit: int) -> list[ServedSpan]:
        """What it was proved to run, from when to when, newest first."""
        return self._parts.deployer.table.spans(limit=limit)

    def served_of(self, cycle: int) -> list[ServedSpan]:
        """When it was proved to run that cycle, newest first."""
        return self._parts.deployer.table.spans_of(cycle)

    # --- cycles ---

    @property
    def total_cycles(self) -> int:
        """Judged cycles, those of an older scheduler included."""
        return self._parts.history.total_cycles

    @property
    def endings(self) -> dict[str, int]:
        """As ``History.endings``."""
        return self._parts.history.endings

    @property
    def last_sleep_at(self) -> datetime | None:
        """When the last judged cycle ended; None: there was none."""
        return self._parts.history.last_sleep_at

    def state(self, cycle: int) -> State:
        """As ``Ledger.state``: NotFound where there is no such cycle."""
        return self._parts.ledger.state(cycle)

    def record(self, cycle: int) -> CycleRecord:
        """As ``Ledger.summary``: NotFound where there is no such cycle."""
        return self._parts.ledger.summary(cycle)

    def outcome(self, cycle: int) -> tuple[CycleRecord, CycleRecord | None]:
        """What a cycle came to: the cycle that speaks for its pair, and the other one; None: it is in no pair."""
        record = self.record(cycle)
        if record.rival is None:
            return record, None
        both = (record, self.record(record.rival))
        shown = spokesman(both)
        return shown, both[shown is both[0]]

    def records(self, *, limit: int, before: int | None = None) -> list[CycleRecord]:
        """The cycles (below ``before``), newest first."""
        return self._parts.ledger.summaries(limit=limit, before=before)

    def report(self, cycle: int) -> Report | None:
        """What the worker reported; None: nothing."""
        return self._parts.ledger.report(cycle)

    def evaluation(self, cycle: int) -> tuple[Report | None, Verdict | None]:
        """Report and verdict, from the ledger or from the checkpoint."""
        return evaluation_of(cycle, self._parts.ledger, self._parts.checkpoints)

    def assignments(self, cycle: int) -> list[SplitAssignment]:
        """Where each experience went in that cycle, from the ledger or from the checkpoint."""
        return assignments_of(cycle, self._parts.ledger, self._parts.checkpoints)

    def released(self, cycle: int) -> list[str]:
        """Ids of what it trained and an earlier cycle had held out."""
        return released_of(cycle, self._parts.ledger, self._parts.checkpoints)

    def metrics(self, cycle: int) -> list[AddedMetric]:
        """The figures that the operator added."""
        return self._parts.metrics.shown(cycle)

    @property
    def tags(self) -> dict[int, str]:
        """The operator's tags by cycle."""
        return self._parts.keeping.shown_tags()

    def path(self, cycle: int) -> Path | None:
        """Where its files stand; None: nothing was kept."""
        return self._parts.checkpoints.find(cycle)

    def is_pruned(self, cycle: int) -> bool:
        """Whether its files are there without the weights."""
        path = self.path(cycle)
        return path is not None and not has_weights(path)

    def undo(self, cycle: int) -> str:
        """The command that undoes it; empty: there is nothing to undo."""
        return undo_of(cycle, self._parts.ledger, self._parts.checkpoints)

    # --- the champion ---

    def champion(self) -> int | None:
        """The cycle in use; None: the base itself.

        Raises:
            CheckpointInvalid: ``current`` is damaged.
        """
        return self._parts.checkpoints.champion()

    def promoted_path(self, cycle: int) -> Path:
        """Where a champion's files stand."""
        return self._parts.checkpoints.promoted_path(cycle)

    def comparison(self, cycle: int) -> tuple[Comparison, int] | None:
        """The comparison of that champion on later experiences, and the cycle that made it; None: there is none yet."""
        return self._parts.demotion.comparison(cycle, self.config.promotion.confidence)

    def is_on_probation(self, cycle: int) -> bool:
        """Whether it was promoted on probation, and later experiences have not confirmed it."""
        return self._parts.demotion.is_on_probation(cycle, self.config.promotion.confidence)

    def why_new_lineage(self) -> str:
        """Why the next cycle does not continue the champion; empty: it does, or its files are damaged."""
        try:
            return self._parts.fit.why_new_lineage(self.config)
        except CheckpointInvalid:
            return ""  # the next cycle meets the damage itself, and reports it

    @property
    def adopted_strategy(self) -> str:
        """Which strategy replaces the configured one, and why, in a sentence; empty: none does."""
        found = adopted_strategy(self.config, self._parts.ledger)
        return "" if found is None else f"{found.text} (since {found.at:%Y-%m-%d}; training.adopt_better)"

    # --- what an older trainer left ---

    def adopted(self) -> list[int]:
        """The cycles of an older trainer that were adopted."""
        return self._parts.checkpoints.adopted()

    def imported_entries(self) -> list[SleepEntry]:
        """The older scheduler's history, oldest first."""
        return self._parts.history.imported_entries()

    def adopted_at(self, cycle: int) -> datetime:
        """When it was adopted."""
        path = self.promoted_path(cycle)
        try:
            return datetime.fromisoformat(read_manifest(path).created_at)
        except (CheckpointInvalid, ValueError):
            # Our record is damaged; the folder's own time is the next best.
            return datetime.fromtimestamp(path.lstat().st_mtime, UTC)

    def measured_by(self, cycle: int) -> CycleRecord | None:
        """The first judged cycle that continued an adopted one, which measured it beside the base."""
        return next((each for each in reversed(self._parts.ledger.judged(limit=-1)) if each.parent == cycle), None)
