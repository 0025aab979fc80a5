"""Two strategies against each other: two cycles on the same examples, one after the other, judged together.

Rule 1: both are planned in one transaction, on the same staged examples, with the same holdout, the same champion as
their parent, and the same seed. They differ in their numbers and in their strategies.
Rule 2: no verdict before both were measured, or one of them has ended without figures. Until then nothing of either is
in use.
Rule 3: at most one is promoted. The verdict of each holds the comparison with the other (``policy.judging.pair_rule``),
or says that it was judged alone, and why.

Theory of operation. Each cycle of a pair is a cycle as any other: a job, a worker, a directory, a verdict. Only the
moment of its verdict is another one: a report leads to ``measured``, and the report is in the ledger. Then a verdict
needs nothing but the two reports and the gates, with the same result each time. So it is not kept half done: what a cut
leaves is judged again.

What a power cut leaves, and what the next start makes of it:

    cut while                           | ledger: first, second         | next start
    ------------------------------------+-------------------------------+-------------------------------------------
    the first trains                    | training, planned             | both suspended; the first goes on
    the second trains                   | measured, training            | the second goes on; the first waits
    both are measured                   | measured, measured            | both are judged
    the first's verdict is put into     | judged, measured              | ``recovery`` finishes the first or gives it
    effect                              |                               | up; the second is judged beside it, or alone
    the first has its verdict           | promoted or rejected, measured| the second is judged beside it

How one of them ends decides about the other:

    one ends as                         | the other one
    ------------------------------------+-------------------------------------------------------------------------
    measured                            | is trained and measured, then both are judged
    failed; or interrupted, for its     | is trained and measured, then judged alone
    worker could not go on              |
    suspended                           | waits
    cancelled                           | is cancelled: the operator gave up the pair
    interrupted, for the champion was   | is interrupted, too: both continue that champion
    found worse; or by ``discard``      |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from sleepd.cycle import JUDGED_STATES, Event, State
from sleepd.policy.judging.pair_rule import Absent, Contender, judge_alone, judge_pair
from sleepd.policy.judging.promotion import Gates
from sleepd.protocol.job import Job, Report
from sleepd.protocol.verdict import Verdict
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.ledger_rows import CycleRecord

from .commit import Judging
from .resume import staged_job
from .runner import CycleEnd, CycleRunner
from .worker_process import WorkerPolicy

_TO_BE_MEASURED: Final = (State.PLANNED, State.SUSPENDED)


class PairRunner:
    """Brings a cycle to its end, and the other one of its pair, from wherever they stand."""

    def __init__(self, runner: CycleRunner, ledger: Ledger, checkpoints: Checkpoints) -> None:
        self._runner = runner
        self._ledger = ledger
        self._checkpoints = checkpoints

    async def finish(
        self, job: Job, policy: WorkerPolicy, gates: Gates, begins: Callable[[int], None]
    ) -> list[CycleEnd]:
        """The ends of the begun or reopened cycle and of its rival, as far as they came to one.

        ``begins`` is called with the number of each cycle that is worked on from now on.

        Raises:
            LedgerUnusable, OSError: as ``CycleRunner.finish``.
        """
        if job.rival is None:
            return [await self._runner.finish(job, policy, gates)]
        pair, failures = sorted((job.cycle, job.rival)), {}
        for cycle in pair:
            if self._ledger.state(cycle) not in _TO_BE_MEASURED or (own := self._job(cycle)) is None:
                continue
            begins(cycle)
            if cycle != job.cycle:
                self._runner.announce_start(cycle)
            end = await self._runner.finish(own, policy, gates)
            failures[cycle] = end.failure
            if end.summary.state is State.SUSPENDED or self._gives_up(end):
                return [end]
        for cycle in pair:
            if self._ledger.state(cycle) is State.MEASURED and (own := self._job(cycle)) is not None:
                report = self._ledger.report(cycle)
                assert report is not None  # recorded with the state
                await self._runner.settle_measured(own, report, self._judging(cycle, own.rival, gates))
        return [CycleEnd(summary=self._ledger.summary(cycle), failure=failures.get(cycle)) for cycle in pair]

    def _job(self, cycle: int) -> Job | None:
        """What was staged for it; None: it cannot be read, and the cycle is closed."""
        job = staged_job(self._checkpoints, cycle)
        if isinstance(job, Job):
            return job
        self._runner.discard(cycle, Event.FAIL, job, with_rival=False)
        return None

    def _gives_up(self, end: CycleEnd) -> bool:
        """Whether the pair is over with this end; then the other one is closed, too."""
        cycle, state = end.summary.cycle, end.summary.state
        if state is State.CANCELLED:
            ending, reason = Event.CANCEL, "cancelled"
        elif state is State.INTERRUPTED and end.failure is not None and end.failure.kind == "champion_worse":
            ending, reason = Event.INTERRUPT, end.summary.reason
        else:
            return False
        self._runner.discard(cycle, ending, reason)
        return True

    def _judging(self, cycle: int, rival: int | None, gates: Gates) -> Judging:
        """What makes its verdict: beside the other one's figures, or alone where it has none."""
        assert rival is not None
        own, other = self._ledger.summary(cycle), self._ledger.summary(rival)
        measured = self._ledger.report(rival) if other.state in JUDGED_STATES | {State.MEASURED} else None
        if measured is None:
            absent = Absent(rival, other.strategy, str(other.state), other.reason)
            return lambda report: judge_alone(report, gates, absent)
        promoted = rival if other.state is State.PROMOTED else None

        def judge_beside(report: Report) -> Verdict:
            both = (_contender(own, report), _contender(other, measured))
            return judge_pair(both, gates, promoted=promoted)[cycle]

        return judge_beside


def _contender(record: CycleRecord, report: Report) -> Contender:
    return Contender(record.cycle, record.strategy, report)


def spokesman(records: Iterable[CycleRecord]) -> CycleRecord:
    """Of a pair, the cycle that speaks for both: the promoted one, else one with a verdict, else the first."""

    def rank(record: CycleRecord) -> tuple[bool, bool, int]:
        return record.state is not State.PROMOTED, record.state not in JUDGED_STATES, record.cycle

    return min(records, key=rank)
