"""One sleep cycle from plan to end: what is staged, how the worker's outcome ends it, and what is written when.

Rule 1: one cycle at a time.
Rule 2: a cycle that is in the ledger has its job and its experiences on disk.
Rule 3: every way out of ``finish`` leaves an end in the ledger, or raises; what raises is met by ``repair``, as a crash
is by ``recovery``.
Rule 4: how a cycle ends is decided here and nowhere else. The worker only reports.

Theory of operation. ``begin`` stages and plans; ``finish`` starts the worker and waits for one of these:

    the worker                          | what was asked meanwhile | the cycle ends as
    ------------------------------------+--------------------------+------------------------------------------------
    reports                             | nothing, or a shutdown   | judged, then as its verdict says (``commit``);
                                        |                          | one of a pair is measured, and waits (``pair``)
    reports; the disk takes no          | nothing; a shutdown      | failed; interrupted
    checkpoint                          |                          |
    reports, gives up or dies           | cancel                   | cancelled
    gives up or dies                    | a shutdown               | suspended
    gives up: line_lost                 | nothing                  | suspended, at most 3 times; else failed
    gives up: died, or stopped by       | nothing                  | suspended where there is a resume point and the
    somebody; dies                      |                          | worker died at most 3 times; else failed
    gives up: not_resumable             | nothing                  | interrupted
    gives up: champion_worse            | nothing                  | interrupted, if the figures confirm it
    gives up for any other reason,      | nothing                  | failed
    or cannot be started or understood  |                          |

Order of writes, and what a power cut leaves:

    1. ``staging/cycle_NNN/work/`` with experiences, then the job, each synced.     No record: swept at the next start.
    2. The ledger's plan: ``planned``, with the place of every experience.          Suspended at the next start, which
    3. ``training``, before the worker is started; later ``evaluating``.            goes on with what was staged.
    4. A report: ``commit`` has the rest.
    5. A report of one of a pair: it is recorded with ``measured``; the rest is ``pair``'s. Cut before the record: 3.
    6. No report: a death, or a rollback that became due, is noted, then the end is recorded, then the staging directory
       is removed (a suspended one stays). Cut after the note: an open cycle, as after a crash (``recovery``). Cut after
       the record: an ended cycle, whose leftovers are swept at the next start.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec

from sleepd.clock import Clock
from sleepd.cycle import Event, State
from sleepd.errors import LedgerUnusable, SleepdError, WorkerDied
from sleepd.host import has_gpu
from sleepd.log import get_logger
from sleepd.policy.judging.probation import compare
from sleepd.policy.judging.promotion import Gates, judge
from sleepd.protocol.job import Failure, Job, Notice, Phase, Progress, Report
from sleepd.protocol.verdict import Outcome
from sleepd.registry.demotion import Demotion
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.ledger_rows import CycleRecord

from .commit import Judging, settle
from .resume import MAX_CRASHES, has_resume_point, note_crash
from .staging import Lineup, plan_of, stage
from .worker_process import Worker, WorkerPolicy

_ANNOUNCED: Final = {
    Outcome.PROMOTED: ("candidate_promoted", "info"),
    Outcome.REJECTED: ("candidate_rejected", "warning"),
    Outcome.INCONCLUSIVE: ("candidate_left_open", "info"),
}


class CycleEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a cycle ended."""

    summary: CycleRecord
    failure: Failure | None
    """What the worker reported when it gave up."""


class CycleRunner:
    """Runs one cycle at a time on one state directory."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        checkpoints: Checkpoints,
        clock: Clock,
        demotion: Demotion,
        listener: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._demotion = demotion
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._clock = clock
        self._listener = listener
        self._worker: Worker | None = None
        self._ending = Event.FAIL
        self._is_settling = False
        self.progress: Progress | None = None
        """Where the worker stands; None: none is running."""

    def stop(self, ending: Event) -> bool:
        """Stop the worker; the cycle ends with ``ending`` (CANCEL discards, SUSPEND keeps the staging directory).

        Returns:
            False: too late, the worker has ended and its verdict is being written down.
        """
        if self._is_settling:
            return False
        self._ending = ending
        if self._worker is not None:
            self._worker.stop()
        return True

    def kill(self) -> None:
        """Stop the worker without waiting for its consent."""
        if self._worker is not None:
            self._worker.kill()

    def begin(self, lineup: Lineup, *pair: Lineup) -> None:
        """Stage the cycle, and the second one of a pair, and record the plans.

        Raises:
            OSError: the disk did not take it; nothing was recorded.
            LedgerUnusable: the same of the ledger.
        """
        self._ending = Event.FAIL
        lineups = (lineup, *pair)
        try:
            for each in lineups:
                stage(each, self._checkpoints)
            self._ledger.plan(*(plan_of(each, self._clock.now()) for each in lineups))
        except (OSError, LedgerUnusable):
            for each in lineups:
                shutil.rmtree(self._checkpoints.staging_path(each.job.cycle), ignore_errors=True)
            raise
        self.announce_start(lineup.job.cycle)

    def reopen(self, cycle: int) -> None:
        """Go on with a suspended cycle; ``finish`` is next."""
        self._ending = Event.FAIL
        self._announce("cycle_resumed", cycle=cycle)

    def discard(self, cycle: int, ending: Event, reason: str, *, with_rival: bool = True) -> None:
        """End a suspended cycle without a verdict, and remove what was staged for it; the same of the other one of its
        pair, where that is open.
        """
        rival = self._ledger.summary(cycle).rival if with_rival else None
        for each in sorted({cycle, rival or cycle} & set(self._ledger.open_cycles()), reverse=True):
            self._close(each, ending, reason)

    async def finish(self, job: Job, policy: WorkerPolicy, gates: Gates) -> CycleEnd:
        """Run the begun or reopened cycle to its end, or, of a pair, until it is measured; a failure is an end too.

        Raises:
            LedgerUnusable: its end could not be recorded; ``recovery`` finds it as after a crash.
            OSError: its verdict stands, and could not be put into effect; the same.
        """

        async def work() -> Failure | None:
            outcome = await self._work(job.cycle, policy)
            if self._ending is Event.CANCEL:
                outcome = Failure(kind="stopped", message="cancelled")  # also where the report came first
            self._is_settling = True
            if isinstance(outcome, Failure):
                self._close_failed(job, outcome)
                return outcome
            if job.rival is None:
                await self._settle(job, outcome, partial(judge, gates=gates))
            else:
                self._keep(job.cycle, outcome)
            return None

        return await self._to_its_end(job.cycle, work())

    async def settle_measured(self, job: Job, report: Report, judging: Judging) -> CycleEnd:
        """Judge a cycle that is measured, and put its verdict into effect.

        Raises:
            LedgerUnusable, OSError: as ``finish``.
        """

        async def work() -> None:
            self._is_settling = True
            await self._settle(job, report, judging)

        return await self._to_its_end(job.cycle, work())

    async def _to_its_end(self, cycle: int, work: Awaitable[Failure | None]) -> CycleEnd:
        failure = None
        try:
            failure = await work
        except LedgerUnusable:
            raise
        except WorkerDied as error:
            self._close(cycle, self._ending_of_death(cycle), error.message, error.hint)
        except SleepdError as error:
            self._close(cycle, self._ending, error.message, error.hint)
        except OSError as error:
            hint = "make space in the state directory: df -h"
            if self._checkpoints.find(cycle) is not None:
                raise  # it is a checkpoint, and its verdict stands
            self._close(cycle, self._ending, f"the disk did not take it: {error}", hint)
        finally:
            self.progress = None
            self._worker = None
            self._is_settling = False
        return CycleEnd(summary=self._ledger.summary(cycle), failure=failure)

    # --- the worker ---

    def announce_start(self, cycle: int) -> None:
        """Report that a planned cycle begins."""
        plan = self._ledger.summary(cycle)
        self._announce(
            "cycle_started",
            cycle=cycle,
            trained=plan.trained,
            replayed=plan.replayed,
            held_out=plan.held_out,
            parent=plan.parent,
            strategy=plan.strategy,
        )

    async def _work(self, cycle: int, policy: WorkerPolicy) -> Report | Failure:
        self._worker = worker = Worker(policy, lambda message: self._hear(cycle, message))
        self._advance(cycle, Event.TRAINING_STARTED)
        if self._ending is not Event.FAIL:  # stopped between plan and start
            worker.stop()
        return await worker.run(self._checkpoints.staging_path(cycle))

    def _hear(self, cycle: int, message: Progress | Notice) -> None:
        if isinstance(message, Notice):
            self._announce(message.event, level=message.level, cycle=cycle, text=message.text)
            return
        was: Phase | None = self.progress.phase if self.progress else None
        if message.phase == "evaluating" and self._ledger.state(cycle) is State.TRAINING:
            self._advance(cycle, Event.EVALUATION_STARTED)
        self.progress = message
        if message.phase != was:
            self._announce("phase_started", cycle=cycle, phase=message.phase, device=message.device)
            if message.phase == "measuring" and "cuda unavailable" in message.device and has_gpu():
                self._announce(
                    "gpu_unusable", level="warning", cycle=cycle, text=message.device, hint="sleepctl doctor"
                )
        self._listener("progress", {"cycle": cycle, **msgspec.to_builtins(message)})

    # --- after the worker ---

    def _keep(self, cycle: int, report: Report) -> None:
        """Record what was measured on one of a pair."""
        if self._ledger.state(cycle) is State.TRAINING:
            self._advance(cycle, Event.EVALUATION_STARTED)
        state = self._ledger.advance(cycle, Event.REPORT_KEPT, at=self._clock.now(), report=report)
        self._listener("state", {"cycle": cycle, "state": str(state)})
        self._announce("candidate_measured", cycle=cycle, text="its verdict waits for the other one of its pair")

    async def _settle(self, job: Job, report: Report, judging: Judging) -> None:
        """Judge, record the verdict, commit, promote, and report."""
        settled = await settle(
            job, report, judging, ledger=self._ledger, checkpoints=self._checkpoints, clock=self._clock
        )
        if report.evidence.probation is not None:
            found = compare(report.evidence.probation, job.confidence)
            self._announce("champion_compared", cycle=job.cycle, champion=found.champion, text=found.reason)
        event, level = _ANNOUNCED[settled.verdict.outcome]
        self._announce(
            event, level=level, cycle=job.cycle, text=settled.verdict.reason, directory=str(settled.directory)
        )

    def _close_failed(self, job: Job, failure: Failure) -> None:
        """End a cycle whose worker reported why it gives up, or was asked to stop."""
        cycle, ending = job.cycle, self._ending
        if ending is Event.FAIL and failure.kind in ("stopped", "died", "line_lost"):
            # Stopped by somebody else. Where the line is lost, the resume point is on the host.
            ending = self._ending_of_death(cycle, is_kept_elsewhere=failure.kind == "line_lost")
        elif ending is Event.FAIL and failure.kind == "not_resumable":
            ending = Event.INTERRUPT
        elif ending is Event.FAIL and failure.kind == "champion_worse":
            # Noted before the cycle is closed: after a crash between the two the rollback is still known to be due.
            found = self._demotion.note_failure(failure, cycle, job.confidence)
            if found:
                self._close(cycle, Event.INTERRUPT, f"before training, {found}")
                return
        self._close(cycle, ending, failure.message, failure.hint)
        if failure.traceback:
            get_logger().error("worker_traceback", cycle=cycle, text=failure.traceback)

    def _ending_of_death(self, cycle: int, *, is_kept_elsewhere: bool = False) -> Event:
        """A cycle whose worker died goes on later, where there is something to go on from and it may help."""
        has_point = is_kept_elsewhere or has_resume_point(self._checkpoints, cycle)
        if self._ending is not Event.FAIL or not has_point:
            return self._ending
        times = note_crash(self._ledger, cycle, self._clock.now()).count
        return Event.FAIL if times > MAX_CRASHES else Event.SUSPEND

    def _close(self, cycle: int, ending: Event, message: str, hint: str = "") -> None:
        """End a cycle without a verdict; what was staged goes, unless it is suspended."""
        if ending is Event.SUSPEND and self._ledger.state(cycle) in (State.MEASURED, State.JUDGED):
            ending = Event.INTERRUPT
        if self._ending is Event.CANCEL:
            message, hint = "cancelled", ""
        elif self._ending is Event.SUSPEND:
            message, hint = "sage-sleepd was shut down", ""
        self._advance(cycle, ending, reason=message, hint=hint)
        # After the record: a cut in between leaves a directory that the next start sweeps.
        if ending is not Event.SUSPEND:
            shutil.rmtree(self._checkpoints.staging_path(cycle), ignore_errors=True)
        names = {Event.FAIL: "cycle_failed", Event.CANCEL: "cycle_cancelled", Event.SUSPEND: "cycle_suspended"}
        is_trouble = ending is Event.FAIL or bool(hint)
        name, level = names.get(ending, "cycle_interrupted"), "error" if is_trouble else "info"
        self._announce(name, level=level, cycle=cycle, text=message, hint=hint)

    def _advance(self, cycle: int, event: Event, *, reason: str | None = None, hint: str | None = None) -> None:
        state = self._ledger.advance(cycle, event, at=self._clock.now(), reason=reason, hint=hint)
        self._listener("state", {"cycle": cycle, "state": str(state)})

    def _announce(self, event: str, *, level: str = "info", **fields: Any) -> None:
        get_logger().log({"info": 20, "warning": 30, "error": 40}[level], event, **fields)
        self._listener(event, fields)
