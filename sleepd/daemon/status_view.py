"""How things stand, in the structures of ``status.py``: what ``sleepctl`` shows, live or from disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from sleepd.cycle import State
from sleepd.cycles.read_model import ReadModel
from sleepd.errors import NotFound
from sleepd.files import replace_file
from sleepd.policy.timing import triggers
from sleepd.policy.timing.simulation import Look
from sleepd.protocol.answers import WrittenCycles
from sleepd.protocol.checkpoint.base_identity import quantization_of
from sleepd.protocol.conversion import converted
from sleepd.protocol.deployment.serve_messages import ServedState
from sleepd.protocol.job import Report
from sleepd.protocol.status import (
    Alarm,
    BufferDetail,
    BufferMoment,
    BufferStatus,
    Champion,
    CycleDetail,
    CycleSummary,
    LastError,
    SkippedRecordView,
    Status,
)
from sleepd.protocol.strategy import FOREIGN
from sleepd.store import legacy_formats
from sleepd.store.checkpoint_documents import origin_at
from sleepd.store.sqlite.ledger_rows import CycleRecord, SplitAssignment
from sleepd.version import VERSION

from .legacy_view import adopted_champion, older_cycles
from .translation import decision_view

OFFLINE_CYCLES = 50
_SHOWN_RATINGS = 3
OLDER_LEARNING_RATE = 1e-5
"""What older callers ask for."""


def overview(reader: ReadModel, *, next_check_at: datetime | None, config_path: str, life: str = "") -> Status:
    """The whole state. ``life`` names a stage of the daemon's own life that outranks the rest: ``stopping``."""
    decision, error = reader.decision, reader.last_error
    if reader.running_cycle is not None:
        state = str(reader.state(reader.running_cycle))
    elif reader.suspended_cycle is not None and not reader.is_paused:
        state = "suspended"
    else:
        state = "paused" if reader.is_paused else "idle"
    return Status(
        state=life or state,
        since=reader.state_since,
        sentence=life or _sentence(reader, state),
        version=VERSION,
        pid=os.getpid(),
        decision=decision_view(decision),
        alarms=[converted(each, Alarm) for each in reader.active_alarms()],
        missing=triggers.missing(decision),
        next_check_at=next_check_at,
        buffer=_buffer(reader),
        champion=_champion(reader),
        total_cycles=reader.total_cycles,
        endings=reader.endings,
        recent_cycles=cycles(reader, limit=3),
        last_sleep_at=reader.last_sleep_at,
        last_error=converted(error, LastError) if error else None,
        progress=reader.progress,
        running_cycle=reader.running_cycle,
        config_path=config_path,
        state_directory=str(reader.directory),
        base=reader.config.model.base,
        adopted_strategy=reader.adopted_strategy,
        serving=reader.serving,
        free_bytes=reader.free_bytes,
        written_at=reader.now,
    )


def _sentence(reader: ReadModel, state: str) -> str:
    """What systemctl shows."""
    if reader.running_cycle is not None:
        progress = reader.progress
        return f"Cycle {reader.running_cycle}: {f'{progress.phase}{progress.step_text}' if progress else state}"
    decision, champion = reader.decision, reader.champion()
    in_use = "the base model" if champion is None else f"the adapter of cycle {champion}"
    warning = "".join(f"; {alarm.text}" for alarm in reader.active_alarms())
    serving, verb = reader.serving, "is in use"
    if serving is not None:
        is_served = serving.is_proved and serving.served == champion
        verb = "is promoted and served" if is_served else "is promoted, and not proved to be served"
    if state == "paused":
        return f"Paused; {in_use} {verb}{warning}"
    return f"Awake, {in_use} {verb}; {decision.reason}{warning}"


def _buffer(reader: ReadModel) -> BufferStatus:
    view, counts = reader.buffer.view, reader.buffer.counts
    unread_since, to_learn_since = reader.buffer.waits_since
    return BufferStatus(
        path=reader.config.buffer.path_text,
        form=view.form,
        total=counts.total,
        new=counts.new,
        eligible=counts.eligible,
        unlearned=counts.unlearned,
        held_out=counts.held_out,
        set_aside=view.skipped_total,
        quarantined=counts.quarantined,
        unscreened=counts.unscreened,
        personal=counts.personal,
        personal_data=reader.config.quarantine.personal_data,
        read_at=view.read_at,
        problem=reader.buffer.problem,
        unread_since=unread_since,
        to_learn_since=to_learn_since,
    )


def _champion(reader: ReadModel) -> Champion | None:
    cycle = reader.champion()
    if cycle is None:
        return None
    new_lineage = reader.why_new_lineage()
    if cycle in reader.adopted():
        return msgspec.structs.replace(adopted_champion(reader, cycle), new_lineage=new_lineage)
    try:
        record = reader.record(cycle)
    except NotFound:
        return None
    report, compared = reader.report(cycle), reader.comparison(cycle)
    return Champion(
        cycle=cycle,
        directory=str(reader.promoted_path(cycle)),
        promoted_at=record.ended_at or record.started_at,
        holdout_base=report.holdout_base if report else None,
        holdout_before=record.holdout_before,
        holdout_after=record.holdout_after,
        held_out=report.held_out if report else 0,
        quantization=quantization_of(report.base_fingerprint) if report else "",
        is_thin=record.is_thin,
        is_on_probation=reader.is_on_probation(cycle),
        comparison=compared[0] if compared else None,
        new_lineage=new_lineage,
        origin=origin_at(reader.promoted_path(cycle)),
    )


def cycles(reader: ReadModel, *, limit: int, before: int | None = None) -> list[CycleSummary]:
    """The last cycles (below ``before``), newest first; after ours those of the older scheduler."""
    champion, tags = reader.champion(), reader.tags
    ours = [_summary(reader, record, champion, tags) for record in reader.records(limit=limit, before=before)]
    if len(ours) == limit:
        return ours
    older = [
        msgspec.structs.replace(each, is_champion=each.cycle == champion)
        for each in older_cycles(reader)
        if before is None or each.cycle < before
    ]
    return [*ours, *older][:limit]


def _summary(reader: ReadModel, record: CycleRecord, champion: int | None, tags: Mapping[int, str]) -> CycleSummary:
    """With what the ledger does not know: whether it is in use, its tag, its origin, and whether its weights stay."""
    is_foreign = record.strategy.startswith(FOREIGN)
    path = reader.path(record.cycle) if is_foreign else None
    return converted(
        record,
        CycleSummary,
        is_champion=record.cycle == champion,
        tag=tags.get(record.cycle, "") or (record.strategy if is_foreign else ""),
        origin=origin_at(path) if path else None,
        is_pruned=reader.is_pruned(record.cycle),
        is_on_probation=record.is_on_probation and reader.is_on_probation(record.cycle),
    )


def detail(reader: ReadModel, cycle: int, *, is_for_operator: bool = False) -> CycleDetail:
    """One cycle in full; without the texts that only an operator may read.

    Raises:
        NotFound: there is no such cycle.
    """
    path, champion = reader.path(cycle), reader.champion()
    older = next((each for each in older_cycles(reader) if each.cycle == cycle), None)
    if older is not None:
        return _older_detail(reader, msgspec.structs.replace(older, is_champion=cycle == champion))
    record, assignments = reader.record(cycle), reader.assignments(cycle)
    (report, verdict), compared = reader.evaluation(cycle), reader.comparison(cycle)

    def ids(role: str) -> list[str]:
        return [assignment.id for assignment in assignments if assignment.role == role]

    return CycleDetail(
        summary=_summary(reader, record, champion, reader.tags),
        directory=str(path) if path else "",
        report=report if report is None or is_for_operator else _for_readers(reader, report, assignments),
        verdict=verdict,
        comparison=compared[0] if compared else None,
        compared_by=compared[1] if compared else None,
        metrics=reader.metrics(cycle),
        trained_ids=ids("train"),
        replayed_ids=ids("replay"),
        held_out_ids=ids("holdout"),
        released_ids=reader.released(cycle),
        undo=reader.undo(cycle),
        served=reader.served_of(cycle),
        origin=origin_at(path) if path else None,
        rival=_summary(reader, reader.record(record.rival), champion, reader.tags) if record.rival else None,
    )


def _older_detail(reader: ReadModel, summary: CycleSummary) -> CycleDetail:
    """Of a cycle of an older scheduler: its figures were not kept."""
    cycle = summary.cycle
    path = reader.path(cycle)
    return CycleDetail(
        summary=summary,
        directory=str(path) if path else "",
        report=None,
        metrics=reader.metrics(cycle),
        trained_ids=[],
        replayed_ids=[],
        held_out_ids=[],
        undo=reader.undo(cycle) if summary.state == "adopted" else "",
        served=reader.served_of(cycle),
    )


def _for_readers(reader: ReadModel, report: Report, assignments: Iterable[SplitAssignment]) -> Report:
    """The report without the prompts and replies of experiences whose texts are not for every reader of the status."""
    groups = {assignment.id: assignment for assignment in assignments}
    replies = [
        reply
        if (place := groups.get(reply.id)) and reader.buffer.may_be_shown(place.key, place.group)
        else msgspec.structs.replace(reply, prompt="", text="")
        for reply in report.replies
    ]
    return msgspec.structs.replace(report, replies=replies)


def buffer_detail(reader: ReadModel, *, moments: int = 0, ratings_without_reply: Sequence[str] = ()) -> BufferDetail:
    """The buffer in figures, with at most so many earlier moments, and where ratings stand that name no reply."""
    view = reader.buffer.view
    histogram = [0] * 10
    for salience in view.saliences:
        if salience >= 0:  # below: a person rated it down
            histogram[min(9, int(salience * 10 + 1e-6))] += 1
    return BufferDetail(
        status=_buffer(reader),
        histogram=histogram,
        set_aside=[converted(each, SkippedRecordView) for each in view.skipped],
        min_salience=reader.config.training.min_salience,
        left_out=view.left_out,
        rated_down=sum(salience < 0 for salience in view.saliences),
        ratings_without_reply=len(ratings_without_reply),
        ratings_without_reply_at=list(ratings_without_reply[:_SHOWN_RATINGS]),
        files=view.files,
        moments=[_moment(each) for each in (reader.spread_looks(moments) if moments else [])],
    )


def _moment(look: Look) -> BufferMoment:
    facts = look.facts
    return BufferMoment(
        at=look.at,
        total=facts.total,
        new=facts.new,
        unlearned=facts.trainable,
        held_out=facts.held_out,
        quarantined=facts.quarantined,
    )


def offline_copies(reader: ReadModel, status: Status) -> dict[str, bytes]:
    """``status.json`` and ``history.json``: what clients read when nobody answers."""
    history = WrittenCycles(
        written_at=status.written_at,
        cycles=cycles(reader, limit=OFFLINE_CYCLES),
        served=reader.served(limit=OFFLINE_CYCLES),
    )
    return {"status.json": msgspec.json.encode(status), "history.json": msgspec.json.encode(history)}


def write_offline_copies(directory: Path, copies: dict[str, bytes]) -> None:
    """Replace them. Blocks; call it in a thread.

    Raises:
        OSError: the disk did not take it.
    """
    for name, content in copies.items():
        replace_file(directory / name, content)


def older_result(reader: ReadModel, record: CycleRecord, rival: CycleRecord | None = None) -> dict[str, Any]:
    """The result of a cycle as the older ``run_sleep_cycle`` returned it, and ours beside it.

    A cycle without a verdict has ``status`` (its state) and ``reason`` in place of losses. Of a pair the other cycle is
    in ``rival``, in short.
    """
    if rival is not None:
        short = {"sleep_cycle": rival.cycle, "strategy": rival.strategy, "state": rival.state, "reason": rival.reason}
        return {**older_result(reader, record), "strategy": record.strategy, "rival": short}
    at = record.ended_at or record.started_at
    report = reader.report(record.cycle)
    if report is None:
        moment = legacy_formats.local_naive(at)
        return {
            "status": record.state,
            "reason": record.reason,
            "hint": record.hint,
            "sleep_cycle": record.cycle,
            "timestamp": moment,
            "promoted": False,
        }
    result = legacy_formats.cycle_results(record.cycle, report, at=at)
    result["status"] = "completed"
    result["promoted"] = record.state == State.PROMOTED
    result["reason"] = record.reason
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


def until_proved(serving: ServedState) -> str:
    """What becomes of the engine after another adapter was put in use; it is not done yet."""
    wanted = "the base" if serving.wanted is None else f"cycle {serving.wanted}"
    if serving.is_proved and serving.served == serving.wanted:
        return f"the engine at {serving.url} runs {wanted} already"
    runs = "the base" if serving.served is None else f"cycle {serving.served}"
    now = f"it runs {runs} until then" if serving.is_proved else "what it runs now is not proved"
    return f"the engine at {serving.url} is given {wanted} next; {now}; sleepctl status tells when it is proved"
