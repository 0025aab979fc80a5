"""The sleeping itself, on one state directory: look at the buffer, decide, run a cycle, roll back.

The daemon gives this a life; ``SleepScheduler`` uses it without one. Whoever constructs it holds the directory's lock.
All methods run in one event loop; what takes long runs in threads or processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sleepd.clock import Clock
from sleepd.config.schema import Config
from sleepd.cycle import Event, State
from sleepd.errors import Busy, CheckpointInvalid, NothingToDo
from sleepd.log import get_logger
from sleepd.policy.promotion import Gates
from sleepd.policy.retention import Keep
from sleepd.policy.triggers import Facts, Policy, decide
from sleepd.protocol.control import Run, Thresholds
from sleepd.protocol.job import Job
from sleepd.protocol.status import CycleSummary, Decision, LastError
from sleepd.registry.compatibility import Fit
from sleepd.registry.demotion import Demotion
from sleepd.registry.operator_metrics import AddedMetrics
from sleepd.registry.prune import Keeping
from sleepd.store.adoption import adopt
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.rebuild_ledger import open_ledger
from sleepd.store.state_lock import StateLock

from .alarms import Alarms
from .buffer_summary import Intake
from .decision_facts import FactFinding
from .gpu_lock import GpuLock
from .history import History
from .planning import line_up
from .recovery import recover
from .repair import Mending, disk_error
from .resume import obstacle, staged_job
from .runner import CycleEnd, CycleRunner
from .switch_champion import InUse
from .worker_process import WorkerPolicy, worker_command

_PAUSED = "is_paused"


class Sleeper:
    """One state directory, in use.

    Args:
        config: the configuration in force; ``reconfigure`` replaces it.
        clock: where time comes from.
        listener: told of every past fact (name, fields): what ``subscribe`` streams.
        socket: where this process answers requests; empty: nowhere.
        worker: the command that starts a worker; None: the real one.

    Raises:
        StateLocked: another process runs on this state directory.
        SleepdError: the directory, the ledger or an older state cannot be used.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        listener: Callable[[str, dict[str, Any]], None],
        socket: str = "",
        worker: tuple[str, ...] | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self._listener = listener
        self._worker_command = worker
        self.directory = Path(config.state.directory)
        self._lock = StateLock(self.directory, socket=socket)
        self.checkpoints = Checkpoints(self.directory)
        self.ledger, troubles = open_ledger(self.directory, self.checkpoints, clock)
        troubles += [*adopt(self.ledger, self.checkpoints, clock), *recover(self.ledger, self.checkpoints, clock)]
        self.history = History(self.directory, self.ledger, self.checkpoints)
        self.keeping = Keeping(self.ledger, self.checkpoints)
        self.alarms = Alarms(self.ledger, clock)
        self.mending = Mending(self.ledger, self.checkpoints, clock, self.history, self.alarms)
        self.mending.write_history()
        self.fit = Fit(self.ledger, self.checkpoints)
        self.intake = Intake(config, self.history, clock, self.ledger, self.alarms)
        self._gpu = GpuLock()
        self.demotion = Demotion(self.ledger, self.checkpoints, clock)
        self.metrics = AddedMetrics(self.ledger, self.checkpoints, self.demotion)
        self.runner, self._in_use = self._parts_that_act()
        self.decision: Decision | None = None
        self.state_since = clock.now()
        self.last_error = self.history.newest_failure()
        if troubles:
            self.last_error = LastError(message=troubles[-1], hint="sleepctl history", at=clock.now())
        self._finding = FactFinding(
            self.directory, self.ledger, self.history, self.intake, self.fit, self._gpu, self.demotion, clock
        )
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[CycleEnd] | None = None
        self.running_cycle: int | None = None

    def _parts_that_act(self) -> tuple[CycleRunner, InUse]:
        runner = CycleRunner(
            ledger=self.ledger,
            checkpoints=self.checkpoints,
            clock=self.clock,
            demotion=self.demotion,
            listener=self._on_cycle_event,
        )
        return runner, InUse(
            ledger=self.ledger,
            checkpoints=self.checkpoints,
            runner=runner,
            mending=self.mending,
            fit=self.fit,
            history=self.history,
            demotion=self.demotion,
            listener=self._listener,
        )

    # --- looking and deciding ---

    async def look(self) -> Decision:
        """Read the buffer, count, decide; a changed decision is recorded with its facts."""
        self._lock.require_held()
        self.mending.catch_up()
        self._demote_if_pending()
        await self._take_in()
        await self._give_up_resuming()
        decision, was = self.decide(), self.decision
        if self.running_cycle is None:
            self.decision = None  # where it cannot be recorded, whoever asks gets a fresh one
        self.alarms.update(decision, self.config, last_sleep_at=self.history.last_sleep_at)
        if self.running_cycle is not None:
            return decision  # that a cycle keeps others out while it runs is no news
        if was is None or decision.essence != was.essence:
            self.ledger.record_decision(decision, self.facts(), at=self.clock.now())
            get_logger().info("decision_changed", text=decision.reason, should_sleep=decision.should_sleep)
            self._listener("decision_changed", {"reason": decision.reason, "should_sleep": decision.should_sleep})
        self.decision = decision
        return decision

    def decide(self, thresholds: Thresholds | None = None, *, force: bool = False) -> Decision:
        """The decision on the buffer as last read, without recording it."""
        policy = Policy.of(self.config, thresholds)
        return decide(self.facts(policy.min_salience), policy, force=force)

    def facts(self, min_salience: float | None = None) -> Facts:
        """What the decision rests on, now."""
        return self._finding.facts(
            self.config,
            min_salience=self.config.training.min_salience if min_salience is None else min_salience,
            is_paused=self.is_paused,
            running_cycle=self.running_cycle,
        )

    async def _take_in(self) -> None:
        was = self.intake.unreadable
        await self.intake.read()
        now = self.intake.unreadable
        if now is not None and (was is None or now.message != was.message):
            get_logger().error("buffer_unreadable", text=now.message, hint=now.hint)
            self.last_error = LastError(message=now.message, hint=now.hint, at=self.clock.now())
        elif now is None and was is not None:
            self.last_error = self.history.newest_failure()

    # --- one cycle ---

    async def begin(self, order: Run) -> int:
        """Start a cycle; returns its number. ``finished`` waits for its end.

        Raises:
            Busy: a cycle is under way, here or in another daemon.
            NothingToDo: it is not due, or something vetoes it.
            NotFound: no such strategy.
            SleepdError: the experiences cannot be read, or the cycle cannot be staged or recorded.
        """
        async with self._starting:
            if self.running_cycle is not None:
                raise Busy(f"cycle {self.running_cycle} is under way", hint="sleepctl status; sleepctl cancel stops it")
            await self.look()
            decision = self.decide(order.thresholds, force=order.force)
            if not decision.should_sleep:
                raise NothingToDo(decision.reason, hint="sleepctl check shows every condition")
            with self._gpu.taken(self.config.worker.gpu_lock):
                cut = self.suspended_cycle
                job = await self._stage(order) if cut is None else self._reopen(cut, order)
            self.running_cycle, self.state_since = job.cycle, self.clock.now()
            self._task = asyncio.create_task(self._finish(job))
            self._task.add_done_callback(partial(self._note_unrecorded, job.cycle))
            return job.cycle

    async def _stage(self, order: Run) -> Job:
        try:
            lineup = await line_up(
                order,
                self.config,
                ledger=self.ledger,
                checkpoints=self.checkpoints,
                history=self.history,
                intake=self.intake,
                unfit=self.fit.unfit(self.config.model.base),
                day=self.clock.now().astimezone().date(),
            )
            self.runner.begin(lineup)
        except CheckpointInvalid as error:
            raise self.mending.champion_damaged(error) from error
        except OSError as error:
            raise disk_error(error) from error
        return lineup.job

    def _reopen(self, cycle: int, order: Run) -> Job:
        if order.is_explicit:
            raise Busy(
                f"cycle {cycle} was cut short and goes on first, on the terms it began with",
                hint="sleepctl run continues it; sleepctl cancel discards it",
            )
        job = staged_job(self.checkpoints, cycle)
        if isinstance(job, str):
            raise NothingToDo(f"cycle {cycle} cannot go on: {job}", hint="sleepctl cancel discards it")
        self.runner.reopen(cycle)
        return job

    async def finished(self) -> CycleSummary | None:
        """The cycle under way, once it has ended; None: none is."""
        return None if self._task is None else (await asyncio.shield(self._task)).summary

    async def _finish(self, job: Job) -> CycleEnd:
        policy = WorkerPolicy(
            command=self._worker_command or worker_command(self.config.worker.python),
            silence_seconds=self.config.worker.silence_seconds,
            stop_seconds=self.config.worker.stop_seconds,
        )
        try:
            with self.mending.responsible():
                end = await self.runner.finish(job, policy, Gates.of(self.config.promotion, job))
        finally:
            self._gpu.release()
            self.running_cycle = None
            self.decision = None  # it spoke of the time before the cycle
            self.state_since = self.clock.now()
        if end.failure is not None:
            self.fit.note(end.failure, end.summary.parent, self.config.model.base)
        if end.summary.state == State.PROMOTED:
            self.demotion.forget()
        self._in_use.demote_after_cycle()
        self.last_error = self.history.newest_failure()
        self.history.forget_cached()
        self.mending.write_history()
        self.keeping.prune_after_cycle(Keep.of(self.config.state))
        await self.intake.recount()
        self._listener("cycle_ended", {"cycle": end.summary.cycle, "state": end.summary.state})
        return end

    def cancel(self) -> int:
        """Discard the cycle under way, or the one that was cut short; returns its number.

        Raises:
            NothingToDo: none is.
            Busy: it has ended, and its verdict is being written down.
        """
        if self.running_cycle is None:
            cycle = self.suspended_cycle
            if cycle is None:
                raise NothingToDo("no cycle is under way", hint="sleepctl status")
            self.runner.discard(cycle, Event.CANCEL, "cancelled")
            return cycle
        if not self.runner.stop(Event.CANCEL):
            raise Busy(f"cycle {self.running_cycle} has its verdict already", hint="sleepctl status; sleepctl rollback")
        return self.running_cycle

    @property
    def suspended_cycle(self) -> int | None:
        """The cycle that was cut short and goes on before anything new begins."""
        return self.ledger.suspended_cycle()

    async def _give_up_resuming(self) -> None:
        """Close a suspended cycle for which something it rests on is no longer so."""
        cycle, view = self.suspended_cycle, self.intake.view
        if cycle is None or self.running_cycle is not None or self.intake.problem or view.is_settling:
            return
        reason = await asyncio.to_thread(
            obstacle, cycle, self.ledger.placements(cycle), view, self.config.model.base, self.checkpoints
        )
        if reason:
            self.runner.discard(cycle, Event.INTERRUPT, f"it cannot go on: {reason}")

    # --- what is in use ---

    def rollback(self, to: int | None) -> tuple[int | None, int | None]:
        """Put an earlier champion in use, or one that was rolled back; 0: the base itself.

        Returns:
            The champion now and the one before; None is the base.

        Raises:
            Busy: a cycle is under way, and may be continuing the champion.
            NotFound: there is no such champion.
            NothingToDo: it is in use already.
        """
        if self.running_cycle is not None:
            raise Busy(f"cycle {self.running_cycle} is under way", hint="sleepctl cancel, then again")
        return self._in_use.roll_back(to)

    def _demote_if_pending(self) -> None:
        if self.running_cycle is None:
            self._in_use.demote_if_pending()

    # --- pausing, configuring, ending ---

    @property
    def is_paused(self) -> bool:
        """Whether the owner wants no cycle to start."""
        return bool(self.ledger.note(_PAUSED))

    def pause(self, *, is_paused: bool) -> None:
        """Start no cycle, or start cycles again; survives a restart."""
        self.ledger.set_note(_PAUSED, is_paused)
        self._listener("paused" if is_paused else "resumed", {})

    def reconfigure(self, config: Config) -> None:
        """Use another configuration from now on; a cycle under way keeps the one it began with."""
        self.config = config
        self.intake.reconfigure(config)

    async def end_cycle(self) -> None:
        """Suspend a cycle under way, and wait until it is; break off a screening."""
        await self.intake.quarantine.end()
        if self._task is not None and not self._task.done():
            self.runner.stop(Event.SUSPEND)
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Close the ledger and release the lock; no cycle may be under way."""
        self.ledger.close()
        self._lock.release()

    def _on_cycle_event(self, event: str, fields: dict[str, Any]) -> None:
        if event == "state":
            self.state_since = self.clock.now()
        self._listener(event, fields)

    def _note_unrecorded(self, cycle: int, task: asyncio.Task[CycleEnd]) -> None:
        if not task.cancelled() and task.exception() is not None:  # told already; ``repair`` has the rest
            self._listener("cycle_ended", {"cycle": cycle, "state": "not recorded"})
