"""The cycles of an older trainer, as far as anything is known of them: shown beside ours, never mixed with ours."""

from __future__ import annotations

from datetime import UTC, datetime

from sleepd.errors import CheckpointInvalid
from sleepd.protocol.status import Champion, CycleSummary
from sleepd.store.checkpoints import read_manifest
from sleepd.store.legacy_formats import SleepEntry, from_local

from .sleeper import Sleeper

_NOT_MEASURED = "adopted, not measured: nobody compared it with the base"


def older_cycles(sleeper: Sleeper) -> list[CycleSummary]:
    """All that the older trainer's history names, and what was adopted from it; newest first."""
    adopted = sleeper.checkpoints.adopted()
    entries = {entry.cycle: entry for entry in sleeper.history.imported_entries()}
    shown = [_summary(sleeper, cycle, entries.get(cycle), cycle in adopted) for cycle in {*entries, *adopted}]
    return sorted(shown, key=lambda summary: -summary.cycle)


def _summary(sleeper: Sleeper, cycle: int, entry: SleepEntry | None, is_adopted: bool) -> CycleSummary:
    moment = from_local(entry.timestamp) if entry else _adopted_at(sleeper, cycle)
    reason = "by an older scheduler; nothing was measured on held-out experiences"
    if is_adopted:
        measured = _measured_by(sleeper, cycle)
        reason = f"adopted; measured against the base by cycle {measured.cycle}" if measured else _NOT_MEASURED
    return CycleSummary(
        cycle=cycle,
        state="adopted" if is_adopted else "imported",
        started_at=moment,
        ended_at=moment,
        trained=entry.num_experiences if entry else 0,
        imported_loss=entry.final_loss if entry else None,
        reason=reason,
    )


def adopted_champion(sleeper: Sleeper, cycle: int) -> Champion:
    """An adopted adapter in use. Its figures are those of the first cycle that compared it with the base."""
    measured = _measured_by(sleeper, cycle)
    report = sleeper.ledger.report(measured.cycle) if measured else None
    return Champion(
        cycle=cycle,
        directory=str(sleeper.checkpoints.promoted_path(cycle)),
        promoted_at=_adopted_at(sleeper, cycle),
        holdout_base=report.holdout_base if report else None,
        holdout_before=report.holdout_base if report else None,
        holdout_after=report.holdout_before if report else None,
        held_out=report.held_out if report else 0,
        is_adopted=True,
        measured_by=measured.cycle if measured else None,
    )


def _measured_by(sleeper: Sleeper, cycle: int) -> CycleSummary | None:
    """The first judged cycle that continued it, which measured it beside the base."""
    return next((each for each in reversed(sleeper.ledger.judged(limit=-1)) if each.parent == cycle), None)


def _adopted_at(sleeper: Sleeper, cycle: int) -> datetime:
    path = sleeper.checkpoints.promoted_path(cycle)
    try:
        return datetime.fromisoformat(read_manifest(path).created_at)
    except (CheckpointInvalid, ValueError):
        # Our record is damaged; the folder's own time is the next best.
        return datetime.fromtimestamp(path.lstat().st_mtime, UTC)
