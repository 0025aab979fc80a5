"""From a worker's report to a verdict in effect.

The verdict is in the ledger before anything is renamed, so that a crash between the two can be finished from what is on
disk (``recovery``). Only a promoted candidate stands where older tools look; a rejected and an inconclusive one go to
``retired/``.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from sleepd.clock import Clock
from sleepd.config.strategies import adapter_shape
from sleepd.cycle import Event, State
from sleepd.errors import WorkerFailed
from sleepd.policy.promotion import Gates, judge
from sleepd.protocol.job import Job, Report
from sleepd.protocol.verdict import Outcome, Verdict
from sleepd.store.checkpoint_documents import write_documents
from sleepd.store.checkpoints import Checkpoints, Manifest
from sleepd.store.ledger import Ledger
from sleepd.store.reservoir import next_reservoir

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
    job: Job, report: Report, gates: Gates, *, ledger: Ledger, checkpoints: Checkpoints, clock: Clock
) -> Settled:
    """Judge, write the verdict down, commit, put in use.

    Raises:
        WorkerFailed: the checkpoint could not be written.
        OSError: it is written, and could not be put in use; ``recovery`` does that.
        SleepdError: the ledger could not be written, or the worker left no adapter.
    """
    cycle = job.cycle
    # In a thread: the resamples of a thousand held-out experiences take longer than a status may wait.
    verdict, judged_at = await asyncio.to_thread(judge, report, gates), clock.now()
    is_promoted = verdict.outcome is Outcome.PROMOTED
    if ledger.state(cycle) is State.TRAINING:
        ledger.advance(cycle, Event.EVALUATION_STARTED, at=judged_at)
    ledger.advance(cycle, Event.REPORT_JUDGED, at=judged_at, reason=verdict.reason, report=report, verdict=verdict)
    manifest = _manifest(job, report, verdict, parent=ledger.summary(cycle).parent, judged_at=judged_at)
    documents = write_documents(ledger, cycle, report, verdict, base=job.base, judged_at=judged_at)
    if is_promoted:
        documents |= next_reservoir(job, checkpoints.staging_path(cycle))
    try:
        path = await asyncio.to_thread(checkpoints.commit, manifest, documents, promoted=is_promoted)
    except OSError as error:
        raise WorkerFailed(
            f"the checkpoint of cycle {cycle} could not be written: {error}",
            hint="make space in the state directory (df -h); the experiences are trained by the next cycle",
        ) from error
    if is_promoted:
        checkpoints.promote(cycle)
    ledger.advance(cycle, EVENTS[verdict.outcome], at=judged_at)
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
