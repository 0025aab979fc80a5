"""Tests of a life in which the second cycle learns what it was told, and is no better on what it never trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sleepd.cycles.running.planning import Order
from sleepd.cycles.running.resume import staged_job
from sleepd.daemon.status_view import detail
from sleepd.protocol.verdict import LearnedGain
from sleepd.sleepctl.pages.lines.cycle_sentences import sentences
from tests.stages import OpenSleeper, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Cycle 1 was promoted as better, cycle 2 because it learned; then more came."""
    stage = Stage(tmp_path)
    stage.make_champions(12)
    stage.write(24)
    stage.sleep(behaviour="learn")
    stage.clock.advance(7 * 3600)
    stage.write(36)
    return stage


async def shown(sleeper: OpenSleeper) -> Any:
    await sleeper.refresh()
    return detail(sleeper.reader, 2)


def test_second_night_learns_what_was_told(stage: Stage) -> None:
    """It is put in use, and reason, report and verdict say what was measured; also after the ledger was lost."""
    found = stage.play(shown)
    assert (found.summary.state, found.summary.is_champion, found.summary.is_on_probation) == ("promoted", True, False)
    assert found.summary.reason.startswith("learned what was told: ")
    assert "2.100 -> 0.300 nats/token" in found.summary.reason
    assert "not shown better on " in found.summary.reason
    assert isinstance(found.verdict.learned, LearnedGain)
    said = " ".join(sentences(found))
    assert "2.10 → 0.30" in said
    assert "did not fall: 3.00 → 3.00" in said
    (stage.state / "state.db").unlink()
    again = stage.play(shown)
    assert (again.summary.reason, again.verdict) == (found.summary.reason, found.verdict)


def test_what_it_learned_is_not_told_again(stage: Stage) -> None:
    """The third cycle trains what is new alone, replays the rest, and compares within the margin."""

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        await sleeper.begin(Order())
        job = staged_job(sleeper.parts.checkpoints, 3)
        sleeper.cancel()
        await sleeper.finished()
        return job

    second = stage.play(shown)
    assert stage.play(scene, behaviour="wait").later_margin == second.verdict.learned.margin
    stage.clock.advance(3600)
    summary = stage.sleep(behaviour="learn")
    assert summary.replayed == len(second.trained_ids) + len(second.replayed_ids)


def test_small_loss_within_margin_stays(stage: Stage) -> None:
    """Later experiences find it worse by 0.06, which its verdict allowed: it is not rolled back."""
    assert stage.sleep(behaviour="learn").state == "promoted"
    comparison = stage.play(shown).comparison
    assert comparison.outcome == "not_worse"
    assert comparison.reason.startswith("cycle 2 is not worse")


def test_larger_loss_rolls_back(stage: Stage) -> None:
    """Later experiences find it worse by 0.5: it is rolled back, whatever it learned."""
    assert stage.sleep(behaviour="worse").state == "interrupted"
    comparison = stage.play(shown).comparison
    assert (comparison.outcome, (stage.state / "current").resolve().name) == ("worse", "cycle_001")
    assert comparison.reason.startswith("cycle 2 is worse")
