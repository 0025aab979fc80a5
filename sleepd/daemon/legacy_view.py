"""The cycles of an older trainer, as far as anything is known of them: shown beside ours, never mixed with ours."""

from __future__ import annotations

from sleepd.cycles.read_model import ReadModel
from sleepd.protocol.status import Champion, CycleSummary
from sleepd.store.legacy_formats import SleepEntry, from_local

_NOT_MEASURED = "adopted, not measured: nobody compared it with the base"


def older_cycles(reader: ReadModel) -> list[CycleSummary]:
    """All that the older trainer's history names, and what was adopted from it; newest first."""
    adopted = reader.adopted()
    entries = {entry.cycle: entry for entry in reader.imported_entries()}
    shown = [_summary(reader, cycle, entries.get(cycle), cycle in adopted) for cycle in {*entries, *adopted}]
    return sorted(shown, key=lambda summary: -summary.cycle)


def _summary(reader: ReadModel, cycle: int, entry: SleepEntry | None, is_adopted: bool) -> CycleSummary:
    moment = from_local(entry.timestamp) if entry else reader.adopted_at(cycle)
    reason = "by an older scheduler; nothing was measured on held-out experiences"
    if is_adopted:
        measured = reader.measured_by(cycle)
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


def adopted_champion(reader: ReadModel, cycle: int) -> Champion:
    """An adopted adapter in use. Its figures are those of the first cycle that compared it with the base."""
    measured = reader.measured_by(cycle)
    report = reader.report(measured.cycle) if measured else None
    return Champion(
        cycle=cycle,
        directory=str(reader.promoted_path(cycle)),
        promoted_at=reader.adopted_at(cycle),
        holdout_base=report.holdout_base if report else None,
        holdout_before=report.holdout_base if report else None,
        holdout_after=report.holdout_before if report else None,
        held_out=report.held_out if report else 0,
        is_adopted=True,
        measured_by=measured.cycle if measured else None,
    )
