"""Tests of cycles that were interrupted: which are resumed, which are closed and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.cycles.running.planning import Order
from sleepd.daemon.status_view import overview
from sleepd.errors import Busy, NothingToDo
from sleepd.protocol.job import RESUME_POINT, decode_job
from sleepd.store.sqlite.ledger_rows import CycleRecord
from tests.agents import changed, experiences, write_buffer
from tests.stages import OpenSleeper, Stage, refresh


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Twelve experiences, and a first cycle that a shutdown interrupted."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.play(begin, behaviour="wait")
    return stage


async def begin(sleeper: OpenSleeper) -> None:
    await sleeper.begin(Order())


async def newest(sleeper: OpenSleeper) -> CycleRecord:
    await sleeper.refresh()
    return sleeper.parts.ledger.summaries(limit=1)[0]


async def cancel(sleeper: OpenSleeper) -> CycleRecord:
    return sleeper.parts.ledger.summary(sleeper.cancel())


async def explain(sleeper: OpenSleeper) -> Any:
    await sleeper.refresh()
    return overview(sleeper.reader, next_check_at=None, config_path="")


def staged(stage: Stage) -> list[str]:
    return [entry.name for entry in (stage.state / "staging").iterdir()]


def test_shutdown_suspends_and_start_resumes(stage: Stage) -> None:
    """The same cycle ends with the same experiences; no number is spent, nothing waits for a cooldown."""
    job = (stage.state / "staging/cycle_001/work/job.json").read_bytes()
    status = stage.play(explain)
    assert status.state == "suspended"
    assert status.decision.reason.startswith("Cycle 1 was interrupted")
    assert (stage.state / "staging/cycle_001/work/job.json").read_bytes() == job
    summary = stage.sleep()
    assert (summary.cycle, summary.state) == (1, "promoted")
    assert summary.trained + summary.held_out == 12
    assert staged(stage) == []


def test_a_cycle_keeps_its_day(stage: Stage) -> None:
    """A chat template that writes the date writes that of the cycle's beginning, whenever it goes on."""
    begun = stage.clock.now().astimezone().date().isoformat()
    stage.clock.advance(2 * 86_400)
    assert stage.play(explain).state == "suspended"
    job = decode_job((stage.state / "staging/cycle_001/work/job.json").read_bytes())
    assert (job.cycle, job.date) == (1, begun)


def test_resumed_run_ignores_due(stage: Stage) -> None:
    """A cycle under way answers for its own beginning: raised thresholds do not undo it, a pause holds it."""
    stage.config = changed(stage.config, "triggers", min_experiences=1000)

    async def pause(sleeper: OpenSleeper) -> Any:
        sleeper.pause(is_paused=True)
        held = await sleeper.refresh()
        sleeper.pause(is_paused=False)
        return held, await sleeper.refresh()

    held, freed = stage.play(pause)
    assert (held.should_sleep, held.reason) == (False, "Paused (sleepctl resume)")
    assert freed.should_sleep
    assert stage.sleep().cycle == 1


def test_a_removed_experience_closes_it(stage: Stage) -> None:
    """What the agent has deleted is not trained, although a copy of it was staged."""
    write_buffer(stage.buffer, experiences(12)[1:])
    summary = stage.play(newest)
    assert summary.state == "interrupted"
    assert summary.reason.startswith("it cannot go on: 1 of its ")
    assert summary.reason.endswith(f" {0:016x}")
    assert staged(stage) == []
    stage.clock.advance(601)
    assert stage.sleep().cycle == 2


def test_a_changed_experience_closes_it(stage: Stage) -> None:
    """The same id with another text is another experience."""
    records = experiences(12)
    records[3]["response"] = "I never said that."
    write_buffer(stage.buffer, records)
    assert "have another text now" in stage.play(newest).reason


def test_a_half_written_buffer_closes_nothing(stage: Stage) -> None:
    """While its writer is at work, nothing is concluded from what is missing."""
    stage.buffer.write_text(json.dumps(experiences(12))[:-200])
    assert stage.play(newest).state == "suspended"


def test_changed_base_closes_suspended_cycle(stage: Stage) -> None:
    """Half of a training on one base is of no use to another."""
    stage.config = changed(stage.config, "model", base="/models/other")
    assert "base is now /models/other" in stage.play(newest).reason


def test_changed_quantization_closes_suspended_cycle(stage: Stage) -> None:
    """The same base in four bits is another one."""
    stage.config = changed(stage.config, "model", quantization="nf4")
    assert "quantization is now nf4, it began with none" in stage.play(newest).reason


@pytest.mark.parametrize("damage", ["absent", "garbage", "other_cycle"])
def test_unreadable_job_closes_it(stage: Stage, damage: str) -> None:
    """The staging directory is parsed like any outside input."""
    path = stage.state / "staging/cycle_001/work/job.json"
    job = msgspec.json.decode(path.read_bytes())
    contents = {"absent": b"", "garbage": b"\xff{", "other_cycle": msgspec.json.encode({**job, "cycle": 7})}
    path.write_bytes(contents[damage])
    if damage == "absent":
        path.unlink()
    summary = stage.play(newest)
    assert summary.state == "interrupted"
    assert summary.reason.startswith("it cannot go on: ")
    assert staged(stage) == []


def test_other_code_interrupts_it(stage: Stage) -> None:
    """Only the worker can compare; its word closes the cycle without calling it a failure."""
    assert stage.sleep(behaviour="not_resumable").state == "interrupted"


def test_a_cancelled_one_is_discarded(stage: Stage) -> None:
    """Cancel works on what is suspended too."""
    assert stage.play(cancel).state == "cancelled"
    assert staged(stage) == []


def test_own_terms_are_refused_meanwhile(stage: Stage) -> None:
    """Asked for other epochs, nobody is led to believe that the suspended cycle has them."""

    async def other(sleeper: OpenSleeper) -> None:
        await sleeper.begin(Order(force=True, epochs=9))

    with pytest.raises(Busy, match="is resumed first"):
        stage.play(other)


def test_activating_champion_closes_it(tmp_path: Path) -> None:
    """A continuation of a champion that was rolled back is never finished."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep()
    stage.clock.advance(7 * 3600)
    stage.write(24)
    stage.play(begin, behaviour="wait")

    async def roll_back(sleeper: OpenSleeper) -> CycleRecord:
        sleeper.rollback(0)
        return sleeper.parts.ledger.summary(2)

    summary = stage.play(roll_back)
    assert (summary.state, summary.reason.split()[:2]) == ("interrupted", ["another", "champion"])


def test_continuation_of_champion_is_resumed(tmp_path: Path) -> None:
    """A cycle that continues the champion goes on while that is in use, and is closed where another one is."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep()
    stage.clock.advance(7 * 3600)
    stage.write(24)
    stage.play(begin, behaviour="wait")
    assert stage.play(newest).state == "suspended"
    (stage.state / "current").unlink()
    closed = stage.play(newest)
    assert (closed.state, "cycle_001" in closed.reason) == ("interrupted", True)


def test_dying_worker_is_resumed_finitely(tmp_path: Path) -> None:
    """Three deaths are waited out, longer each time; the fourth ends the cycle as failed."""
    stage = Stage(tmp_path)
    stage.write(12)
    for minutes in (10, 20, 40):
        assert stage.sleep(behaviour="die_resumably").state == "suspended"
        assert (stage.state / "staging/cycle_001" / RESUME_POINT).exists()
        status = stage.play(explain)
        assert status.decision.reason.startswith("Cooling down after cycle 1 ")
        assert status.decision.reason.endswith(f" ({minutes} min left)")
        assert "killed by SIGKILL" in status.last_error.message
        with pytest.raises(NothingToDo, match="Cooling down"):
            stage.sleep()
        stage.clock.advance(60 * minutes + 1)
    summary = stage.sleep(behaviour="die_resumably")
    assert (summary.cycle, summary.state) == (1, "failed")
    assert staged(stage) == []


def test_lost_line_suspends_finitely(tmp_path: Path) -> None:
    """Where the host is lost, it keeps the resume point: three times the cycle waits, then it has failed."""
    stage = Stage(tmp_path)
    stage.write(12)
    for minutes in (10, 20, 40):
        assert stage.sleep(behaviour="line_lost").state == "suspended"
        stage.clock.advance(60 * minutes + 1)
    assert stage.sleep(behaviour="line_lost").state == "failed"


def test_once_dead_worker_may_promote(tmp_path: Path) -> None:
    """After the wait the same cycle goes on to its verdict, and the error is gone."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep(behaviour="die_resumably")
    stage.clock.advance(601)
    summary = stage.sleep()
    assert (summary.cycle, summary.state) == (1, "promoted")
    assert stage.play(explain).last_error is None


def test_dying_daemon_resumes_finitely(stage: Stage) -> None:
    """Found in the middle of it at every start, the cycle is given up after the fourth."""

    async def die(sleeper: OpenSleeper) -> None:
        # As the ledger stands while a worker runs.
        sleeper.parts.ledger._db.execute("UPDATE cycles SET state='training' WHERE cycle=1")

    states = []
    for _ in range(4):
        stage.play(die)
        states.append(stage.play(newest).state)
    assert states == ["suspended", "suspended", "suspended", "interrupted"]


def test_a_suspended_cycle_survives_looking_again(stage: Stage) -> None:
    """Start after start without a chance to go on keeps it whole."""
    stage.config = changed(stage.config, "state", min_free_megabytes=10**9)
    for _ in range(3):
        decision = stage.play(refresh)
        assert decision.reason.startswith("Too little disk space")
    stage.config = changed(stage.config, "state", min_free_megabytes=0)
    assert stage.sleep().cycle == 1
