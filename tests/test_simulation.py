"""Tests of decisions on recorded facts: what other thresholds would have done, and when the next sleep is expected."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sleepd.policy.timing.forecast import forecast
from sleepd.policy.timing.simulation import Look, Simulation, simulate
from sleepd.policy.timing.triggers import Policy, decide
from tests.test_triggers import facts

START = datetime(2026, 1, 10, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def look(hours: float, total: int, new: int, **changes: Any) -> Look:
    return Look(at(hours), facts(**{"total": total, "new": new, "hours_since_last_sleep": None} | changes))


def hours_of(found: Simulation) -> list[float]:
    return [(each.at - START).total_seconds() / 3600 for each in found.sleeps]


CASES: list[tuple[str, list[Look], Policy, list[float]]] = [
    ("nothing was recorded", [], Policy(), []),
    ("the first look is due", [look(0, 9, 9)], Policy(), [0.0]),
    ("too few at first", [look(0, 4, 4), look(1, 5, 5)], Policy(), [1.0]),
    ("new ones come before the hours", [look(0, 9, 9), look(2, 11, 2), look(20, 11, 2)], Policy(), [0.0, 6.0]),
    ("new ones come after the hours", [look(0, 9, 9), look(8, 11, 2)], Policy(), [0.0, 8.0]),
    ("fewer hours", [look(0, 9, 9), look(2, 11, 2)], Policy(min_hours_between_sleep=1.0), [0.0, 2.0]),
    ("more new ones", [look(0, 9, 9), look(8, 11, 2)], Policy(min_new_experiences=3), [0.0]),
    ("new ones add up", [look(0, 9, 9), look(8, 11, 2), look(9, 12, 3)], Policy(min_new_experiences=3), [0.0, 9.0]),
    ("a real sleep in between", [look(0, 9, 9), look(8, 11, 2), look(9, 13, 2)], Policy(), [0.0, 8.0, 14.0]),
    ("a cleared buffer", [look(0, 9, 9), look(1, 9, 0), look(8, 6, 6)], Policy(), [0.0, 8.0]),
    ("paused meanwhile", [look(0, 9, 9, is_paused=True), look(3, 9, 9)], Policy(), [3.0]),
    ("slept before", [look(0, 9, 4, hours_since_last_sleep=2.0)], Policy(), [4.0]),
    (
        "salient new ones halve the hours",
        [look(0, 9, 9), look(1, 19, 10, new_salience=0.8)],
        Policy(quality_factor=2.0),
        [0.0, 3.0],
    ),
    ("a cycle was running", [look(0, 9, 9, running_cycle=3)], Policy(), [0.0]),
    ("a cycle was suspended", [look(0, 9, 9, suspended_cycle=3)], Policy(), [0.0]),
    ("a pause after a failure", [look(0, 9, 9, cooldown_seconds_left=600.0)], Policy(), [0.0]),
    ("the real sleep left nothing", [look(0, 9, 9, trainable=0)], Policy(), [0.0]),
    (
        "a breakthrough counts once",
        [look(0, 1, 1, most_salient_new=0.95), look(9, 1, 1, most_salient_new=0.95)],
        Policy(breakthrough_salience=0.9),
        [0.0],
    ),
    ("nothing new is left", [look(0, 9, 9)], Policy(min_new_experiences=0), [0.0]),
    (
        "a marked breakthrough counts once",
        [look(0, 1, 1, marked_new=1), look(9, 1, 1, marked_new=1)],
        Policy(),
        [0.0],
    ),
    ("a breakthrough", [look(0, 1, 1, most_salient_new=0.95)], Policy(breakthrough_salience=0.9), [0.0]),
]


@pytest.mark.parametrize(("looks", "policy", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_simulated_sleeps(looks: list[Look], policy: Policy, expected: list[float]) -> None:
    """Each sleep begins at the look, or between two looks at the hour, at which the thresholds are first met."""
    assert hours_of(simulate(looks, policy, until=at(24))) == expected


def test_waiting_is_counted_by_reason() -> None:
    """The hours without a sleep are counted by what was missing first, and add up to the whole time."""
    found = simulate([look(0, 4, 4), look(2, 9, 9), look(10, 9, 0)], Policy(), until=at(24))
    assert found.hours_waited == {"min_experiences": 2.0, "min_new_experiences": 22.0}


def test_a_month_takes_no_time() -> None:
    """A month of hourly looks is decided once each, and a few times more where the hours pass between two looks."""
    chance = random.Random(1)
    total, looks = 5, []
    for hour in range(720):
        total += chance.random() < 0.3
        looks.append(look(hour, total, total))
    found = simulate(looks, Policy(), until=at(720))
    assert 60 < len(found.sleeps) <= 120
    assert sum(found.hours_waited.values()) == pytest.approx(720)
    assert sum(each.new for each in found.sleeps) <= total


@pytest.mark.parametrize(
    ("looks", "now", "hours", "reason"),
    [
        ([], facts(), 0.0, "it is due now"),
        ([], facts(is_paused=True), None, "it is due, and waits: Paused (sleepctl resume)"),
        ([], facts(hours_since_last_sleep=2.0), 4.0, "if experiences go on coming at that rate"),
        ([], facts(new=1, hours_since_last_sleep=10.0), 10.0, "if experiences go on coming at that rate"),
        ([], facts(new=0, hours_since_last_sleep=9.0), None, "2 experiences are missing, and no experience came"),
        ([], facts(total=1, new=1, hours_since_last_sleep=None), None, "4 experiences are missing, and no rate"),
        ([look(-10, 0, 0)], facts(total=2, new=2, hours_since_last_sleep=None), 15.0, "if experiences go on"),
        ([look(-20, 0, 0)], facts(new=1, hours_since_last_sleep=4.0), 2.0 + 2 / 9, "if experiences go on"),
        ([look(-2, 9, 0)], facts(new=1, hours_since_last_sleep=10.0), 10.0, "if experiences go on"),
        ([look(-0.5, 0, 0)], facts(total=2, new=2, hours_since_last_sleep=None), 0.75, "if experiences go on"),
    ],
)
def test_expected_sleep(looks: list[Look], now: Any, hours: float | None, reason: str) -> None:
    """The next sleep is expected when the last condition will hold, at the rate at which experiences came."""
    found = forecast(looks, now, decide(now, Policy()), START)
    assert found.reason.startswith(reason)
    assert (found.at is None) == (hours is None)
    if found.at is not None and hours is not None:
        assert (found.at - START).total_seconds() / 3600 == pytest.approx(hours, abs=0.01)


@pytest.mark.parametrize(
    ("looks", "now", "per_day"),
    [
        ([], facts(total=1, new=1, hours_since_last_sleep=None), None),
        ([], facts(new=0, hours_since_last_sleep=9.0), 0.0),
        ([], facts(new=2, hours_since_last_sleep=12.0), 4.0),
        ([look(-12, 10, 1)], facts(total=16, new=7, hours_since_last_sleep=None), 12.0),
        ([look(-12, 10, 1), look(-6, 4, 4)], facts(total=6, new=6, hours_since_last_sleep=None), 10.0),
    ],
)
def test_rate_of_experiences(looks: list[Look], now: Any, per_day: float | None) -> None:
    """It is read off the recorded time, or off the time since the last sleep; a cleared buffer takes nothing away."""
    assert forecast(looks, now, decide(now, Policy()), START).per_day == per_day
