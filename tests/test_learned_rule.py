"""Tests of the rule for what was learned, function by function, at and beside its limits."""

from __future__ import annotations

import math

import pytest

from sleepd.policy.judging.learned_rule import allowed_margin, learned_gain, learned_reason, not_worse_figure
from sleepd.protocol.evidence import LossPair, TrainedLoss
from sleepd.protocol.verdict import Interval, LearnedGain
from tests.test_promotion import report


def pair(tokens: int, base: float, parent: float) -> LossPair:
    return LossPair(id=str(tokens), tokens=tokens, base=base, parent=parent, candidate=parent)


@pytest.mark.parametrize(
    ("holdout", "margin"),
    [
        ([], 0.0),
        ([pair(0, 5.0, 3.0)], 0.0),
        ([pair(1, 5.0, 3.0)], 0.4),
        ([pair(1, 5.0, 3.0), pair(3, 4.0, 3.0)], 0.25),
        ([pair(0, math.nan, 3.0), pair(1, 5.0, 3.0)], 0.4),
        ([pair(1, 9.0, 3.0)], 0.5),
        ([pair(1, 3.0, 3.0)], 0.0),
        ([pair(1, 3.0, 5.0)], 0.0),
        ([pair(1, math.inf, 3.0)], 0.0),
    ],
)
def test_margin_by_cases(holdout: list[LossPair], margin: float) -> None:
    """It is a fifth of the parent's mean gain over the base, between 0 and the 0.5 that is configured."""
    assert allowed_margin(report(holdout=holdout), 0.5) == pytest.approx(margin)


def told(tokens: int, parent: float, candidate: float) -> TrainedLoss:
    return TrainedLoss(id=str(tokens), tokens=tokens, parent=parent, candidate=candidate)


@pytest.mark.parametrize(
    ("newly_trained", "found"),
    [
        ([], None),
        ([told(0, 3.0, 1.0)], None),
        ([told(1, 3.0, 1.0)], (1, 3.0, 1.0)),
        ([told(0, math.nan, 1.0), told(1, 3.0, 1.0)], (1, 3.0, 1.0)),
        ([told(1, 3.0, 1.0), told(3, 2.0, 1.0)], (2, 2.25, 1.0)),
        ([told(1, math.inf, 1.0), told(3, 2.0, 1.0)], None),
        ([told(1, 3.0, math.nan), told(3, 2.0, 1.0)], None),
    ],
)
def test_what_was_learned_by_cases(newly_trained: list[TrainedLoss], found: tuple[int, float, float] | None) -> None:
    """A reply without tokens does not count; any other that has no finite loss makes the whole unmeasured."""
    gain = learned_gain(report(newly_trained=newly_trained), 0.95, 0.1)
    assert (gain and (gain.gain.experiences, gain.before, gain.after)) == found


def bounded(low: float | None) -> Interval:
    return Interval(estimate=0.5, low=low, high=None if low is None else 0.75, confidence=0.95, experiences=3)


@pytest.mark.parametrize(
    ("low", "margin", "is_met"),
    [
        (-0.09, 0.1, True),
        (-0.1, 0.1, False),
        (0.2, 0.1, True),
        (0.2, 0.0, False),
        (0.0, 0.0, False),
        (None, 0.1, False),
    ],
)
def test_not_worse_by_cases(low: float | None, margin: float, is_met: bool) -> None:
    """The bound must lie above minus the margin; a margin of 0 promotes nobody by this rule, whatever the bound."""
    assert not_worse_figure(bounded(low), margin).is_met == is_met


def test_reason_without_bounds_names_none() -> None:
    """Where one experience bounds nothing, the reason has the gain alone."""
    learned = LearnedGain(gain=bounded(0.4), before=2.0, after=1.5, margin=0.1)
    assert "gain +0.500 [+0.250, +0.750] nats" in learned_reason(learned, bounded(0.25))
    assert "gain +0.500 nats" in learned_reason(learned, bounded(None))
