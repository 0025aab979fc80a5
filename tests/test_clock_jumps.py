"""A clock that jumps: neither blocks sleep for ever nor starts a storm, and what cannot be right is named."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sleepd.older_formats import from_local, local_naive
from sleepd.overview import overview
from sleepd.protocol import Run
from sleepd.sleeper import Sleeper
from tests.stages import Stage

HOUR = timedelta(hours=1)
JUMPS = {
    "an hour back": -HOUR,
    "a year forward": timedelta(days=365),
    "to 1970": datetime(1970, 1, 1, tzinfo=UTC) - datetime(2026, 1, 10, 6, tzinfo=UTC),
    "a minute forward": timedelta(minutes=1),
}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Has slept just now, and has enough new experiences for the next time."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep()
    stage.write(24)
    return stage


def hours_found(decision: Any) -> float:
    return next(each.found for each in decision.conditions if each.name == "min_hours_between_sleep")


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())
def test_under_a_running_daemon_the_interval_is_what_passed(stage: Stage, jump: timedelta) -> None:
    """Whatever the wall clock does in between, the next sleep comes six hours after the last."""

    async def scene(sleeper: Sleeper) -> None:
        assert not (await sleeper.look()).should_sleep
        stage.clock.advance(3 * 3600)
        stage.clock.wall += jump
        halfway = await sleeper.look()
        assert not halfway.should_sleep
        assert hours_found(halfway) == pytest.approx(3.0)
        stage.clock.advance(3 * 3600)
        assert (await sleeper.look()).should_sleep

    stage.play(scene)


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())
def test_across_a_restart_it_waits_at_most_one_interval(stage: Stage, jump: timedelta) -> None:
    """A new process has only the wall clock: it may sleep at once or wait six hours, never longer, never twice."""
    stage.clock.wall += jump

    async def scene(sleeper: Sleeper) -> list[str]:
        slept = []
        for _ in range(14):
            decision = await sleeper.look()
            hours = hours_found(decision)
            assert hours is None or hours >= 0
            if decision.should_sleep:
                await sleeper.begin(Run())
                summary = await sleeper.finished()
                assert summary is not None
                slept.append(summary.state)
            stage.clock.advance(1800)
        return slept

    assert stage.play(scene) == ["promoted"]


def test_a_last_sleep_in_the_future_is_named(stage: Stage) -> None:
    """After a clock that was set back, status says so in a warning until time has caught up."""

    async def warnings(sleeper: Sleeper) -> list[str]:
        await sleeper.look()
        return [alarm.name for alarm in overview(sleeper, next_check_at=None, config_path="").alarms]

    assert stage.play(warnings) == []
    stage.clock.wall -= timedelta(days=3)
    assert stage.play(warnings) == ["clock_set_back"]
    stage.clock.wall += timedelta(days=3)
    assert stage.play(warnings) == []


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A time zone whose clocks are set forward and back."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 29, 0, 59, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 1, tzinfo=UTC),
        datetime(2026, 10, 25, 2, 30, tzinfo=UTC),
    ],
)
def test_naive_local_times_parse_back_around_a_change(berlin: None, moment: datetime) -> None:
    """Before and after the clocks are set forward, and after they were set back, the moment is the same one."""
    assert from_local(local_naive(moment)) == moment


def test_the_hour_that_comes_twice_is_off_by_one_hour_at_most(berlin: None) -> None:
    """A naive time in that hour cannot say which one it is; the older format has no more to give."""
    moment = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert abs(from_local(local_naive(moment)) - moment) <= HOUR


@pytest.mark.parametrize("start", [datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)])
def test_a_night_with_a_change_of_the_clocks_has_one_sleep(tmp_path: Path, berlin: None, start: datetime) -> None:
    """Every half hour of a night in which local time jumps: six real hours pass between two sleeps, no fewer."""
    stage = Stage(tmp_path)
    stage.clock.wall = start
    stage.write(12)

    async def scene(sleeper: Sleeper) -> list[float]:
        slept = []
        for half_hour in range(24):
            stage.write(12 + 2 * half_hour)
            if (await sleeper.look()).should_sleep:
                await sleeper.begin(Run())
                await sleeper.finished()
                slept.append(half_hour / 2)
            stage.clock.advance(1800)
            await asyncio.sleep(0)
        return slept

    assert stage.play(scene) == [0.0, 6.0]
