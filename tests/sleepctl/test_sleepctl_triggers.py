"""Tests of ``sleepctl when`` and ``sleepctl simulate``."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from sleepd.clock import SystemClock
from sleepd.protocol import control
from sleepd.protocol.answers import ExpectedSleep, SimulatedSleepView, SimulatedTriggers, SimulatedView
from tests.kept import kept
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]
NOW = SystemClock().now()


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (ExpectedSleep(at=NOW + timedelta(hours=5), per_day=3.0, reason="if it goes on so"), "Expected "),
        (ExpectedSleep(at=NOW - timedelta(seconds=1), per_day=3.0, reason="it is due now"), "Now: it is due"),
        (ExpectedSleep(at=None, per_day=None, reason="it waits"), "No time is expected: it waits"),
    ],
)
def test_expected_sleep_is_shown(daemon: FakeDaemon, sleepctl: Sleepctl, found: ExpectedSleep, shown: str) -> None:
    """When the next sleep is expected, and how many experiences come in a day, as far as that is known."""
    daemon.replies[control.When] = found
    ran = sleepctl("when")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(shown)
    assert ("not known yet" if found.per_day is None else "3.0 a day") in ran.out
    assert sleepctl("when", "--json").json["reason"] == found.reason


def simulated(sleeps: int) -> SimulatedTriggers:
    slept = [
        SimulatedSleepView(at=NOW - timedelta(hours=7 * n), total=90, new=4, reason="Ready") for n in range(sleeps)
    ]
    view = SimulatedView(sleeps=slept[::-1], hours_waited={"min_new_experiences": 30.0, "paused": 200.0})
    none = SimulatedView(sleeps=[], hours_waited={})
    return SimulatedTriggers(first=NOW - timedelta(days=9), looks=44, began=3, configured=none, given=view)


def test_simulation_is_shown(daemon: FakeDaemon, sleepctl: Sleepctl, environment: Path) -> None:
    """The file's triggers are sent; shown are the newest sleeps of both sides, and what was missing, longest first."""
    file = environment / "new.toml"
    file.write_text("[triggers]\nmin_new_experiences = 40\nquality_factor = 2.0\n")
    daemon.replies[control.Simulate] = simulated(25)
    ran = sleepctl("simulate", "--config", str(file), "--since", "9d")
    assert (ran.code, ran.err) == (0, "")
    shown = re.findall(r"(\d+) sleeps|and (\d+) earlier|(paused|min_new_experiences)", ran.out)
    assert ["".join(found) for found in shown] == ["0", "25", "5", "paused", "min_new_experiences"]
    (asked,) = daemon.requests
    assert isinstance(asked, control.Simulate)
    assert (asked.triggers.min_new_experiences, asked.triggers.quality_factor) == (40, 2.0)
    assert timedelta(days=8.9) < SystemClock().now() - asked.since < timedelta(days=9.1)


def test_simulation_needs_another_file(sleepctl: Sleepctl) -> None:
    """Without --config there is nothing to compare; the next step is said."""
    ran = sleepctl("simulate")
    assert ran.code == 2
    assert "sleepctl simulate --config NEW.toml" in ran.err


def test_nothing_recorded_is_said(daemon: FakeDaemon, sleepctl: Sleepctl, environment: Path) -> None:
    """Where no facts were recorded in that time, no figures are shown."""
    file = environment / "new.toml"
    file.write_text("[triggers]\nadaptive = true\n")
    empty = SimulatedView(sleeps=[], hours_waited={})
    daemon.replies[control.Simulate] = SimulatedTriggers(first=None, looks=0, began=0, configured=empty, given=empty)
    shown = sleepctl("simulate", "--config", str(file)).out
    assert shown == kept("simulated-nothing", shown)
