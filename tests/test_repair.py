"""Tests of what a running daemon does about a disk that failed, in the process of the test."""

from __future__ import annotations

import shutil
from array import array
from pathlib import Path

import pytest

from sleepd.cycle import State
from sleepd.errors import CheckpointInvalid, LedgerUnusable, StateDirectoryUnusable
from sleepd.store.sqlite.ledger_rows import Plan
from tests.stages import OpenSleeper, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def active(sleeper: OpenSleeper) -> dict[str, str]:
    return {alarm.name: alarm.text for alarm in sleeper.parts.alarms.active}


def plan(sleeper: OpenSleeper, cycle: int) -> None:
    """An open cycle, of which nothing is staged."""
    ledger, now = sleeper.parts.ledger, sleeper.parts.clock.now()
    ledger.plan(
        Plan(cycle=cycle, started_at=now, parent=None, strategy="", is_forced=False, assignments=[], seen=array("Q"))
    )


def test_history_is_written_when_possible(stage: Stage) -> None:
    """A history that could not be written is an alarm until it is written, and then it is not written again."""
    stage.make_champions(12)
    path = stage.state / "scheduler_state.json"

    async def scene(sleeper: OpenSleeper) -> None:
        path.unlink()
        path.mkdir()
        sleeper.parts.repair.write_history()
        assert "scheduler_state.json is not " in active(sleeper)["history_not_written"]
        path.rmdir()
        sleeper.parts.repair.catch_up()
        assert path.is_file()
        assert active(sleeper) == {}
        path.unlink()
        sleeper.parts.repair.catch_up()
        assert not path.exists()

    stage.play(scene)


def test_unrecorded_end_is_closed_later(stage: Stage) -> None:
    """A failed disk is an alarm; the next attempt closes the open cycle, writes the history and ends the alarm."""
    stage.make_champions(12)

    async def scene(sleeper: OpenSleeper) -> None:
        ledger, repair, history = sleeper.parts.ledger, sleeper.parts.repair, sleeper.parts.history
        with pytest.raises(StateDirectoryUnusable) as told, repair.responsible():
            raise OSError(28, "No space left")
        assert told.value.message.endswith(": [Errno 28] No space left")
        assert "df -h" in told.value.hint
        assert active(sleeper)["state_not_recorded"].startswith(told.value.message)
        plan(sleeper, 2)
        known = history.known()
        (stage.state / "scheduler_state.json").unlink()
        repair.catch_up()
        assert ledger.state(2) is State.INTERRUPTED
        assert (stage.state / "scheduler_state.json").exists()
        assert history.known() is not known
        assert active(sleeper) == {}
        plan(sleeper, 3)
        repair.catch_up()
        assert ledger.state(3) is State.PLANNED

    stage.play(scene)


def test_failing_recovery_stays_pending(stage: Stage) -> None:
    """A recovery that the disk refuses is named, its alarm lasts, and it is tried again."""

    async def scene(sleeper: OpenSleeper) -> None:
        repair, staging = sleeper.parts.repair, stage.state / "staging"
        with pytest.raises(LedgerUnusable, match="the ledger is full"), repair.responsible():
            raise LedgerUnusable("the ledger is full", hint="df -h")
        staging.rename(stage.state / "away")
        with pytest.raises(StateDirectoryUnusable, match="did not take it") as told:
            repair.catch_up()
        assert "df -h" in told.value.hint
        assert active(sleeper)["state_not_recorded"].startswith("the ledger is full")
        (stage.state / "away").rename(staging)
        repair.catch_up()
        assert active(sleeper) == {}

    stage.play(scene)


def test_damaged_champion_falls_back(stage: Stage) -> None:
    """The champion before the damaged one is in use at once, and what is known is what that one learned."""
    stage.make_champions(12, 24)

    async def scene(sleeper: OpenSleeper) -> None:
        repair, history = sleeper.parts.repair, sleeper.parts.history
        learned = history.known().learned
        error = CheckpointInvalid("its weights are damaged", hint="sleepctl rollback")
        assert repair.champion_damaged(error).message == "its weights are damaged"
        shutil.rmtree(stage.state / "cycle_002")
        told = repair.champion_damaged(error)
        assert "cycle 1 is in use" in told.message
        assert told.hint == "sleepctl rollback"
        assert sleeper.reader.champion() == 1
        assert len(history.known().learned) < len(learned)

    stage.play(scene)
