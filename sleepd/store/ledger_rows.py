"""What the ledger records: a plan, the place of an experience, and a row of its cycles as a ``CycleSummary``."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from sleepd.protocol.job import Report, Role
from sleepd.protocol.status import CycleSummary
from sleepd.protocol.verdict import Verdict, is_low_sample


class Placement(msgspec.Struct, frozen=True):
    """Where one experience went in one cycle."""

    id: str
    key: int
    group: int
    role: Role


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A cycle before its worker exists."""

    cycle: int
    started_at: datetime
    parent: int | None
    strategy: str
    is_forced: bool
    placements: Sequence[Placement]
    seen: array[int]
    """Keys of the whole buffer at that moment (``array('Q')``)."""


SUMMARY_COLUMNS = "cycle, state, started_at, ended_at, parent, strategy, is_forced, is_rolled_back, reason, hint"


def summarise(
    row: Sequence[Any], placed: Mapping[str, int], report: Report | None, verdict: Verdict | None
) -> CycleSummary:
    """One cycle in a line.

    Args:
        row: its ``SUMMARY_COLUMNS``.
        placed: how many experiences it has in each role.
        report: what the worker reported; None: it did not come so far.
        verdict: what was decided; None: nothing was, or an older version decided it.
    """
    drift = report.evidence.drift if report else None
    return CycleSummary(
        cycle=row[0],
        state=row[1],
        started_at=datetime.fromisoformat(row[2]),
        ended_at=datetime.fromisoformat(row[3]) if row[3] else None,
        parent=row[4],
        strategy=row[5],
        is_forced=bool(row[6]),
        is_rolled_back=bool(row[7]),
        reason=row[8],
        hint=row[9],
        trained=placed.get("train", 0),
        replayed=placed.get("replay", 0),
        held_out=placed.get("holdout", 0),
        judging=report.held_out if report else None,
        holdout_before=report.holdout_before if report else None,
        holdout_after=report.holdout_after if report else None,
        train_before=report.train_before if report else None,
        train_after=report.train_after if report else None,
        drift=drift.candidate if drift else None,
        is_thin=report is not None and is_low_sample(report.held_out),
        is_on_probation=verdict is not None and verdict.is_on_probation,
    )
