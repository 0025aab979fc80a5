"""Tests of the rule for what was learned, function by function, at and beside its limits."""

from __future__ import annotations

import math

import pytest

from sleepd.policy.judging.learned_rule import LearnedLimits, by_learning, learned_reason
from sleepd.protocol.evidence import CappedLosses, LossPair, TrainedLoss
from sleepd.protocol.verdict import Interval, LearnedGain
from tests.test_promotion import pairs, report

LIMITS = LearnedLimits(0.5, 0.1, has_champion=True)


def pair(tokens: int, base: float, parent: float) -> LossPair:
    """The whole loss gained nothing over the base, the capped one so much."""
    capped = CappedLosses(base=base, parent=parent, candidate=parent)
    return LossPair(id=str(tokens), tokens=tokens, base=9.0, parent=9.0, candidate=9.0, capped=capped)


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
    """It is a fifth of the parent's mean capped gain over the base, between 0 and the 0.5 that is configured."""
    not_worse = by_learning(report(holdout=holdout), 0.95, LIMITS).figures[0]
    assert (not_worse.name, not_worse.limit) == ("not_worse", pytest.approx(-margin))


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
    gain = by_learning(report(newly_trained=newly_trained), 0.95, LIMITS).learned
    assert (gain and (gain.gain.experiences, gain.before, gain.after)) == found


def bounded(low: float | None) -> Interval:
    return Interval(estimate=0.5, low=low, high=None if low is None else 0.75, confidence=0.95, experiences=3)


@pytest.mark.parametrize(
    ("low", "margin", "is_met"),
    [
        (-0.12, 0.125, True),
        (-0.125, 0.125, False),
        (0.25, 0.125, True),
        (0.25, 0.0, False),
        (0.0, 0.0, False),
    ],
)
def test_not_worse_by_cases(low: float, margin: float, is_met: bool) -> None:
    """Either bound must lie above minus the margin; a margin of 0 promotes nobody by this rule, whatever the bound."""
    limits = LIMITS._replace(margin=margin)
    for name, changes in (("not_worse", {"holdout": pairs([low] * 3)}), ("kept", {"repeated": pairs([low] * 3)})):
        figures = by_learning(report(**changes), 0.95, limits).figures
        assert [figure.is_met for figure in figures if figure.name == name] == [is_met]


def test_one_reply_bounds_nothing() -> None:
    """A single held-out or repeated reply has no bound, and meets no limit."""
    for name, changes in (("not_worse", {"holdout": pairs([0.5])}), ("kept", {"repeated": pairs([0.5])})):
        figures = by_learning(report(**changes), 0.95, LIMITS).figures
        assert [(figure.value, figure.is_met) for figure in figures if figure.name == name] == [(None, False)]


def test_reason_without_bounds_names_none() -> None:
    """Where one experience bounds nothing, the reason has the gain alone."""
    learned = LearnedGain(gain=bounded(0.4), before=2.0, after=1.5, margin=0.1, unseen=bounded(-0.05))
    assert "gain +0.500 [+0.250, +0.750] nats" in learned_reason(learned, bounded(0.25))
    assert "gain +0.500 nats" in learned_reason(learned, bounded(None))
