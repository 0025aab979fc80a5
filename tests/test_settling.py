"""Tests of a verdict put into effect: where an inconclusive candidate goes, after a crash and a lost ledger too."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sleepd.cycle import Event
from sleepd.cycles.running.planning import Order
from sleepd.daemon.status_view import detail
from sleepd.errors import LedgerUnusable
from sleepd.protocol.verdict import Outcome
from sleepd.store.checkpoints import verify
from sleepd.store.sqlite.ledger import Ledger
from tests.agents import changed
from tests.stages import OpenSleeper, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """An owner who keeps the champion where the evidence is open, and evidence that will be."""
    stage = Stage(tmp_path)
    stage.config = changed(stage.config, "promotion", inconclusive="keep")
    stage.write(9)
    return stage


async def shown(sleeper: OpenSleeper) -> Any:
    await sleeper.refresh()
    return detail(sleeper.reader, 1), sleeper.reader.decision.should_sleep


def test_inconclusive_candidate_is_not_used(stage: Stage) -> None:
    """It stands in retired/ with its verdict, counts as a sleep, and what it learned is still to be learned."""
    summary = stage.sleep(behaviour="open")
    assert (summary.state, summary.is_thin) == ("inconclusive", True)
    assert not (stage.state / "current").exists()
    assert verify(stage.state / "retired" / "cycle_001").verdict == "inconclusive"
    assert "candidate_left_open" in [name for name, _ in stage.events]
    found, should_sleep = stage.play(shown)
    assert found.verdict.outcome is Outcome.INCONCLUSIVE
    assert not should_sleep, "nothing is new since"

    async def to_learn(sleeper: OpenSleeper) -> int:
        await sleeper.refresh()
        return sleeper.parts.intake.counts.unlearned

    assert stage.play(to_learn) == summary.trained


def test_the_verdict_outlives_the_ledger(stage: Stage) -> None:
    """Rebuilt from the checkpoint, the cycle has the same state, figures and interval."""
    stage.sleep(behaviour="open")
    before = stage.play(shown)
    (stage.state / "state.db").unlink()
    assert stage.play(shown) == before


def test_a_crash_before_the_last_record(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start finishes what was decided, and does not make a rejection of it."""

    class PowerCut(BaseException):
        pass

    real = Ledger.advance

    def advance(self: Ledger, cycle: int, event: Event, **more: Any) -> Any:
        if event is Event.LEAVE_OPEN:
            raise PowerCut
        return real(self, cycle, event, **more)

    async def scene(sleeper: OpenSleeper) -> None:
        await sleeper.begin(Order())
        await sleeper.finished()

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "advance", advance)
        with pytest.raises(PowerCut):
            stage.play(scene, behaviour="open")
    found, _ = stage.play(shown)
    assert found.summary.state == "inconclusive"
    assert found.verdict.outcome is Outcome.INCONCLUSIVE


def test_locked_ledger_is_recorded_reason(stage: Stage) -> None:
    """An end that a locked database kept from being recorded is closed with that cause, and not as a crash of ours."""

    async def scene(sleeper: OpenSleeper) -> str:
        sleeper.parts.ledger._db.execute("PRAGMA busy_timeout=20")
        with closing(sqlite3.connect(stage.state / "state.db", isolation_level=None)) as other:
            await sleeper.begin(Order())
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerUnusable, match="database is locked"):
                await sleeper.finished()
        await sleeper.refresh()
        return sleeper.parts.ledger.summary(1).reason

    reason = stage.play(scene, behaviour="open")
    assert reason.startswith("its end could not be ")
    assert "database is locked" in reason
    assert "sage-sleepd ended" not in reason
    assert ("cycle_ended", {"cycle": 1, "state": "not recorded"}) in stage.events
