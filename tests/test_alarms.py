"""Tests of the warnings: a sleep that is due and does not come, and cycles that come too often."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sleepd.cycles.running.planning import Order
from sleepd.daemon.status_view import overview
from sleepd.policy.timing.overdue import Limits, alarms
from sleepd.policy.timing.triggers import Decision, Veto
from tests.agents import changed
from tests.stages import OpenSleeper, Stage

LIMITS = Limits(overdue_hours=24.0, max_cycles_a_day=3)


def decision(*vetoes: str, due: bool = True) -> Decision:
    made = [Veto(name=name, text=f"because {name}") for name in vetoes]
    return Decision(should_sleep=due and not made, due=due, reason="", conditions=[], vetoes=made)


CASES = [
    ("not due", decision(due=False), 99.0, 0, []),
    ("due and about to begin", decision(), 99.0, 0, []),
    ("held back, but not for long", decision("paused"), 23.9, 0, []),
    ("paused and forgotten", decision("paused"), 24.0, 0, ["overdue"]),
    ("failing", decision("cooling_down"), 30.0, 0, ["overdue"]),
    ("disk full", decision("disk_full"), 30.0, 0, ["overdue"]),
    ("nothing to train is nobody's fault", decision("nothing_to_train"), 99.0, 0, []),
    ("a cycle is running", decision("cycle_running"), 99.0, 0, []),
    ("as many cycles as allowed", decision(due=False), 0.0, 3, []),
    ("one more", decision(due=False), 0.0, 4, ["too_many_cycles"]),
    ("both", decision("paused"), 25.0, 4, ["overdue", "too_many_cycles"]),
]


@pytest.mark.parametrize(
    ("made", "hours", "cycles", "names"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_alarm_rules_hold(made: Decision, hours: float, cycles: int, names: list[str]) -> None:
    """Each warning has its limit, and each names what to do something about."""
    found = alarms(made, hours_due=hours, cycles_today=cycles, limits=LIMITS)
    assert [alarm.name for alarm in found] == names
    assert all(alarm.text for alarm in found)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path)
    stage.write(12)
    return stage


async def explain(sleeper: OpenSleeper) -> Any:
    await sleeper.refresh()
    return overview(sleeper.reader, next_check_at=None, config_path="")


async def pause(sleeper: OpenSleeper, is_paused: bool = True) -> None:
    sleeper.pause(is_paused=is_paused)


def test_forgotten_pause_warns_once(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Across restarts it is counted from when the sleep came due, said once in the log, and stands in the status."""
    stage.play(pause)
    stage.play(explain)
    for hours in (23, 1, 5):
        stage.clock.advance(hours * 3600)
        status = stage.play(explain)
    assert [alarm.text.partition(": ")[2] for alarm in status.alarms] == ["Paused (sleepctl resume)"]
    assert "due for 29 h" in status.sentence
    assert capsys.readouterr().out.count("overdue_began") == 1
    stage.play(lambda sleeper: pause(sleeper, is_paused=False))
    assert stage.play(explain).alarms == []
    assert capsys.readouterr().out.count("overdue_ended") == 1


def test_past_alarm_is_kept(stage: Stage) -> None:
    """An alarm is recorded with the poll that found it first and the poll that found it ended."""
    stage.play(pause)
    stage.play(explain)
    stage.clock.advance(30 * 3600)
    stage.play(explain)
    stage.play(lambda sleeper: pause(sleeper, is_paused=False))
    stage.clock.advance(60)
    stage.play(explain)

    async def past(sleeper: OpenSleeper) -> Any:
        return sleeper.reader.past_alarms(limit=9)

    (found,) = stage.play(past)
    assert (found.name, found.until - found.since) == ("overdue", timedelta(minutes=1))


def test_free_space_restarts_the_count(stage: Stage) -> None:
    """Two short pauses are no long one."""
    for _ in range(2):
        stage.play(pause)
        stage.play(explain)
        stage.clock.advance(20 * 3600)
        assert stage.play(explain).alarms == []
        stage.play(lambda sleeper: pause(sleeper, is_paused=False))
        stage.play(explain)


def test_clock_set_back_keeps_warnings_right(stage: Stage) -> None:
    """A time in the future counts from now on."""
    stage.play(pause)
    stage.play(explain)
    stage.clock.wall = stage.clock.wall.replace(year=2020)
    assert stage.play(explain).alarms == []

    async def later(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        stage.clock.advance(25 * 3600)
        return await explain(sleeper)

    assert [alarm.name for alarm in stage.play(later).alarms] == ["overdue"]


def test_many_cycles_a_day_warn(stage: Stage) -> None:
    """Whatever makes them: a day later it is over."""
    stage.config = changed(stage.config, "triggers", max_cycles_a_day=2)
    for count in (12, 24, 36):
        stage.write(count)
        stage.sleep(Order(force=True))
    (alarm,) = stage.play(explain).alarms
    assert re.findall(r"\d+", alarm.text)[:3] == ["3", "24", "2"]
    stage.clock.advance(25 * 3600)
    assert stage.play(explain).alarms == []


def test_changed_cause_is_logged(stage: Stage) -> None:
    """A warning that stands is logged again with another cause, in status and journal alike; not with other figures."""

    async def scene(sleeper: OpenSleeper) -> list[str]:
        with capture_logs() as lines:
            for text in ("7 MB are free", "5 MB are free", "the disk is read-only", ""):
                sleeper.parts.alarms.note("disk_full", text)
                assert [alarm.text for alarm in sleeper.parts.alarms.active] == ([text] if text else [])
        return [line.get("text", line["event"]) for line in lines]

    assert stage.play(scene) == ["7 MB are free", "the disk is read-only", "disk_full_ended"]
