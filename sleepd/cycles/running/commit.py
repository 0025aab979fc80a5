"""From a worker's report to a verdict in effect: the only way in which a candidate becomes a checkpoint.

Rule 1: the verdict is in the ledger before anything is renamed.
Rule 2: a checkpoint gets its name only when it is whole: every file synced, the manifest with their hashes last.
Rule 3: ``current`` moves after the directory it names is in place, and before the ledger records ``promoted``.
Rule 4: only what is promoted stands as ``cycle_NNN``, where older tools search. The rest goes to ``retired/``.

Theory of operation. Of two records of the same fact, one must be first. The ledger is first with what was decided,
the disk is first with what is in use: a cut between the two leaves a decision that ``recovery`` can finish from the
checkpoint alone, and never an adapter in use that nothing explains.

What a power cut leaves, and what the next start (``recovery``) makes of it:

    cut after                 | on disk                                           | next start
    --------------------------+---------------------------------------------------+-----------------------------------
    0 nothing: judging        | ledger: training or evaluating; staging/ as the   | suspended; goes on from the resume
                              | worker left it; ``current`` as before             | point (see ``recovery``)
    1 the verdict is recorded | ledger: judged, with report and verdict; the rest | interrupted; staging/ removed; its
                              | as in 0                                           | experiences are still unlearned
    2 documents, manifest     | as in 1; staging/ has them, and no ``work/``      | as in 1
    3 the directory is renamed| ledger: judged; ``cycle_NNN`` (promoted) or       | the manifest's verdict is put into
                              | ``retired/cycle_NNN`` whole; ``current`` as before| effect: 4 and 5 are done
    4 ``current`` moved       | as in 3, and ``current`` names ``cycle_NNN``      | 5 is done
    5 the last record         | ledger: promoted, rejected or inconclusive        | nothing is left to do

Each step is synced before the next begins. Within 3 and 4 the rename is atomic; until its directory is synced, a cut
may leave the step before.

A disk that fails while the daemon lives: before 3 the cycle is closed as failed and its staging directory removed.
From 3 on, and wherever the ledger itself fails, the error is raised, and ``repair`` does what the next start would do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from sleepd.bundles.contents import HASHES_FILE
from sleepd.bundles.foreign import origin_of
from sleepd.clock import Clock
from sleepd.config.strategies import adapter_shape
from sleepd.cycle import Event, State
from sleepd.errors import WorkerFailed
from sleepd.files import read_document
from sleepd.protocol.checkpoint.origin import ORIGIN_FILE
from sleepd.protocol.job import Job, Report
from sleepd.protocol.verdict import Outcome, Verdict
from sleepd.store.checkpoint_documents import write_documents
from sleepd.store.checkpoints import Checkpoints, Manifest
from sleepd.store.reservoir import next_reservoir
from sleepd.store.sqlite.ledger import Ledger

Judging = Callable[[Report], Verdict]
"""What makes the verdict of a report. It is pure, and blocks for a while."""

EVENTS: Final = {
    Outcome.PROMOTED: Event.PROMOTE,
    Outcome.REJECTED: Event.REJECT,
    Outcome.INCONCLUSIVE: Event.LEAVE_OPEN,
}
"""What each verdict does to a judged cycle."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict in effect."""

    verdict: Verdict
    directory: Path


async def settle(
    job: Job, report: Report, judging: Judging, *, ledger: Ledger, checkpoints: Checkpoints, clock: Clock
) -> Settled:
    """Judge, record the verdict, commit, promote. The numbers are those of the table above.

    Raises:
        WorkerFailed: the checkpoint could not be written.
        OSError: it is written, and could not be promoted; ``recovery`` does that.
        SleepdError: the ledger could not be written, or the worker left no adapter.
    """
    cycle = job.cycle
    # In a thread: the resamples of a thousand held-out experiences take longer than a status may wait.
    verdict, judged_at = await asyncio.to_thread(judging, report), clock.now()
    is_promoted = verdict.outcome is Outcome.PROMOTED
    if ledger.state(cycle) is State.TRAINING:
        ledger.advance(cycle, Event.EVALUATION_STARTED, at=judged_at)
    # 1. From here on the cycle is not resumed: the verdict is finished, or the cycle is interrupted.
    ledger.advance(cycle, Event.REPORT_JUDGED, at=judged_at, reason=verdict.reason, report=report, verdict=verdict)
    record = ledger.summary(cycle)
    manifest = _manifest(job, report, verdict, parent=record.parent, judged_at=judged_at)
    documents = write_documents(ledger, record, report, verdict, base=job.base, judged_at=judged_at)
    if is_promoted:
        # Read before the commit: it removes ``work/``, which holds the experiences.
        documents |= next_reservoir(job, checkpoints.staging_path(cycle))
    if job.foreign:
        documents[ORIGIN_FILE] = msgspec.json.encode(origin_of(Path(job.foreign)))
        documents[HASHES_FILE] = read_document(Path(job.foreign) / HASHES_FILE)
    try:
        # 2 and 3. In a thread: hashing and syncing the weights takes seconds.
        path = await asyncio.to_thread(checkpoints.commit, manifest, documents, promoted=is_promoted)
    except OSError as error:
        # ``commit`` has taken a rename back: the candidate is in staging/, and is given up.
        raise WorkerFailed(
            f"the checkpoint of cycle {cycle} could not be written: {error}",
            hint="make space in the state directory (df -h); the experiences are trained by the next cycle",
        ) from error
    if is_promoted:
        checkpoints.promote(cycle)  # 4
    ledger.advance(cycle, EVENTS[verdict.outcome], at=judged_at)  # 5
    return Settled(verdict=verdict, directory=path)


def _manifest(job: Job, report: Report, verdict: Verdict, *, parent: int | None, judged_at: datetime) -> Manifest:
    return Manifest(
        cycle=job.cycle,
        parent=parent,
        verdict=verdict.outcome,
        reason=verdict.reason,
        base_fingerprint=report.base_fingerprint,
        lora_shape=adapter_shape(job.strategy),
        strategy=job.strategy.name,
        created_at=judged_at.isoformat(),
    )
