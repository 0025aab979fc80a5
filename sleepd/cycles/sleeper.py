"""The service that runs cycles on one state directory: it reads the buffer, decides, runs a cycle, rolls back.

Rule 1: everything that changes the state directory goes through a method here.
Rule 2: one cycle at a time, and none while a recovery is pending.
Rule 3: all methods run in one event loop; what takes long runs in threads or processes.

The daemon calls it all its life; ``SleepScheduler`` and the self-test for one cycle. What is only asked goes to
``ReadModel``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from datetime import date
from functools import partial
from typing import Final

from sleepd.config.schema import Config
from sleepd.cycle import Event, State
from sleepd.errors import Busy, CheckpointInvalid, NothingToDo
from sleepd.log import get_logger
from sleepd.policy.judging.promotion import Gates
from sleepd.policy.retention import Keep
from sleepd.policy.timing.triggers import Decision, Thresholds
from sleepd.protocol.job import Job
from sleepd.registry.operator_metrics import MetricEffect
from sleepd.registry.prune import PrunedWeights
from sleepd.registry.strategy_choice import adopt_better
from sleepd.store.sqlite.ledger_rows import CycleRecord
from sleepd.store.sqlite.notes import PAUSED

from .composition import Parts
from .history import NotedError
from .quarantine_override import OverrideDone, Verb, override
from .repair import disk_error
from .running.pair import spokesman
from .running.pair_planning import line_up_order
from .running.planning import Order
from .running.resume import obstacle, staged_job
from .running.staging import Lineup
from .running.trial import line_up_foreign, note_judged
from .running.worker_engine import engine_policy

_ABOUT_TRAINING: Final = frozenset({"nothing_to_train", "nothing_to_measure", "cooling_down", "trains_nothing"})
"""Vetoes that do not hold back a cycle that trains nothing."""


class Sleeper:
    """The service on one state directory.

    Args:
        parts: what works there; see ``composition``.
        worker: the command that starts a worker; None: the real one.
    """

    def __init__(self, parts: Parts, *, worker: tuple[str, ...] | None = None) -> None:
        self._parts = parts
        self._state = parts.state
        self._worker_command = worker
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[CycleRecord] | None = None

    # --- reading and deciding ---

    async def refresh(self) -> Decision:
        """Read the buffer, count, decide; a changed decision is recorded with its facts.

        Raises:
            SleepdError: a recovery is pending and the disk still fails, or the ledger cannot be written.
        """
        parts, state = self._parts, self._state
        parts.lock.require_held()
        parts.repair.catch_up()
        if state.running_cycle is None:
            parts.switch.demote_if_pending()
        await self._take_in()
        await self._give_up_resuming()
        (decision, facts), was = parts.finding.decide_with_facts(), state.decision
        if state.running_cycle is None:
            state.decision = None  # where it cannot be recorded, whoever asks gets a fresh one
        parts.looks.record(facts, at=parts.clock.now())
        parts.alarms.update(decision, state.config, last_sleep_at=parts.history.last_sleep_at)
        if state.running_cycle is not None:
            return decision  # that a cycle keeps others out while it runs is no news
        if was is None or decision.change_key != was.change_key:
            parts.ledger.record_decision(decision, facts, at=parts.clock.now())
            get_logger().info("decision_changed", text=decision.reason, should_sleep=decision.should_sleep)
            parts.listener("decision_changed", {"reason": decision.reason, "should_sleep": decision.should_sleep})
        state.decision = decision
        return decision

    def decide(self, thresholds: Thresholds | None = None, *, force: bool = False) -> Decision:
        """The decision on the buffer as last read, without recording it."""
        return self._parts.finding.decide(thresholds, force=force)

    async def _take_in(self) -> None:
        intake, was = self._parts.intake, self._parts.intake.unreadable
        await intake.read()
        now = intake.unreadable
        if now is not None and (was is None or now.message != was.message):
            get_logger().error("buffer_unreadable", text=now.message, hint=now.hint)
            self.note_error(now.message, now.hint)
        elif now is None and was is not None:
            self._state.last_error = self._parts.history.newest_failure()

    async def keep_served(self) -> None:
        """As ``Deployer.run``: bring the engine to what is in use, for ever."""
        await self._parts.deployer.run()

    def serve_anew(self) -> None:
        """What is in use may have changed: the engine is asked soon."""
        self._parts.deployer.resume()

    # --- one cycle ---

    async def begin(self, order: Order) -> int:
        """Start a cycle; returns its number. ``finished`` waits for its end.

        Raises:
            Busy: a cycle is under way, here or in another daemon.
            NothingToDo: it is not due, or something vetoes it.
            NotFound: no such strategy.
            SleepdError: the experiences cannot be read, or the cycle cannot be staged or recorded.
        """
        state = self._state
        async with self._starting:
            if state.running_cycle is not None:
                under_way = f"cycle {state.running_cycle} is under way"
                raise Busy(under_way, hint="sleepctl status; sleepctl cancel stops it")
            decision = await self.refresh()
            if order.force or order.thresholds != Thresholds():
                decision = self.decide(order.thresholds, force=order.force)
            if not decision.should_sleep:
                raise NothingToDo(decision.reason, hint="sleepctl check shows every condition")
            with self._parts.gpu.taken(state.config.worker.own_gpu_lock):
                cut = self._suspended_cycle
                if cut is None:
                    job = await self._stage(line_up_order(order, state.config, self._parts.sources, day=self._today))
                else:
                    job = self._reopen(cut, order)
            return self._launch(job)

    def _launch(self, job: Job) -> int:
        self._note_begun(job.cycle)
        self._task = asyncio.create_task(self._finish(job))
        self._task.add_done_callback(partial(self._note_unrecorded, job.cycle))
        return job.cycle

    async def begin_judging(self, beginning: str) -> int:
        """Start a cycle that judges the imported bundle whose id begins so; returns its number.

        Raises:
            Busy: another daemon trains, or a cycle was interrupted.
            NothingToDo: something vetoes it.
            SleepdError: as ``line_up_foreign``, or the cycle cannot be staged or recorded.
        """
        async with self._starting:
            if self._suspended_cycle is not None:
                raise Busy(f"cycle {self._suspended_cycle} was interrupted and is resumed first", hint="sleepctl run")
            await self.refresh()
            held = [each for each in self.decide(force=True).vetoes if each.name not in _ABOUT_TRAINING]
            if held:
                raise NothingToDo(held[0].text, hint="sleepctl check shows every condition")
            with self._parts.gpu.taken(self._state.config.worker.own_gpu_lock):
                foreign = line_up_foreign(beginning, self._state.config, self._parts.sources, day=self._today)
                job = await self._stage(foreign)
            return self._launch(job)

    @property
    def _today(self) -> date:
        return self._parts.clock.now().astimezone().date()

    async def _stage(self, planned: Awaitable[list[Lineup]]) -> Job:
        parts = self._parts
        try:
            lineups = await planned
            parts.runner.begin(*lineups)
        except CheckpointInvalid as error:
            raise parts.repair.champion_damaged(error) from error
        except OSError as error:
            raise disk_error(error) from error
        return lineups[0].job

    def _reopen(self, cycle: int, order: Order) -> Job:
        if order.is_explicit:
            raise Busy(
                f"cycle {cycle} was interrupted and is resumed first, on the terms it began with",
                hint="sleepctl run continues it; sleepctl cancel discards it",
            )
        job = staged_job(self._parts.checkpoints, cycle)
        if isinstance(job, str):
            raise NothingToDo(f"cycle {cycle} cannot go on: {job}", hint="sleepctl cancel discards it")
        self._parts.runner.reopen(cycle)
        return job

    async def finished(self) -> CycleRecord | None:
        """The cycle under way, once it has ended, or the better one of a pair; None: none is."""
        return None if self._task is None else await asyncio.shield(self._task)

    async def _finish(self, job: Job) -> CycleRecord:
        parts, state = self._parts, self._state
        policy = engine_policy(state.config, self._worker_command)
        try:
            if state.config.worker.engine == "local":
                await parts.deployer.free()
            with parts.repair.responsible():
                ends = await parts.pairs.finish(job, policy, Gates.of(state.config.promotion, job), self._note_begun)
        finally:
            parts.gpu.release()
            state.running_cycle = None
            state.decision = None  # it spoke of the time before the cycle
            state.state_since = parts.clock.now()
        for end in ends:
            if job.foreign:
                await asyncio.to_thread(note_judged, job, end.summary.state)
            elif end.failure is not None:
                parts.fit.note(end.failure, end.summary.parent, state.config.model.base)
            if end.summary.state is State.PROMOTED:
                parts.demotion.forget()
        parts.switch.demote_after_cycle()
        state.last_error = parts.history.newest_failure()
        parts.history.forget_cached()
        parts.repair.write_history()
        adopt_better(state.config, parts.ledger, parts.clock.now())
        parts.keeping.prune_after_cycle(Keep.of(state.config.state))
        await parts.intake.recount()
        for end in ends:
            parts.listener("cycle_ended", {"cycle": end.summary.cycle, "state": end.summary.state})
        return spokesman(end.summary for end in ends)

    def _note_begun(self, cycle: int) -> None:
        self._state.running_cycle, self._state.state_since = cycle, self._parts.clock.now()

    def _note_unrecorded(self, cycle: int, task: asyncio.Task[CycleRecord]) -> None:
        if not task.cancelled() and task.exception() is not None:  # logged already; ``repair`` does the rest
            self._parts.listener("cycle_ended", {"cycle": cycle, "state": "not recorded"})

    def cancel(self) -> int:
        """Discard the cycle under way, or the interrupted one; returns its number.

        Raises:
            NothingToDo: none is.
            Busy: it has ended, and its verdict is being written down.
        """
        running = self._state.running_cycle
        if running is None:
            if (cycle := self._suspended_cycle) is None:
                raise NothingToDo("no cycle is under way", hint="sleepctl status")
            self._parts.runner.discard(cycle, Event.CANCEL, "cancelled")
            return cycle
        if not self._parts.runner.stop(Event.CANCEL):
            raise Busy(f"cycle {running} has its verdict already", hint="sleepctl status; sleepctl rollback")
        return running

    @property
    def _suspended_cycle(self) -> int | None:
        """The interrupted cycle, which is resumed before anything new begins."""
        return self._parts.ledger.suspended_cycle()

    async def _give_up_resuming(self) -> None:
        """Close a suspended cycle for which something it rests on is no longer so."""
        parts, cycle = self._parts, self._suspended_cycle
        view = parts.intake.view
        if cycle is None or self._state.running_cycle is not None or parts.intake.problem or view.is_settling:
            return
        config, assigned = self._state.config, parts.ledger.assignments(cycle)
        reason = await asyncio.to_thread(obstacle, cycle, assigned, view, config, parts.checkpoints)
        if reason:
            parts.runner.discard(cycle, Event.INTERRUPT, f"it cannot go on: {reason}")

    # --- orders that change something beside a cycle ---

    def rollback(self, to: int | None) -> tuple[int | None, int | None]:
        """Put an earlier champion in use, or one that was rolled back; 0: the base itself.

        Returns:
            The champion now and the one before; None is the base.

        Raises:
            Busy: a cycle is under way, and may be continuing the champion.
            NotFound: there is no such champion.
            NothingToDo: it is in use already.
        """
        if self._state.running_cycle is not None:
            raise Busy(f"cycle {self._state.running_cycle} is under way", hint="sleepctl cancel, then again")
        return self._parts.switch.roll_back(to)

    async def recount_said_under(self, cycle: int) -> int:
        """As ``Intake.quarantine_said_under``: count anew after a rollback of ``cycle``."""
        return await self._parts.intake.quarantine_said_under(cycle)

    def tag(self, cycle: int, name: str | None) -> str | None:
        """As ``Keeping.tag``: give the cycle a tag, or (None) take it away; returns the one before."""
        return self._parts.keeping.tag(cycle, name)

    def prune(self, keep: int | None, *, is_dry_run: bool) -> list[PrunedWeights]:
        """As ``Keeping.prune``; ``keep`` promoted checkpoints, None: as many as configured."""
        return self._parts.keeping.prune(Keep.of(self._state.config.state, keep), is_dry_run=is_dry_run)

    def add_metric(self, cycle: int, name: str, value: float | None) -> MetricEffect:
        """As ``AddedMetrics.add``; the next ``refresh`` rolls back a champion that breaks a limit by it."""
        return self._parts.metrics.add(cycle, name, value, at=self._parts.clock.now(), config=self._state.config)

    async def override_quarantine(self, identifiers: Iterable[str], verb: Verb) -> OverrideDone:
        """As ``quarantine_override.override``: release or drop experiences, or take that back."""
        return await override(self._parts, identifiers, verb)

    # --- pausing, configuring, reporting, ending ---

    def pause(self, *, is_paused: bool) -> None:
        """Start no cycle, or start cycles again; survives a restart."""
        self._parts.ledger.set_note(PAUSED, is_paused)
        self._parts.listener("paused" if is_paused else "resumed", {})

    def reconfigure(self, config: Config) -> None:
        """Use another configuration from now on; a cycle under way keeps the one it began with."""
        self._state.config = config
        self._parts.intake.reconfigure(config)
        self._parts.deployer.reconfigure(config)

    def note_error(self, message: str, hint: str) -> NotedError:
        """Show an error in the status until something newer takes its place."""
        self._state.last_error = NotedError(message=message, hint=hint, at=self._parts.clock.now())
        return self._state.last_error

    def forget_error(self, error: NotedError) -> None:
        """The cause of ``error`` is over: where it is still shown, the newest failure of a cycle is shown instead."""
        if self._state.last_error is error:
            self._state.last_error = self._parts.history.newest_failure()

    def note_alarm(self, name: str, text: str) -> None:
        """As ``Alarms.note``: something lasts from now on, or, with an empty text, no longer."""
        self._parts.alarms.note(name, text)

    def kill_worker(self) -> None:
        """Stop the worker without waiting for its consent; its cycle ends as ``end_cycle`` decides."""
        self._parts.runner.kill()

    async def end_cycle(self) -> None:
        """Suspend a cycle under way, and wait until it is; break off a screening."""
        await self._parts.intake.quarantine.end()
        if self._task is not None and not self._task.done():
            self._parts.runner.stop(Event.SUSPEND)
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Close the ledger and release the lock; no cycle may be under way."""
        self._parts.ledger.close()
        self._parts.lock.release()
