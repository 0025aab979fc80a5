"""Tests of what moves the thresholds for a sleep: salience, breakthroughs, the trend of the last cycles."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.policy.timing.thresholds import (
    LEARNED_BY_HEART,
    LEAST,
    MOST,
    NO_GAIN,
    Adjustment,
    Judged,
    Trend,
    adjustments,
    factor_of,
    trend,
)
from sleepd.policy.timing.triggers import Policy, decide
from tests.kept import kept
from tests.test_triggers import facts


@pytest.mark.parametrize(
    ("salience", "hours", "should_sleep"),
    [
        (0.80, 3.0, True),
        (0.80, 2.9, False),
        (0.75, 3.0, False),
        (0.70, 6.0, True),
        (0.65, 6.0, True),
        (0.60, 6.0, False),
        (0.60, 12.0, True),
        (None, 6.0, True),
    ],
)
def test_salience_moves_the_thresholds(salience: float | None, hours: float, should_sleep: bool) -> None:
    """With a factor of 2, salient new experiences halve the hours, plain ones double them, others leave them."""
    found = decide(
        facts(new=9, new_salience=salience, hours_since_last_sleep=hours),
        Policy(quality_factor=2.0, min_new_experiences=4),
    )
    assert found.should_sleep is should_sleep


@pytest.mark.parametrize(("salience", "new", "should_sleep"), [(0.8, 2, True), (0.8, 1, False), (0.6, 8, True)])
def test_salience_moves_the_count(salience: float, new: int, should_sleep: bool) -> None:
    """Half as many salient experiences are enough, and twice as many plain ones are needed."""
    found = decide(
        facts(new=new, new_salience=salience, hours_since_last_sleep=24.0),
        Policy(quality_factor=2.0, min_new_experiences=4),
    )
    assert found.should_sleep is should_sleep


def test_moved_threshold_says_why() -> None:
    """The condition shows the required figure, the factor and the reason."""
    found = decide(facts(new_salience=0.81, hours_since_last_sleep=1.0), Policy(quality_factor=2.0))
    assert found.reason == kept("moved-threshold", found.reason)


def test_moved_threshold_is_a_change() -> None:
    """A decision with another required figure is recorded, also where its outcome is the same."""
    plain, salient = (
        decide(facts(new_salience=salience, hours_since_last_sleep=1.0), Policy(quality_factor=2.0))
        for salience in (0.7, 0.8)
    )
    assert plain.should_sleep is salient.should_sleep is False
    assert plain.change_key != salient.change_key


@pytest.mark.parametrize(
    ("changes", "should_sleep", "reason"),
    [
        ({}, True, "Breakthrough: a new experience has a salience of 0.95"),
        ({"most_salient_new": 0.9}, True, "Breakthrough: a new experience has a salience of 0.90"),
        ({"most_salient_new": 0.89}, False, "Insufficient experiences (1 < 5)"),
        ({"cooldown_seconds_left": 60.0, "last_ending": "failed"}, False, "Cooling down after a failed cycle"),
        ({"is_paused": True}, False, "Paused"),
    ],
)
def test_breakthrough_is_due_at_once(changes: dict[str, Any], should_sleep: bool, reason: str) -> None:
    """A new experience of very high salience makes a cycle due; cooldown and vetoes hold it back all the same."""
    known = facts(**{"total": 1, "new": 1, "hours_since_last_sleep": 0.1, "most_salient_new": 0.95} | changes)
    found = decide(known, Policy(breakthrough_salience=0.9))
    assert found.should_sleep is should_sleep
    assert found.reason.startswith(reason)
    assert not decide(known, Policy()).should_sleep


@pytest.mark.parametrize(
    ("changes", "should_sleep", "reason"),
    [
        ({}, True, "Breakthrough: new experiences"),
        ({"marked_new": 0}, False, "Insufficient experiences (1 < 5)"),
        ({"cooldown_seconds_left": 60.0, "last_ending": "failed"}, False, "Cooling down after a failed cycle"),
        ({"trainable": 0}, False, "Nothing to train"),
    ],
)
def test_marked_breakthrough_is_due_at_once(changes: dict[str, Any], should_sleep: bool, reason: str) -> None:
    """A new experience that bears a mark makes a cycle due; cooldown and vetoes hold it back all the same."""
    found = decide(facts(**{"total": 1, "new": 1, "hours_since_last_sleep": 0.1, "marked_new": 1} | changes), Policy())
    assert found.should_sleep is should_sleep
    assert found.reason.startswith(reason)


def judged(outcome: str, gain: float | None = 0.0, trained: float | None = 0.0) -> Judged:
    return Judged(outcome=outcome, gain=gain, trained_gain=trained)


GOOD, FLAT, BAD = judged("promoted", 0.2, 1.0), judged("inconclusive", 0.005), judged("rejected", -0.1)


@pytest.mark.parametrize(
    ("cycles", "expected"),
    [
        ([], ""),
        ([BAD, BAD], ""),
        ([GOOD, GOOD, GOOD], "improving"),
        ([FLAT, FLAT, FLAT], "flat"),
        ([FLAT, FLAT, GOOD], "improving"),
        ([FLAT, GOOD, FLAT], "improving"),
        ([BAD, GOOD, GOOD], "overfitting"),
        ([GOOD, BAD, BAD], "improving"),
        ([judged("inconclusive", -0.02, 0.9), GOOD, GOOD], "overfitting"),
        ([judged("promoted", -0.02, 0.9), GOOD, GOOD], "improving"),
        ([judged("inconclusive", 0.02, 0.9), FLAT, FLAT], "improving"),
        ([judged("inconclusive", None, None), FLAT, FLAT], "flat"),
        ([FLAT, FLAT, FLAT, GOOD], "flat"),
        ([judged("inconclusive", NO_GAIN), FLAT, FLAT], "improving"),
        ([judged("inconclusive", 0.0, LEARNED_BY_HEART), FLAT, FLAT], "flat"),
        ([judged("inconclusive", 0.0, LEARNED_BY_HEART + 0.01), FLAT, FLAT], "overfitting"),
        ([judged("inconclusive", None, LEARNED_BY_HEART + 0.01), FLAT, FLAT], "overfitting"),
    ],
)
def test_the_trend_of_the_cycles(cycles: list[Judged], expected: Trend) -> None:
    """From the last three cycles with a verdict: rejected or learned by heart, without any gain, or improving."""
    assert trend(cycles) == expected


@pytest.mark.parametrize(("of_cycles", "factor"), [("", 1.0), ("improving", 1.0), ("flat", 0.5), ("overfitting", 2.0)])
def test_trend_counts_if_wanted(of_cycles: Trend, factor: float) -> None:
    """Flat cycles halve the thresholds, overfitting doubles them; without ``triggers.adaptive`` neither does."""
    known = facts(new=9, hours_since_last_sleep=1.0, trend=of_cycles)
    required = [each.required for each in decide(known, Policy(is_adaptive=True)).conditions]
    assert required == [5, max(1, 2 * factor), 6 * factor]
    assert [each.required for each in decide(known, Policy()).conditions] == [5, 2, 6]


@given(st.lists(st.floats(0.1, 10.0), max_size=5))
def test_factor_is_bounded(factors: list[float]) -> None:
    """All factors together make a cycle due at most four times as early or as late."""
    assert LEAST <= factor_of([Adjustment(each, "") for each in factors]) <= MOST


def test_no_reason_without_change() -> None:
    """With a factor of 1 the salience moves nothing and is not mentioned."""
    assert adjustments(new_salience=0.9, quality_factor=1.0, of_cycles="") == []
