"""A clock that jumps: neither blocks sleep for ever nor starts a storm, and what cannot be right is named."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sleepd.cycle import State
from sleepd.cycles.running.planning import Order
from sleepd.daemon.status_view import overview
from sleepd.files import replace_file
from sleepd.store.legacy_formats import from_local, local_naive
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import fake_interpreter
from tests.processes import DaemonProcess
from tests.stages import OpenSleeper, Stage

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
def test_running_daemon_counts_elapsed_time(stage: Stage, jump: timedelta) -> None:
    """Whatever the wall clock does in between, the next sleep comes six hours after the last."""

    async def scene(sleeper: OpenSleeper) -> None:
        assert not (await sleeper.refresh()).should_sleep
        stage.clock.advance(3 * 3600)
        stage.clock.wall += jump
        halfway = await sleeper.refresh()
        assert not halfway.should_sleep
        assert hours_found(halfway) == pytest.approx(3.0)
        stage.clock.advance(3 * 3600)
        assert (await sleeper.refresh()).should_sleep

    stage.play(scene)


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())
def test_restart_waits_at_most_one_interval(stage: Stage, jump: timedelta) -> None:
    """A new process has only the wall clock: it may sleep at once or wait six hours, never longer, never twice."""
    stage.clock.wall += jump

    async def scene(sleeper: OpenSleeper) -> list[State]:
        slept = []
        for _ in range(14):
            decision = await sleeper.refresh()
            hours = hours_found(decision)
            assert hours is None or hours >= 0
            if decision.should_sleep:
                await sleeper.begin(Order())
                summary = await sleeper.finished()
                assert summary is not None
                slept.append(summary.state)
            stage.clock.advance(1800)
        return slept

    assert stage.play(scene) == ["promoted"]


def test_future_last_sleep_is_named(stage: Stage) -> None:
    """After a clock that was set back, status says so in a warning until time has caught up."""

    async def warnings(sleeper: OpenSleeper) -> list[str]:
        await sleeper.refresh()
        return [alarm.name for alarm in overview(sleeper.reader, next_check_at=None, config_path="").alarms]

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
def test_naive_times_parse_around_change(berlin: None, moment: datetime) -> None:
    """Before and after the clocks are set forward, and after they were set back, the moment is the same one."""
    assert from_local(local_naive(moment)) == moment


def test_repeated_hour_errs_by_one_hour(berlin: None) -> None:
    """A naive time in that hour cannot say which one it is; the older format has no more to give."""
    moment = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert abs(from_local(local_naive(moment)) - moment) <= HOUR


@pytest.mark.parametrize("start", [datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)])
def test_clock_change_allows_one_sleep(tmp_path: Path, berlin: None, start: datetime) -> None:
    """Every half hour of a night in which local time jumps: six real hours pass between two sleeps, no fewer."""
    stage = Stage(tmp_path)
    stage.clock.wall = start
    stage.write(12)

    async def scene(sleeper: OpenSleeper) -> list[float]:
        slept = []
        for half_hour in range(24):
            stage.write(12 + 2 * half_hour)
            if (await sleeper.refresh()).should_sleep:
                await sleeper.begin(Order())
                await sleeper.finished()
                slept.append(half_hour / 2)
            stage.clock.advance(1800)
            await asyncio.sleep(0)
        return slept

    assert stage.play(scene) == [0.0, 6.0]


SHIFTED = """
import os
from datetime import timedelta
from pathlib import Path
from sleepd.clock import SystemClock
real = SystemClock.now
SystemClock.now = lambda self: real(self) + timedelta(seconds=float(Path(os.environ["SHIFT"]).read_text()))
"""
"""The wall clock of a real daemon, moved by as many seconds as a file says; the monotonic one is the machine's."""


def test_real_daemon_survives_every_jump(tmp_path: Path) -> None:
    """An hour back, 1970, a year ahead: it answers, warns while the last sleep lies ahead, and sleeps no more often."""
    shift = tmp_path / "shift"
    shift.write_text("0")
    config = config_for(tmp_path, check_interval_seconds=1.0)
    config = changed(config, "worker", python=str(fake_interpreter(tmp_path / "python", "promote")))
    write_buffer(tmp_path / "buffer.json", experiences(12))
    now = datetime.now(UTC)
    jumps = {"an hour back": -HOUR, "1970": datetime(1970, 1, 2, tzinfo=UTC) - now, "a year ahead": timedelta(days=365)}
    with DaemonProcess(tmp_path, config, prelude=SHIFTED, SHIFT=str(shift)) as daemon:
        daemon.await_true(lambda: daemon.status().total_cycles == 1, "the first sleep")
        write_buffer(tmp_path / "buffer.json", experiences(24))
        for what, jump in jumps.items():
            replace_file(shift, str(jump.total_seconds()).encode())
            daemon.await_true(lambda jump=jump: daemon.status().written_at < now + jump + HOUR, what)
            names = ["clock_set_back"] if jump < timedelta(0) else []
            daemon.await_true(lambda names=names: [each.name for each in daemon.status().alarms] == names, what)
            assert hours_found(daemon.status().decision) < 1.0, what
            replace_file(shift, b"0")
            daemon.await_true(lambda: daemon.status().alarms == [], f"the end of {what}")
        assert daemon.status().total_cycles == 1
        assert "Traceback" not in daemon.log()
    replace_file(shift, str(timedelta(days=365).total_seconds()).encode())
    with DaemonProcess(tmp_path, config, prelude=SHIFTED, SHIFT=str(shift)) as daemon:
        daemon.await_true(lambda: daemon.status().total_cycles == 2, "a sleep after a restart in another year")
        write_buffer(tmp_path / "buffer.json", experiences(36))
        daemon.await_true(lambda: daemon.status().buffer.total == 36, "more experiences")
        assert not daemon.status().decision.should_sleep
