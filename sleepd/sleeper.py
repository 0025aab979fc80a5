"""The sleeping itself, on one state directory: look at the buffer, decide, run a cycle, roll back.

The daemon gives this a life; ``SleepScheduler`` uses it without one. Whoever constructs it holds the directory's lock.
All methods run in one event loop; what takes long runs in threads or processes.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from .buffer import ExperienceBuffer
from .checkpoints import Checkpoints
from .clock import Clock, Elapsed
from .config import Config
from .cycle import Event, State
from .cycle_runner import CycleEnd, CycleRunner, Lineup
from .errors import BufferUnreadable, Busy, NotFound, NothingToDo
from .history import History
from .lineup import line_up
from .lock import StateLock
from .log import get_logger
from .protocol import Run, Thresholds
from .rebuild import open_ledger
from .recovery import recover
from .selection import Counts, Known, count
from .status import CycleSummary, Decision, LastError
from .supervisor import WorkerPolicy, worker_command
from .triggers import Facts, Policy, cooldown_seconds, decide

_PAUSED = "is_paused"
_BASE_CHANGED = "base_changed"


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
        troubles += recover(self.ledger, self.checkpoints, clock)
        self.history = History(self.directory, self.ledger, self.checkpoints)
        self.history.write()
        self.buffer = self._open_buffer()
        self.runner = CycleRunner(
            ledger=self.ledger, checkpoints=self.checkpoints, clock=clock, listener=self._on_cycle_event
        )
        self.counts = Counts(total=0, new=0, eligible=0, unlearned=0, held_out=0)
        self._counted: tuple[object, object, object] = (None, None, None)
        self.buffer_problem = ""
        self.decision: Decision | None = None
        self.state_since = clock.now()
        self.last_error = self._newest_failure()
        for trouble in troubles:
            self.last_error = LastError(message=trouble, hint="sleepctl history", at=clock.now())
        self._since_sleep = Elapsed(clock)
        self._since_unjudged = Elapsed(clock)
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[CycleEnd] | None = None
        self.running_cycle: int | None = None

    # --- looking and deciding ---

    async def look(self) -> Decision:
        """Read the buffer, count, decide; a changed decision is recorded with its facts."""
        await self._read_buffer()
        decision = self.decide()
        if self.running_cycle is not None:
            return decision  # that a cycle keeps others out while it runs is no news
        if self.decision is None or _essence(decision) != _essence(self.decision):
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
        counts = self.counts
        if min_salience is not None and min_salience != self.config.training.min_salience:
            counts = self._count(self.history.known(), min_salience)
        unjudged = self.ledger.unjudged_in_a_row()
        cooldown = cooldown_seconds(self.config.triggers.cooldown_seconds, len(unjudged))
        if unjudged and unjudged[0].ended_at:
            cooldown -= self._since_unjudged.seconds_since(unjudged[0].ended_at)
        last = self.history.last_sleep_at
        return Facts(
            total=counts.total,
            new=counts.new,
            hours_since_last_sleep=None if last is None else self._since_sleep.seconds_since(last) / 3600,
            trainable=counts.unlearned,
            held_out=counts.held_out,
            is_paused=self.is_paused,
            running_cycle=self.running_cycle,
            cooldown_seconds_left=max(0.0, cooldown),
            unjudged_in_a_row=len(unjudged),
            last_ending=unjudged[0].state if unjudged else "",
            free_megabytes=shutil.disk_usage(self.directory).free // 10**6,
            base_changed=self._base_changed(),
            buffer_problem=self.buffer_problem or self.buffer.view.problem,
        )

    async def _read_buffer(self) -> None:
        try:
            view = await self.buffer.read()
        except BufferUnreadable as error:
            if error.message != self.buffer_problem:
                get_logger().error("buffer_unreadable", text=error.message, hint=error.hint)
                self.last_error = LastError(message=error.message, hint=error.hint, at=self.clock.now())
            self.buffer_problem = error.message
            return
        if self.buffer_problem:
            self.buffer_problem = ""
            self.last_error = self._newest_failure()
        self.history.take_first_look(view.keys)
        await self._recount()

    async def _recount(self) -> None:
        """Count again if the buffer, what is known of it, or the threshold is another."""
        known, min_salience = self.history.known(), self.config.training.min_salience
        basis = (self.buffer.view, known, min_salience)
        if all(one is other for one, other in zip(basis, self._counted, strict=True)):
            return
        # In a thread: a hundred thousand experiences take a while, and the loop must turn.
        self.counts = await asyncio.to_thread(self._count, known, min_salience)
        self._counted = basis

    def _count(self, known: Known, min_salience: float) -> Counts:
        view = self.buffer.view
        return count(view.keys, view.groups, view.saliences, known=known, min_salience=min_salience)

    # --- one cycle ---

    async def begin(self, order: Run) -> int:
        """Start a cycle; returns its number. ``finished`` waits for its end.

        Raises:
            Busy: a cycle is under way.
            NothingToDo: it is not due, or something vetoes it.
            NotFound: no such strategy.
            BufferUnreadable: the experiences cannot be read.
        """
        async with self._starting:
            if self.running_cycle is not None:
                raise Busy(f"cycle {self.running_cycle} is under way", hint="sleepctl status; sleepctl cancel stops it")
            await self.look()
            decision = self.decide(order.thresholds, force=order.force)
            if not decision.should_sleep:
                raise NothingToDo(decision.reason, hint="sleepctl check shows every condition")
            lineup = await line_up(
                order, self.config, checkpoints=self.checkpoints, history=self.history, buffer=self.buffer
            )
            try:
                self.runner.begin(lineup)
            except OSError as error:
                raise BufferUnreadable(
                    f"the cycle could not be staged: {error}", hint="make space in the state directory: df -h"
                ) from error
            self.running_cycle = lineup.job.cycle
            self.state_since = self.clock.now()
            self._task = asyncio.create_task(self._finish(lineup))
            return lineup.job.cycle

    async def finished(self) -> CycleSummary | None:
        """The cycle under way, once it has ended; None: none is."""
        if self._task is None:
            return None
        return (await asyncio.shield(self._task)).summary

    async def _finish(self, lineup: Lineup) -> CycleEnd:
        policy = WorkerPolicy(
            command=self._worker_command or worker_command(self.config.worker.python),
            silence_seconds=self.config.worker.silence_seconds,
            stop_seconds=self.config.worker.stop_seconds,
        )
        try:
            end = await self.runner.finish(lineup, policy)
        finally:
            self.running_cycle = None
            self.state_since = self.clock.now()
        if end.failure is not None and end.failure.kind == "base_changed":
            self.ledger.set_note(_BASE_CHANGED, [self.config.model.base, lineup.parent, end.failure.message])
        self.last_error = self._newest_failure()
        self.history.forget_cached()
        self.history.write()
        await self._recount()
        self._listener("cycle_ended", {"cycle": end.summary.cycle, "state": end.summary.state})
        return end

    def cancel(self) -> int:
        """Discard the cycle under way; returns its number.

        Raises:
            NothingToDo: none is.
            Busy: it has ended, and its verdict is being written down.
        """
        if self.running_cycle is None:
            raise NothingToDo("no cycle is under way", hint="sleepctl status")
        if not self.runner.stop(Event.CANCEL):
            raise Busy(f"cycle {self.running_cycle} has its verdict already", hint="sleepctl status; sleepctl rollback")
        return self.running_cycle

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
        was = self.checkpoints.champion()
        champions = [s for s in self.ledger.summaries() if s.state == State.PROMOTED]
        if to is None:
            if was is None:
                raise NothingToDo("the base itself is in use", hint="sleepctl history")
            to = next((s.cycle for s in champions if not s.is_rolled_back and s.cycle < was), 0)
        if to == (was or 0):
            raise NothingToDo(f"{'the base' if to == 0 else f'cycle {to}'} is in use already", hint="sleepctl history")
        if to != 0 and to not in [s.cycle for s in champions]:
            raise NotFound(f"cycle {to} never was a champion", hint="sleepctl history shows which were promoted")
        self._put_in_use(to, champions)
        self.ledger.set_note(_BASE_CHANGED, None)
        self.history.forget_cached()
        get_logger().warning("champion_rolled_back", champion=to or None, was=was)
        self._listener("champion_rolled_back", {"champion": to or None, "was": was})
        return to or None, was

    def _put_in_use(self, to: int, champions: list[CycleSummary]) -> None:
        """Everything up to ``to`` stands, everything above is retired; the link moves while both ends exist."""
        line = [cycle for cycle in self.ledger.lineage(to or None) if self.checkpoints.find(cycle)]
        for cycle in line:
            self.checkpoints.restore(cycle)
        self.checkpoints.promote(to or None)
        above = [summary.cycle for summary in champions if summary.cycle > to]
        for cycle in above:
            self.checkpoints.retire(cycle)
        self.ledger.mark_rolled_back(above, is_rolled_back=True)
        self.ledger.mark_rolled_back(line, is_rolled_back=False)

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
        buffer_changed = config.buffer != self.config.buffer
        self.config = config
        if buffer_changed:
            self.buffer = self._open_buffer()

    async def end_cycle(self) -> None:
        """Suspend a cycle under way, and wait until it is."""
        if self._task is not None and not self._task.done():
            self.runner.stop(Event.SUSPEND)
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Close the ledger and release the lock; no cycle may be under way."""
        self.ledger.close()
        self._lock.release()

    def _open_buffer(self) -> ExperienceBuffer:
        settings = self.config.buffer
        return ExperienceBuffer(Path(settings.path), patience_seconds=settings.patience_seconds, clock=self.clock)

    def _base_changed(self) -> str:
        noted = self.ledger.note(_BASE_CHANGED)
        if noted and noted[0] == self.config.model.base and noted[1] == self.checkpoints.champion():
            return f"{noted[2]} (sleepctl rollback 0 starts anew from the base)"
        return ""

    def _newest_failure(self) -> LastError | None:
        newest = next((each for each in self.ledger.unjudged_in_a_row() if each.state == State.FAILED), None)
        if newest is None:
            return None
        at: datetime = newest.ended_at or newest.started_at
        return LastError(message=f"cycle {newest.cycle} failed: {newest.reason}", hint=newest.hint, at=at)

    def _on_cycle_event(self, event: str, fields: dict[str, Any]) -> None:
        if event == "state":
            self.state_since = self.clock.now()
        self._listener(event, fields)


def _essence(decision: Decision) -> object:
    """What makes two decisions the same: not the figures, which change every minute."""
    return (
        decision.should_sleep,
        [(condition.name, condition.is_met) for condition in decision.conditions],
        [veto.name for veto in decision.vetoes],
    )
