"""Tests of what earlier cycles and an older scheduler left behind, on a ledger without a service."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sleepd.cycle import Event
from sleepd.cycles.history import NotedError, PastCycles
from sleepd.cycles.running.resume import note_crash
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.ledger import Ledger
from tests.test_ledger import NOW, plan, run
from tests.test_promotion import report


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state.db")


def history(directory: Path, ledger: Ledger) -> PastCycles:
    return PastCycles(directory, ledger, Checkpoints(directory))


def judge(ledger: Ledger, cycle: int, ending: Event, **measured: Any) -> None:
    ledger.plan(plan(cycle))
    ledger.advance(cycle, Event.TRAINING_STARTED, at=NOW)
    ledger.advance(cycle, Event.EVALUATION_STARTED, at=NOW)
    ledger.advance(cycle, Event.REPORT_JUDGED, at=NOW, report=report(**measured))
    ledger.advance(cycle, ending, at=NOW + timedelta(minutes=cycle))


def test_newest_failure_is_told(tmp_path: Path, ledger: Ledger) -> None:
    """A failed cycle is told until one is judged, a cancelled one never, a suspended one where a death cut it short."""
    past = history(tmp_path, ledger)
    assert past.newest_failure() is None
    run(ledger, plan(1), Event.FAIL)
    run(ledger, plan(2), Event.CANCEL)
    failed = NotedError(message="cycle 1 failed: because", hint="", at=NOW + timedelta(minutes=1))
    assert past.newest_failure() == failed
    ledger.plan(plan(3))
    ledger.advance(3, Event.SUSPEND, at=NOW, reason="shut down", hint="")
    assert past.newest_failure() == failed
    ledger.advance(3, Event.CANCEL, at=NOW)
    ledger.plan(plan(4))
    ledger.advance(4, Event.SUSPEND, at=NOW + timedelta(hours=1), reason="killed", hint="df -h")
    cut = NotedError(message="cycle 4 was interrupted: killed", hint="df -h", at=NOW)
    assert past.newest_failure() == cut
    note_crash(ledger, 4, NOW + timedelta(hours=2))
    found = past.newest_failure()
    assert found is not None
    assert found.at == NOW + timedelta(hours=2)
    ledger.advance(4, Event.CANCEL, at=NOW)
    run(ledger, plan(5), Event.REJECT)
    assert past.newest_failure() is None


@pytest.mark.parametrize(
    ("gains", "train_after", "found"),
    [([-0.1] * 9, 1.0, "overfitting"), ([-0.1] * 9, 3.0, "flat"), ([0.3] * 9, 1.0, "improving")],
)
def test_trend_takes_both_gains(
    tmp_path: Path, ledger: Ledger, gains: list[float], train_after: float, found: str
) -> None:
    """It is that of the losses before and after, on what was held out and on what was trained."""
    for cycle in (1, 2, 3):
        judge(ledger, cycle, Event.LEAVE_OPEN, gains=gains, train_before=3.0, train_after=train_after)
    assert history(tmp_path, ledger).trend == found


def test_next_number_is_above_all(tmp_path: Path, ledger: Ledger) -> None:
    """Neither the ledger, nor a directory, nor the older scheduler's history has the number of the next cycle."""
    assert history(tmp_path, ledger).next_cycle() == 1
    run(ledger, plan(3), Event.FAIL)
    assert history(tmp_path, ledger).next_cycle() == 4
    Checkpoints(tmp_path).stage(7)
    assert history(tmp_path, ledger).next_cycle() == 8


@pytest.mark.parametrize(
    ("last", "listed", "next_one"), [(12, 9, 13), (0, 9, 10), (2, 1, 3)], ids=["noted", "listed", "few"]
)
def test_older_numbers_are_not_reused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], last: int, listed: int, next_one: int
) -> None:
    """The last cycle that the older scheduler noted or listed is counted on from; the log says what was taken over."""
    entry = {"cycle": listed, "timestamp": "2026-01-07T03:00:00", "num_experiences": 6, "final_loss": 2.0}
    state = {"last_sleep_cycle": last, "last_sleep_time": "2026-01-07T03:00:00", "total_sleep_cycles": 2}
    (tmp_path / "scheduler_state.json").write_text(json.dumps({**state, "sleep_history": [entry]}))
    ledger = Ledger(tmp_path / "state.db")
    past = history(tmp_path, ledger)
    assert re.search("2 sleeps so far, .* 2026-01-07T03:00:00", capsys.readouterr().out)
    assert (past.next_cycle(), past.total_cycles) == (next_one, 2)
    assert [each.cycle for each in past.imported_entries()] == [listed]
    again = history(tmp_path, ledger)
    assert (again.next_cycle(), again.total_cycles) == (next_one, 2)
    assert "sleeps so far" not in capsys.readouterr().out


def test_own_entries_are_not_imported(tmp_path: Path) -> None:
    """Of a file to which this service has added, only the older scheduler's part is taken over."""
    entries = [
        {"cycle": number, "timestamp": f"2026-01-0{number}T03:00:00", "num_experiences": 6, "final_loss": 2.0}
        for number in (1, 2, 3)
    ]
    state = {"last_sleep_cycle": 3, "last_sleep_time": "2026-01-03T03:00:00", "total_sleep_cycles": 3}
    (tmp_path / "scheduler_state.json").write_text(json.dumps({**state, "sleep_history": entries}))
    ledger = Ledger(tmp_path / "state.db")
    run(ledger, plan(3), Event.PROMOTE)
    past = history(tmp_path, ledger)
    assert [each.cycle for each in past.imported_entries()] == [1, 2]
    assert [each.cycle for each in past.entries()] == [1, 2, 3]
    assert past.total_cycles == 3
    assert past.next_cycle() == 4
