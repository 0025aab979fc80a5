"""What the ledger records: a plan, the place of an experience, and a row of its cycles as a ``CycleRecord``."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from sleepd.clock import Moment
from sleepd.cycle import State
from sleepd.policy.timing.triggers import Decision
from sleepd.protocol.job import Role
from sleepd.protocol.strategy import FOREIGN
from sleepd.protocol.verdict import Interval, is_low_sample

from .database import signed, unsigned


class SplitAssignment(msgspec.Struct, frozen=True):
    """Where one experience went in one cycle."""

    id: str
    key: int
    group: int
    role: Role
    conversation: int
    """What is equal for all that must be on one side of the split; see ``experience.conversation_of``."""


IS_AMONG = "state IN (SELECT value FROM json_each(?))"
IS_OWN = f"strategy NOT LIKE '{FOREIGN}%'"
"""Conditions on a row of ``cycles``: its state is in a list, and it trained here and judged no foreign adapter."""
ASSIGNMENT_COLUMNS = "id, key, grp, role, coalesce(conversation, grp)"
SPLIT_QUERIES = tuple(
    f"SELECT {side}, min(role='holdout') FROM placements WHERE {condition} AND {side}>=? "  # noqa: S608 - names of ours
    f"GROUP BY {side} ORDER BY {side} LIMIT 5000"
    for side, condition in (("grp", "conversation IS NULL"), ("conversation", "conversation IS NOT NULL"))
)
"""Of each side, a page at a time, whether it is held out. A row without a conversation is one of its own."""


def of_several(row: SplitAssignment) -> int | None:
    """The conversation as a column; None: the experience is a conversation of its own."""
    return None if row.conversation == row.group else signed(row.conversation)


def as_assignment(row: Sequence[Any]) -> SplitAssignment:
    """From its ``ASSIGNMENT_COLUMNS``."""
    id_, key, group, role, conversation = row
    return SplitAssignment(id_, unsigned(key), unsigned(group), role, unsigned(conversation))


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A cycle before its worker exists."""

    cycle: int
    started_at: datetime
    parent: int | None
    strategy: str
    is_forced: bool
    assignments: Sequence[SplitAssignment]
    rival: int | None = None
    """See ``CycleRecord.rival``."""
    seen: array[int]
    """Keys of the whole buffer at that moment (``array('Q')``)."""

    @property
    def terms(self) -> tuple[int | None, str, bool, int | None]:
        """As columns."""
        return self.parent, self.strategy, self.is_forced, self.rival


class CycleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One cycle, as far as the ledger alone knows it."""

    cycle: int
    state: State
    started_at: Moment
    ended_at: Moment | None = None
    parent: int | None = None
    """The champion it continues; None: the base."""
    strategy: str = ""
    rival: int | None = None
    """The other cycle of its pair, which trained another strategy on the same experiences; None: it is in no pair."""
    pair_gain: float | None = None
    """By how much its loss on held-out experiences is below that of its rival; None: the two were not compared."""
    is_forced: bool = False
    is_rolled_back: bool = False
    trained: int = 0
    replayed: int = 0
    held_out: int = 0
    judging: int | None = None
    """Of the held-out ones, those that the holdout losses are of. None: all of them."""
    holdout_before: float | None = None
    holdout_after: float | None = None
    train_before: float | None = None
    train_after: float | None = None
    reason: str = ""
    """The verdict's, or why it failed."""
    hint: str = ""
    gain_low: float | None = None
    """The bounds of the gain on held-out experiences, each at ``promotion.confidence``."""
    gain_high: float | None = None
    drift: float | None = None
    """KL from the base on reference prompts, nats per token."""
    drift_limit: float | None = None
    """What it was held against; None: it was not measured, or the cycle is old and its limits stand in its files."""
    loops: int | None = None
    """Of the replies to the probe prompts, those that run in a loop."""
    energy_joules: float | None = None
    """What its GPU drew; None: not measured."""
    worker_seconds: float | None = None
    """Wall time of its worker; None: it did not report."""
    is_thin: bool = False
    """Judged on fewer than eight held-out experiences."""
    is_on_probation: bool = False
    """Its verdict promoted it on open evidence; what later experiences decided is not in it."""


class RecordedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with the facts it rests on: recorded when it changed."""

    at: Moment
    decision: Decision
    facts: dict[str, Any]


def as_recorded_decision(row: Sequence[Any]) -> RecordedDecision:
    """From the moment, the decision and the facts as the ledger keeps them."""
    at, decision, facts = row
    return RecordedDecision(
        at=datetime.fromisoformat(at),
        decision=msgspec.json.decode(decision, type=Decision),
        facts=msgspec.json.decode(facts),
    )


class _Speech(msgspec.Struct):
    loops: int


class _Collapse(msgspec.Struct):
    candidate: _Speech


class _Drift(msgspec.Struct):
    candidate: float


class _Evidence(msgspec.Struct):
    drift: _Drift | None = None
    collapse: list[_Collapse] = []


class _ReportFigures(msgspec.Struct):
    """Of a worker's ``Report`` what a line shows: a thousand whole ones would take a second and much memory."""

    held_out: int
    holdout_before: float | None
    holdout_after: float | None
    train_before: float | None
    train_after: float | None
    energy_joules: float | None = None
    seconds: dict[str, float] = {}
    evidence: _Evidence = msgspec.field(default_factory=_Evidence)


class _Limit(msgspec.Struct):
    name: str
    limit: float | None


class _Pair(msgspec.Struct):
    holdout: Interval | None = None


class _VerdictFigures(msgspec.Struct):
    """The same of a ``Verdict``."""

    pair: _Pair | None = None
    figures: list[_Limit] = []
    gain: Interval | None = None
    is_thin: bool = False
    is_on_probation: bool = False


SUMMARY_COLUMNS = (
    "cycle, state, started_at, ended_at, parent, strategy, is_forced, is_rolled_back, reason, hint, report, verdict, "
    "rival"
)
_report = msgspec.json.Decoder(_ReportFigures)
_verdict = msgspec.json.Decoder(_VerdictFigures)


def summarise(row: Sequence[Any], assigned: Mapping[str, int]) -> CycleRecord:
    """One cycle in a line.

    Args:
        row: its ``SUMMARY_COLUMNS``.
        assigned: how many experiences it has in each role.
    """
    report = _report.decode(row[10]) if row[10] else None
    verdict = _verdict.decode(row[11]) if row[11] else None
    return CycleRecord(
        cycle=row[0],
        state=State(row[1]),
        started_at=datetime.fromisoformat(row[2]),
        ended_at=datetime.fromisoformat(row[3]) if row[3] else None,
        parent=row[4],
        strategy=row[5],
        rival=row[12],
        is_forced=bool(row[6]),
        is_rolled_back=bool(row[7]),
        reason=row[8],
        hint=row[9],
        trained=assigned.get("train", 0),
        replayed=assigned.get("replay", 0),
        held_out=assigned.get("holdout", 0),
        is_thin=verdict.is_thin if verdict else report is not None and is_low_sample(report.held_out),
        is_on_probation=verdict is not None and verdict.is_on_probation,
        **(_measured(report) if report else {}),
        **(_judged(verdict) if verdict else {}),
    )


def _measured(report: _ReportFigures) -> dict[str, Any]:
    drift, collapse = report.evidence.drift, report.evidence.collapse
    return {
        "judging": report.held_out,
        "holdout_before": report.holdout_before,
        "holdout_after": report.holdout_after,
        "train_before": report.train_before,
        "train_after": report.train_after,
        "energy_joules": report.energy_joules,
        "worker_seconds": sum(report.seconds.values()) if report.seconds else None,
        "drift": drift.candidate if drift else None,
        "loops": sum(each.candidate.loops for each in collapse) if collapse else None,
    }


def _judged(verdict: _VerdictFigures) -> dict[str, Any]:
    gain = verdict.gain
    return {
        "gain_low": gain.low if gain else None,
        "gain_high": gain.high if gain else None,
        "pair_gain": verdict.pair.holdout.estimate if verdict.pair and verdict.pair.holdout else None,
        "drift_limit": next((each.limit for each in verdict.figures if each.name == "drift"), None),
    }
