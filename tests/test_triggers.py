"""Tests of the decision: every rule as a table of cases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.config.schema import Config
from sleepd.config.worker_config import WorkerConfig
from sleepd.policy.timing.forecast import forecast
from sleepd.policy.timing.overdue import is_overdue
from sleepd.policy.timing.triggers import Facts, Policy, Thresholds, cooldown_seconds, decide, missing

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def facts(**changes: Any) -> Facts:
    """Facts under which a sleep is due and nothing speaks against it."""
    due: dict[str, Any] = {"total": 9, "new": 3, "hours_since_last_sleep": 7.0, "trainable": 3, "held_out": 1}
    return Facts(**(due | changes))


@pytest.mark.parametrize(
    ("changes", "should_sleep", "reason"),
    [
        ({}, True, "Ready: 9 experiences (3 new), sufficient time elapsed"),
        ({"hours_since_last_sleep": None}, True, "Ready: 9 experiences (3 new), sufficient time elapsed"),
        ({"total": 3}, False, "Insufficient experiences (3 < 5)"),
        ({"total": 5}, True, "Ready: 5 experiences (3 new), sufficient time elapsed"),
        ({"new": 1}, False, "Insufficient new experiences (1 < 2)"),
        ({"new": 2}, True, "Ready: 9 experiences (2 new), sufficient time elapsed"),
        ({"hours_since_last_sleep": 0.41}, False, "Too soon since last sleep (0.4h < 6.0h)"),
        ({"hours_since_last_sleep": 6.0}, True, "Ready: 9 experiences (3 new), sufficient time elapsed"),
        ({"total": 3, "new": 0, "hours_since_last_sleep": 0.0}, False, "Insufficient experiences (3 < 5)"),
        ({"is_paused": True}, False, "Paused (sleepctl resume)"),
        ({"running_cycle": 7}, False, "Cycle 7 is under way"),
        (
            {"cooldown_seconds_left": 600.0, "unjudged_in_a_row": 1, "last_ending": "cancelled"},
            False,
            "Cooling down after a cancelled cycle (10 min left)",
        ),
        (
            {"cooldown_seconds_left": 600.0, "unjudged_in_a_row": 1, "last_ending": "interrupted"},
            False,
            "Cooling down after an interrupted cycle (10 min left)",
        ),
        (
            {"cooldown_seconds_left": 1200.0, "unjudged_in_a_row": 2, "last_ending": "failed"},
            False,
            "Cooling down after 2 cycles without a verdict, the last failed (20 min left)",
        ),
        ({"free_megabytes": 499}, False, "Too little disk space (499 MB < 500 MB)"),
        ({"trainable": 0}, False, "Nothing to train: every experience is already trained"),
        ({"held_out": 0}, False, "Nothing is held out to measure a candidate on"),
        ({"base_changed": "other weights"}, False, "Base model changed: other weights"),
        ({"buffer_problem": "permission denied"}, False, "Buffer unreadable: permission denied"),
    ],
)
def test_the_decision_and_its_reason(changes: dict[str, Any], should_sleep: bool, reason: str) -> None:
    """Each condition and each veto decides alone, in the words that older scripts know."""
    decision = decide(facts(**changes), Policy())
    assert decision.should_sleep is should_sleep
    assert decision.reason.startswith(reason)


@pytest.mark.parametrize(
    ("changes", "should_sleep"),
    [
        ({"total": 1, "new": 0, "hours_since_last_sleep": 0.0}, True),
        ({"cooldown_seconds_left": 600.0, "unjudged_in_a_row": 1}, True),
        ({"is_paused": True}, False),
        ({"running_cycle": 7}, False),
        ({"free_megabytes": 0}, False),
        ({"trainable": 0}, False),
        ({"held_out": 0}, False),
        ({"base_changed": "other weights"}, False),
    ],
)
def test_force_bypasses_conditions_and_cooldown_only(changes: dict[str, Any], should_sleep: bool) -> None:
    """Force lets the three conditions and the cooldown pass, and no other veto."""
    assert decide(facts(**changes), Policy(), force=True).should_sleep is should_sleep


def test_edge_box_is_never_due() -> None:
    """Where nothing is trained no cycle is due, forced or not, and nothing is overdue; what was begun is finished."""
    policy = Policy.of(msgspec.structs.replace(Config(), worker=WorkerConfig(device="none")))
    for found in (
        decide(facts(), policy),
        decide(facts(), policy, force=True),
        decide(facts(total=1), policy),
        decide(facts(most_salient_new=1.0), msgspec.structs.replace(policy, breakthrough_salience=0.9)),
    ):
        assert (found.should_sleep, found.due, found.vetoes[0].name) == (False, False, "trains_nothing")
        assert found.reason == found.vetoes[0].text
        assert not is_overdue(found)
        assert forecast([], facts(), found, NOW).at is None
        assert forecast([], facts(), found, NOW).reason == found.reason
    assert decide(facts(suspended_cycle=4), policy).should_sleep


def test_all_missing_conditions_are_named() -> None:
    """Every condition is evaluated, so the owner sees all that is missing and not the first thing only."""
    decision = decide(facts(total=1, new=0, hours_since_last_sleep=1.0, is_paused=True), Policy())
    assert len(decision.conditions) == 3
    assert missing(decision) == [
        *(condition.text for condition in decision.conditions),
        "Paused (sleepctl resume)",
    ]


def test_nothing_to_train_needs_due() -> None:
    """A buffer that is not due yet is not blamed for having nothing to train."""
    assert decide(facts(total=1, trainable=0), Policy()).vetoes == []


@pytest.mark.parametrize(
    ("given_by_caller", "is_looser"),
    [
        (Thresholds(), False),
        (Thresholds(min_experiences=5, min_hours_between_sleep=6.0), False),
        (Thresholds(min_experiences=10), False),
        (Thresholds(min_experiences=4), True),
        (Thresholds(min_new_experiences=1), True),
        (Thresholds(min_hours_between_sleep=5.9), True),
        (Thresholds(min_salience=0.5), True),
    ],
)
def test_loosening_is_noticed(given_by_caller: Thresholds, is_looser: bool) -> None:
    """A caller's thresholds are looser when any one lets through what the configured one would hold back."""
    assert Policy.of(Config(), given_by_caller).is_looser_than(Policy.of(Config())) is is_looser


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0.0), (1, 600.0), (2, 1200.0), (6, 19200.0), (7, 21600.0), (10**6, 21600.0)]
)
def test_cooldown_doubles_to_six_hours(failures: int, seconds: float) -> None:
    """Ten minutes after one failure, twice as long after each further one, never more than six hours."""
    assert cooldown_seconds(600.0, failures) == seconds


@given(
    total=st.integers(0, 50),
    new=st.integers(0, 50),
    hours=st.none() | st.floats(0, 100),
    trainable=st.integers(0, 3),
    held_out=st.integers(0, 3),
    paused=st.booleans(),
    force=st.booleans(),
)
def test_sleep_needs_training_and_holdout(
    total: int, new: int, hours: float | None, trainable: int, held_out: int, paused: bool, force: bool
) -> None:
    """Whatever the facts, no sleep is decided without experiences to train and to measure on, or while paused."""
    decision = decide(
        Facts(
            total=total,
            new=new,
            hours_since_last_sleep=hours,
            trainable=trainable,
            held_out=held_out,
            is_paused=paused,
        ),
        Policy(),
        force=force,
    )
    if decision.should_sleep:
        assert trainable > 0
        assert held_out > 0
        assert not paused
        assert decision.due
