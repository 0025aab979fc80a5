"""The JSON files of a checkpoint beside its weights: what it was made from, what was measured on it, and the older
formats.

``lineage.json`` and ``evaluation.json`` hold all that the ledger knows of a judged cycle, so that a lost ledger can be
rebuilt from them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from sleepd.buffer.experience import hash_text, id_hash
from sleepd.clock import Moment
from sleepd.errors import DECODE_ERRORS, CheckpointInvalid
from sleepd.files import read_document as read_json
from sleepd.log import get_logger
from sleepd.protocol.checkpoint.checkpoint_files import (
    EVALUATION_FILE,
    LINEAGE_FILE,
    AssignedExperience,
    Evaluation,
    Lineage,
)
from sleepd.protocol.checkpoint.origin import ORIGIN_FILE, Origin
from sleepd.protocol.job import Report
from sleepd.protocol.verdict import Verdict

from . import legacy_formats
from .checkpoints import Checkpoints
from .sqlite.ledger import Ledger
from .sqlite.ledger_rows import CycleRecord, SplitAssignment
from .sqlite.released import released_in

_T = TypeVar("_T")

KEPT_RESULTS = 50
"""Of a lineage, in ``training_state.json``: with all of them each checkpoint would be larger than the one before."""


def assignments_in(lineage: Lineage) -> list[SplitAssignment]:
    """As the ledger has them."""
    return [
        SplitAssignment(
            experience.id,
            id_hash(experience.id),
            int(experience.group, 16),
            role,
            int(experience.conversation or experience.group, 16),
        )
        for experience, role in lineage.assigned()
    ]


def seen_in(lineage: Lineage) -> array[int]:
    """As the ledger has them."""
    return array("Q", (int(key, 16) for key in lineage.seen))


def write_documents(
    ledger: Ledger, summary: CycleRecord, report: Report, verdict: Verdict, *, base: str, judged_at: Moment
) -> dict[str, bytes]:
    """The files by name, for a cycle whose plan is in the ledger."""
    cycle = summary.cycle
    assigned: dict[str, list[AssignedExperience]] = {"train": [], "replay": [], "holdout": []}
    for assignment in ledger.assignments(cycle):
        group, conversation = hash_text(assignment.group), hash_text(assignment.conversation)
        row = AssignedExperience(assignment.id, group, "" if conversation == group else conversation)
        assigned[assignment.role].append(row)
    lineage = Lineage(
        cycle=cycle,
        parent=summary.parent,
        started_at=summary.started_at,
        judged_at=judged_at,
        is_forced=summary.is_forced,
        rival=summary.rival,
        trained=assigned["train"],
        replayed=assigned["replay"],
        held_out=assigned["holdout"],
        released=released_in(cycle, ledger),
        seen=[hash_text(key) for key in ledger.seen(cycle)],
    )
    results = legacy_formats.cycle_results(cycle, report, at=judged_at)
    line = ledger.lineage(summary.parent)
    history = [*_ancestors(ledger, line[: KEPT_RESULTS - 1]), results]
    total = ledger.trained_in([*line, cycle])
    contents = {
        "cycle_results.json": results,
        "training_state.json": legacy_formats.training_state(history, total=total, model_path=base, at=judged_at),
        LINEAGE_FILE: lineage,
        EVALUATION_FILE: Evaluation(verdict=verdict, report=report),
    }
    return {
        name: msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n" for name, content in contents.items()
    }


def assignments_of(cycle: int, ledger: Ledger, checkpoints: Checkpoints) -> list[SplitAssignment]:
    """Where each experience went; of an old cycle, for which the ledger keeps few of them, as its checkpoint has it."""
    lineage = _kept(cycle, ledger, checkpoints, LINEAGE_FILE, Lineage)
    return assignments_in(lineage) if lineage else ledger.assignments(cycle)


def released_of(cycle: int, ledger: Ledger, checkpoints: Checkpoints) -> list[str]:
    """Ids of what it trained and an earlier cycle had held out; of an old cycle as its checkpoint has it."""
    lineage = _kept(cycle, ledger, checkpoints, LINEAGE_FILE, Lineage)
    return lineage.released if lineage else released_in(cycle, ledger)


def seen_by(cycle: int, ledger: Ledger, checkpoints: Checkpoints) -> array[int]:
    """Keys of the whole buffer when that cycle was planned; of an old cycle as its checkpoint has it.

    Raises:
        CheckpointInvalid: the ledger has dropped it, and the checkpoint does not have it either.
    """
    if not ledger.is_compact(cycle):
        return ledger.seen(cycle)
    path = checkpoints.find(cycle) or checkpoints.promoted_path(cycle)
    return seen_in(read_document(path / LINEAGE_FILE, Lineage))


def evaluation_of(cycle: int, ledger: Ledger, checkpoints: Checkpoints) -> tuple[Report | None, Verdict | None]:
    """What the worker reported and what was decided; of an old cycle with the long lists that its checkpoint has."""
    kept = _kept(cycle, ledger, checkpoints, EVALUATION_FILE, Evaluation)
    return (kept.report, kept.verdict) if kept else (ledger.report(cycle), ledger.verdict(cycle))


def origin_at(path: Path) -> Origin | None:
    """Where the adapter of the checkpoint at ``path`` came from; None: it was trained here, or it cannot be read."""
    try:
        return msgspec.json.decode(read_json(path / ORIGIN_FILE), type=Origin)
    except (OSError, *DECODE_ERRORS):
        return None


def _kept(cycle: int, ledger: Ledger, checkpoints: Checkpoints, name: str, kind: type[_T]) -> _T | None:
    """The document of a cycle that is no longer whole in the ledger; None: it is, or it cannot be read."""
    path = checkpoints.find(cycle)
    if path is None or not ledger.is_compact(cycle):
        return None
    try:
        return read_document(path / name, kind)
    except CheckpointInvalid as error:
        get_logger().warning("document_unreadable", cycle=cycle, text=error.message, hint=error.hint)
        return None


def _ancestors(ledger: Ledger, lineage: Sequence[int]) -> list[dict[str, object]]:
    """The older results of a lineage, oldest first."""
    results = []
    for ancestor in reversed(lineage):
        report = ledger.report(ancestor)
        if report is not None:  # there is none of an older trainer's, whose losses are of another kind
            summary = ledger.summary(ancestor)
            moment = summary.ended_at or summary.started_at
            results.append(legacy_formats.cycle_results(ancestor, report, at=moment))
    return results


def read_document(path: Path, kind: type[_T]) -> _T:
    """``lineage.json`` or ``evaluation.json`` of a checkpoint.

    Raises:
        CheckpointInvalid: it is not there, or cannot be understood.
    """
    try:
        return msgspec.json.decode(read_json(path), type=kind)
    except (OSError, *DECODE_ERRORS) as error:
        raise CheckpointInvalid(f"{path}: {error}", hint=f"move {path.parent} away if it is of no use") from error
