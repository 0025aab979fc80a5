"""How things stand, in the structures of ``status.py``: what ``sleepctl`` shows, live or from disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from sleepd.cycle import State, undo_command
from sleepd.cycles.legacy_cycles import adopted_champion, older_cycles
from sleepd.cycles.sleeper import Sleeper
from sleepd.errors import CheckpointInvalid, NotFound
from sleepd.files import replace_file
from sleepd.policy import triggers
from sleepd.protocol.job import Report
from sleepd.protocol.status import (
    SCHEMA,
    Alarm,
    BufferDetail,
    BufferStatus,
    Champion,
    CycleDetail,
    CycleSummary,
    Status,
)
from sleepd.registry.rollback import undo_of
from sleepd.store import legacy_formats
from sleepd.store.checkpoint_documents import evaluation_of, placements_of
from sleepd.store.checkpoints import has_weights
from sleepd.store.ledger_rows import Placement
from sleepd.version import VERSION

OFFLINE_CYCLES = 50
OLDER_LEARNING_RATE = 1e-5
"""What older callers ask for."""


def overview(sleeper: Sleeper, *, next_check_at: datetime | None, config_path: str, life: str = "") -> Status:
    """The whole state. ``life`` names a stage of the daemon's own life that outranks the rest: ``stopping``."""
    decision = sleeper.decision or sleeper.decide()
    if sleeper.running_cycle is not None:
        state = str(sleeper.ledger.state(sleeper.running_cycle))
    elif sleeper.suspended_cycle is not None and not sleeper.is_paused:
        state = "suspended"
    else:
        state = "paused" if sleeper.is_paused else "idle"
    return Status(
        state=life or state,
        since=sleeper.state_since,
        sentence=life or _sentence(sleeper, state),
        version=VERSION,
        pid=os.getpid(),
        decision=decision,
        alarms=standing_alarms(sleeper),
        missing=triggers.missing(decision),
        next_check_at=next_check_at,
        buffer=_buffer(sleeper),
        champion=_champion(sleeper),
        total_cycles=sleeper.history.total_cycles,
        recent_cycles=cycles(sleeper, limit=3),
        last_sleep_at=sleeper.history.last_sleep_at,
        last_error=sleeper.last_error,
        progress=sleeper.runner.progress,
        running_cycle=sleeper.running_cycle,
        config_path=config_path,
        state_directory=str(sleeper.directory),
        base=sleeper.config.model.base,
        written_at=sleeper.clock.now(),
    )


def standing_alarms(sleeper: Sleeper) -> list[Alarm]:
    """Everything that the owner should look at."""
    return [*sleeper.alarms.standing, *sleeper.demotion.alarms]


def _sentence(sleeper: Sleeper, state: str) -> str:
    """What systemctl shows."""
    if sleeper.running_cycle is not None:
        progress = sleeper.runner.progress
        return f"Cycle {sleeper.running_cycle}: {f'{progress.phase}{progress.step_text}' if progress else state}"
    decision = sleeper.decision or sleeper.decide()
    champion = sleeper.checkpoints.champion()
    in_use = "the base model" if champion is None else f"the adapter of cycle {champion}"
    warning = "".join(f"; {alarm.text}" for alarm in standing_alarms(sleeper))
    if state == "paused":
        return f"Paused; {in_use} is in use{warning}"
    return f"Awake, {in_use} is in use; {decision.reason}{warning}"


def _buffer(sleeper: Sleeper) -> BufferStatus:
    view, counts = sleeper.intake.view, sleeper.intake.counts
    return BufferStatus(
        path=sleeper.config.buffer.path,
        form=view.form,
        total=counts.total,
        new=counts.new,
        eligible=counts.eligible,
        unlearned=counts.unlearned,
        held_out=counts.held_out,
        set_aside=view.set_aside_total,
        quarantined=counts.quarantined,
        unscreened=counts.unscreened,
        personal=counts.personal,
        personal_data=sleeper.config.quarantine.personal_data,
        read_at=view.read_at,
        problem=sleeper.intake.problem,
    )


def _champion(sleeper: Sleeper) -> Champion | None:
    cycle = sleeper.checkpoints.champion()
    if cycle is None:
        return None
    try:
        new_lineage = sleeper.fit.why_new_lineage(sleeper.config)
    except CheckpointInvalid:
        new_lineage = ""  # the next cycle meets the damage itself, and says so
    if cycle in sleeper.checkpoints.adopted():
        return msgspec.structs.replace(adopted_champion(sleeper, cycle), new_lineage=new_lineage)
    try:
        summary = sleeper.ledger.summary(cycle)
    except NotFound:
        return None
    report = sleeper.ledger.report(cycle)
    compared = sleeper.demotion.comparison(cycle, sleeper.config.promotion.confidence)
    return Champion(
        cycle=cycle,
        directory=str(sleeper.checkpoints.promoted_path(cycle)),
        promoted_at=summary.ended_at or summary.started_at,
        holdout_base=report.holdout_base if report else None,
        holdout_before=summary.holdout_before,
        holdout_after=summary.holdout_after,
        held_out=report.held_out if report else 0,
        is_thin=summary.is_thin,
        is_on_probation=_is_on_probation(sleeper, cycle),
        comparison=compared[0] if compared else None,
        new_lineage=new_lineage,
    )


def cycles(sleeper: Sleeper, *, limit: int) -> list[CycleSummary]:
    """The last cycles, newest first; after ours those of the older scheduler."""
    champion = sleeper.checkpoints.champion()
    ours = [_placed(sleeper, summary, champion) for summary in sleeper.ledger.summaries(limit=limit)]
    older = [msgspec.structs.replace(each, is_champion=each.cycle == champion) for each in older_cycles(sleeper)]
    return [*ours, *older][:limit]


def _placed(sleeper: Sleeper, summary: CycleSummary, champion: int | None) -> CycleSummary:
    """With what the ledger does not know: whether it is in use, its tag, and whether its weights are still there."""
    path = sleeper.checkpoints.find(summary.cycle)
    return msgspec.structs.replace(
        summary,
        is_champion=summary.cycle == champion,
        tag=sleeper.keeping.shown_tags().get(summary.cycle, ""),
        is_pruned=path is not None and not has_weights(path),
        is_on_probation=summary.is_on_probation and _is_on_probation(sleeper, summary.cycle),
    )


def _is_on_probation(sleeper: Sleeper, cycle: int) -> bool:
    return sleeper.demotion.is_on_probation(cycle, sleeper.config.promotion.confidence)


def detail(sleeper: Sleeper, cycle: int, *, is_for_operator: bool = False) -> CycleDetail:
    """One cycle in full; without the texts that only an operator may read.

    Raises:
        NotFound: there is no such cycle.
    """
    path, champion = sleeper.checkpoints.find(cycle), sleeper.checkpoints.champion()
    older = next((each for each in older_cycles(sleeper) if each.cycle == cycle), None)
    if older is not None:
        return CycleDetail(
            summary=msgspec.structs.replace(older, is_champion=cycle == champion),
            directory=str(path) if path else "",
            report=None,
            metrics=sleeper.metrics.shown(cycle),
            trained_ids=[],
            replayed_ids=[],
            held_out_ids=[],
            undo=undo_command(cycle, older.state, is_standing=cycle == champion, champions=()),
        )
    summary = sleeper.ledger.summary(cycle)
    placements = placements_of(cycle, sleeper.ledger, sleeper.checkpoints)
    report, verdict = evaluation_of(cycle, sleeper.ledger, sleeper.checkpoints)
    compared = sleeper.demotion.comparison(cycle, sleeper.config.promotion.confidence)

    def ids(role: str) -> list[str]:
        return [placement.id for placement in placements if placement.role == role]

    return CycleDetail(
        summary=_placed(sleeper, summary, champion),
        directory=str(path) if path else "",
        report=report if report is None or is_for_operator else _for_readers(sleeper, report, placements),
        verdict=verdict,
        comparison=compared[0] if compared else None,
        compared_by=compared[1] if compared else None,
        metrics=sleeper.metrics.shown(cycle),
        trained_ids=ids("train"),
        replayed_ids=ids("replay"),
        held_out_ids=ids("holdout"),
        undo=undo_of(cycle, sleeper.ledger, sleeper.checkpoints),
    )


def _for_readers(sleeper: Sleeper, report: Report, placements: Iterable[Placement]) -> Report:
    """The report without the prompts and replies of experiences whose texts are not for everybody who may look."""
    screenings = sleeper.intake.quarantine.screenings
    groups = {placement.id: placement for placement in placements}
    replies = [
        reply
        if (place := groups.get(reply.id)) and screenings.may_be_shown(place.key, place.group)
        else msgspec.structs.replace(reply, prompt="", text="")
        for reply in report.replies
    ]
    return msgspec.structs.replace(report, replies=replies)


def buffer_detail(sleeper: Sleeper) -> BufferDetail:
    """The buffer in figures."""
    view = sleeper.intake.view
    histogram = [0] * 10
    for salience in view.saliences:
        histogram[min(9, int(salience * 10 + 1e-6))] += 1
    return BufferDetail(
        status=_buffer(sleeper),
        histogram=histogram,
        set_aside=view.set_aside,
        min_salience=sleeper.config.training.min_salience,
    )


def offline_copies(sleeper: Sleeper, status: Status) -> dict[str, bytes]:
    """``status.json`` and ``history.json``: what clients read when nobody answers."""
    history = {"schema": SCHEMA, "written_at": status.written_at, "cycles": cycles(sleeper, limit=OFFLINE_CYCLES)}
    return {"status.json": msgspec.json.encode(status), "history.json": msgspec.json.encode(history)}


def write_offline_copies(directory: Path, copies: dict[str, bytes]) -> None:
    """Replace them. Blocks; call it in a thread.

    Raises:
        OSError: the disk did not take it.
    """
    for name, content in copies.items():
        replace_file(directory / name, content)


def older_result(sleeper: Sleeper, summary: CycleSummary) -> dict[str, Any]:
    """The result of a cycle as the older ``run_sleep_cycle`` returned it, and ours beside it.

    A cycle without a verdict has ``status`` (its state) and ``reason`` in place of losses.
    """
    at = summary.ended_at or summary.started_at
    report = sleeper.ledger.report(summary.cycle)
    if report is None:
        moment = legacy_formats.local_naive(at)
        return {
            "status": summary.state,
            "reason": summary.reason,
            "hint": summary.hint,
            "sleep_cycle": summary.cycle,
            "timestamp": moment,
            "promoted": False,
        }
    result = legacy_formats.cycle_results(summary.cycle, report, at=at)
    result["status"] = "completed"
    result["promoted"] = summary.state == State.PROMOTED
    result["reason"] = summary.reason
    result["holdout"] = {
        "before": report.holdout_before,
        "after": report.holdout_after,
        "experiences": report.held_out,
    }
    if report.learning_rate <= OLDER_LEARNING_RATE:
        result["notes"] = [
            f"learning_rate {report.learning_rate:g}: the older recipe at {OLDER_LEARNING_RATE:g} was measured to gain "
            "0.005 nats per token in a first cycle, which is next to nothing"
        ]
    return result
