"""Tests of the ledger."""

from __future__ import annotations

import sqlite3
from array import array
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from sleepd.cycle import Event, State
from sleepd.errors import IllegalTransition, LedgerUnusable, NotFound
from sleepd.policy.judging.promotion import Gates, judge
from sleepd.policy.timing.triggers import Facts, Policy, decide
from sleepd.store.sqlite.ledger import KEPT_DECISIONS, Ledger
from sleepd.store.sqlite.ledger_rows import CycleRecord, Plan, SplitAssignment
from tests.test_promotion import collapse, report

NOW = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)
BIG = 2**64 - 1


def plan(cycle: int, *, parent: int | None = None, train: tuple[int, ...] = (1,), held: tuple[int, ...] = ()) -> Plan:
    assignments = [SplitAssignment(f"{key:016x}", key, key, "train", key) for key in train]
    assignments += [SplitAssignment(f"{key:016x}", key, key, "holdout", key) for key in held]
    return Plan(
        cycle=cycle,
        started_at=NOW,
        parent=parent,
        strategy="consolidate",
        is_forced=False,
        assignments=assignments,
        seen=array("Q", [*train, *held]),
    )


def run(ledger: Ledger, what: Plan, ending: Event = Event.PROMOTE) -> None:
    ledger.plan(what)
    ledger.advance(what.cycle, Event.TRAINING_STARTED, at=NOW)
    if ending in (Event.PROMOTE, Event.REJECT):
        ledger.advance(what.cycle, Event.EVALUATION_STARTED, at=NOW)
        ledger.advance(what.cycle, Event.REPORT_JUDGED, at=NOW, reason="because", report=report())
    ledger.advance(what.cycle, ending, at=NOW + timedelta(minutes=what.cycle), reason="because")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state.db")


def test_recorded_data_survive_reopening(tmp_path: Path) -> None:
    """A cycle, its report, its placements with keys of all 64 bits and its snapshot survive a restart."""
    first = Ledger(tmp_path / "state.db")
    run(first, plan(1, train=(1, BIG), held=(2**63,)))
    first.close()
    again = Ledger(tmp_path / "state.db")
    summary = again.summary(1)
    assert (summary.state, summary.trained, summary.held_out, summary.reason) == ("promoted", 2, 1, "because")
    assert summary.ended_at == NOW + timedelta(minutes=1)
    assert summary.judging == report().held_out
    assert again.report(1) == report()
    assert {assignment.key for assignment in again.assignments(1)} == {1, BIG, 2**63}
    assert list(again.seen(1)) == [1, BIG, 2**63]
    assert again.learned(1) == {1, BIG}


def test_summary_has_every_field(ledger: Ledger) -> None:
    """What stands in a line of the history, for a judged cycle and for one that came to no verdict."""
    run(ledger, plan(1))
    what = plan(2, parent=1, train=(1, 2), held=(3,))
    replayed = [SplitAssignment(f"{key:016x}", key, key, "replay", key) for key in range(4, 8)]
    assigned = [*what.assignments, *replayed]
    what = msgspec.structs.replace(what, strategy="gentle", is_forced=True, assignments=assigned)
    found, verdict = report(collapse=collapse(candidate={"loops": 2})), judge(report(), Gates(max_drift=0.5))
    assert verdict.gain is not None
    ledger.plan(what)
    ledger.advance(2, Event.TRAINING_STARTED, at=NOW)
    ledger.advance(2, Event.EVALUATION_STARTED, at=NOW)
    ledger.advance(2, Event.REPORT_JUDGED, at=NOW, report=found, verdict=verdict)
    ledger.advance(2, Event.PROMOTE, at=NOW + timedelta(hours=1), reason="because", hint="look")
    line = CycleRecord(
        cycle=2,
        state=State.PROMOTED,
        started_at=NOW,
        ended_at=NOW + timedelta(hours=1),
        parent=1,
        strategy="gentle",
        is_forced=True,
        trained=2,
        replayed=4,
        held_out=1,
        judging=9,
        holdout_before=found.holdout_before,
        holdout_after=found.holdout_after,
        train_before=3.0,
        train_after=2.0,
        reason="because",
        hint="look",
        gain_low=verdict.gain.low,
        gain_high=verdict.gain.high,
        drift=0.01,
        drift_limit=0.5,
        loops=2,
    )
    assert ledger.summary(2) == line
    ledger.mark_rolled_back([2], is_rolled_back=True)
    assert ledger.summary(2) == msgspec.structs.replace(line, is_rolled_back=True)
    run(ledger, plan(3), Event.FAIL)
    ended = NOW + timedelta(minutes=3)
    failed = CycleRecord(cycle=3, state=State.FAILED, started_at=NOW, ended_at=ended, trained=1, reason="because")
    assert ledger.summary(3) == msgspec.structs.replace(failed, strategy="consolidate")


@pytest.mark.parametrize(("held_out", "is_thin"), [(7, True), (8, False)])
def test_thin_evidence_is_marked(ledger: Ledger, held_out: int, is_thin: bool) -> None:
    """By the verdict, or by the report of a version whose verdicts did not say so."""
    judged = report(gains=[0.5] * held_out)
    for cycle, verdict in ((1, None), (2, judge(judged, Gates()))):
        ledger.plan(plan(cycle))
        ledger.advance(cycle, Event.TRAINING_STARTED, at=NOW)
        ledger.advance(cycle, Event.EVALUATION_STARTED, at=NOW)
        ledger.advance(cycle, Event.REPORT_JUDGED, at=NOW, report=judged, verdict=verdict)
        assert ledger.summary(cycle).is_thin is is_thin


def test_verdict_tells_what_the_report_does_not(ledger: Ledger) -> None:
    """Thin evidence and probation are the verdict's words, whatever the report would come to."""
    verdict = msgspec.structs.replace(judge(report(), Gates()), is_thin=True, is_on_probation=True)
    ledger.plan(plan(1))
    for event in (Event.TRAINING_STARTED, Event.EVALUATION_STARTED):
        ledger.advance(1, event, at=NOW)
    ledger.advance(1, Event.REPORT_JUDGED, at=NOW, report=report(), verdict=verdict)
    assert (ledger.summary(1).is_thin, ledger.summary(1).is_on_probation) == (True, True)


def test_unmeasured_is_no_figure(ledger: Ledger) -> None:
    """A report without holdout, drift and replies leaves these fields empty, and nothing is 0."""
    bare = report(holdout=[], drift=None, collapse=[])
    ledger.plan(plan(1))
    for event in (Event.TRAINING_STARTED, Event.EVALUATION_STARTED):
        ledger.advance(1, event, at=NOW)
    ledger.advance(1, Event.REPORT_JUDGED, at=NOW, report=bare, verdict=judge(bare, Gates()))
    line = ledger.summary(1)
    assert [line.gain_low, line.gain_high, line.drift, line.loops] == [None] * 4


def test_long_history_is_read_in_parts(ledger: Ledger) -> None:
    """The lines below a cycle are the next part; promoted ones are found without their reports, rolled back or not."""
    for cycle, ending in ((1, Event.PROMOTE), (2, Event.REJECT), (3, Event.PROMOTE), (4, Event.PROMOTE)):
        run(ledger, plan(cycle), ending)
    ledger.mark_rolled_back([4], is_rolled_back=True)
    assert [line.cycle for line in ledger.summaries(limit=2)] == [4, 3]
    assert [line.cycle for line in ledger.summaries(limit=2, before=3)] == [2, 1]
    assert ledger.promoted(above=1) == [4, 3]
    assert ledger.active() == [1, 3]


def test_an_illegal_event_changes_nothing(ledger: Ledger) -> None:
    """The table decides, and what it refuses is not recorded."""
    ledger.plan(plan(1))
    with pytest.raises(IllegalTransition):
        ledger.advance(1, Event.PROMOTE, at=NOW, reason="no")
    assert ledger.state(1) is State.PLANNED
    assert ledger.summary(1).reason == ""


def test_a_cycle_number_is_planned_once(ledger: Ledger) -> None:
    """Planning the same number again fails as a whole: no placement of the second plan stays."""
    ledger.plan(plan(1, train=(1,)))
    with pytest.raises(sqlite3.IntegrityError):
        ledger.plan(plan(1, train=(2,)))
    assert {assignment.key for assignment in ledger.assignments(1)} == {1}


def test_learned_is_champion_lineage(ledger: Ledger) -> None:
    """Rejected cycles and other lineages taught the champion nothing."""
    run(ledger, plan(1, train=(1,)))
    run(ledger, plan(2, parent=1, train=(2,)))
    run(ledger, plan(3, parent=2, train=(3,)), Event.REJECT)
    run(ledger, plan(4, parent=None, train=(4,)))
    assert ledger.lineage(2) == [2, 1]
    assert ledger.learned(2) == {1, 2}
    assert ledger.learned(4) == {4}
    assert ledger.learned(None) == set()


def test_long_lineage_is_asked_for_in_parts(ledger: Ledger) -> None:
    """Of a lineage of 202 cycles each one's experiences are learned."""
    rows = ((cycle, cycle - 1 or None) for cycle in range(1, 203))
    with ledger.database.transaction():
        ledger.database.executemany(
            "INSERT INTO cycles(cycle, state, started_at, parent, strategy, is_forced, seen) "
            "VALUES(?,'promoted','2026-01-10',?,'',0,x'')",
            rows,
        )
        for cycle in range(1, 203):
            ledger._insert_assignments(cycle, [SplitAssignment(str(cycle), cycle, cycle, "train", cycle)])
    assert ledger.learned(202) == set(range(1, 203))


@pytest.mark.parametrize("ending", [Event.FAIL, Event.CANCEL, Event.INTERRUPT])
def test_cycle_without_verdict_changes_nothing(ledger: Ledger, ending: Event) -> None:
    """A failed, cancelled or interrupted cycle is neither the last sleep nor a lesson."""
    run(ledger, plan(1, train=(1,)))
    run(ledger, plan(2, parent=1, train=(2,)), ending)
    judged = ledger.last_judged()
    assert judged is not None
    assert judged.cycle == 1
    assert ledger.own_by_state()[State.PROMOTED] == 1
    assert ledger.learned(1) == {1}
    assert ledger.open_cycles() == []


def test_cycles_without_verdict_are_counted(ledger: Ledger) -> None:
    """Two failures, a verdict, a cancelled one, a failure: two in a row."""
    run(ledger, plan(1), Event.FAIL)
    run(ledger, plan(2), Event.FAIL)
    assert [summary.cycle for summary in ledger.unjudged_in_a_row()] == [2, 1]
    run(ledger, plan(3), Event.REJECT)
    assert ledger.unjudged_in_a_row() == []
    run(ledger, plan(4), Event.CANCEL)
    run(ledger, plan(5), Event.FAIL)
    assert [summary.cycle for summary in ledger.unjudged_in_a_row()] == [5, 4]


def test_trained_text_is_never_held_out(ledger: Ledger) -> None:
    """The recorded side is that of the training, even if a later cycle placed the group otherwise."""
    run(ledger, plan(1, train=(1,), held=(2,)))
    run(ledger, plan(2, train=(3,), held=(1,)))
    run(ledger, plan(3, train=(2**63 - 1,), held=(BIG,)))  # SQLite holds no higher number
    assert ledger.recorded_splits() == {1: False, 2: True, 3: False, 2**63 - 1: False, BIG: True}


def test_an_unknown_cycle_is_named(ledger: Ledger) -> None:
    """Asking for a cycle that never was says so."""
    with pytest.raises(NotFound, match="cycle 9"):
        ledger.summary(9)


def test_decisions_come_newest_first(ledger: Ledger) -> None:
    """The decision and its facts are kept, the newest thousand of them."""
    for total in range(KEPT_DECISIONS + 5):
        facts = Facts(total=total, new=0, hours_since_last_sleep=None, trainable=0, held_out=0)
        ledger.record_decision(decide(facts, Policy()), facts, at=NOW)
    newest = ledger.decisions(limit=2)
    assert [record.facts["total"] for record in newest] == [KEPT_DECISIONS + 4, KEPT_DECISIONS + 3]
    assert len(ledger.decisions(limit=10**6)) == KEPT_DECISIONS


@pytest.mark.parametrize(
    "content", [b"this is no database, by any means " * 100, b"SQLite format 3\x00" + b"\x00" * 200]
)
def test_damaged_ledger_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no ledger is an error that names it, and it is left as it is."""
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(LedgerUnusable, match=r"state\.db") as refused:
        Ledger(path)
    assert refused.value.is_damage
    assert path.read_bytes() == content


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    """A schema from the future is left alone, and neither that nor what cannot be opened counts as damaged."""
    Ledger(tmp_path / "state.db").close()
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(LedgerUnusable, match="newer") as refused:
        Ledger(tmp_path / "state.db")
    assert not refused.value.is_damage
    (tmp_path / "folder").mkdir()
    with pytest.raises(LedgerUnusable, match="cannot be opened") as refused:
        Ledger(tmp_path / "folder")
    assert not refused.value.is_damage
