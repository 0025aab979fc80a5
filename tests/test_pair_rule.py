"""Tests of the verdicts on a pair, as a table: who is promoted, what told the two apart, what the verdict says."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sleepd.config.strategies import STRATEGIES, why_not_comparable
from sleepd.policy.judging.pair_rule import Absent, Contender, judge_alone, judge_pair
from sleepd.policy.judging.promotion import Gates, judge
from sleepd.protocol.job import Report
from sleepd.protocol.verdict import Verdict
from tests.kept import kept
from tests.test_promotion import collapse, report, told

BY_LEARNING = {"gains": [0.01, -0.01, 0.0] * 4}
"""Held-out experiences say nothing; what was told decides."""


LOOPING = collapse(candidate={"loops": 9})


def judged(first: dict[str, Any], second: dict[str, Any], **more: Any) -> tuple[Verdict, Verdict]:
    both = (Contender(7, "consolidate", report(**first)), Contender(8, "eager", report(**second)))
    verdicts = judge_pair(both, Gates(), **more)
    return verdicts[7], verdicts[8]


def learned(gain: float) -> dict[str, Any]:
    return {**BY_LEARNING, "newly_trained": told([gain, gain + 0.1, gain - 0.1] * 3)}


CASES: list[tuple[str, dict[str, Any], dict[str, Any], str, str, str]] = [
    ("the second gained more", {"gains": [0.5] * 9}, {"gains": [0.8] * 9}, "rejected", "promoted", "holdout"),
    ("the first gained more", {"gains": [0.8] * 9}, {"gains": [0.5] * 9}, "promoted", "rejected", "holdout"),
    ("alike: the first is named first", {"gains": [0.5] * 9}, {"gains": [0.5] * 9}, "promoted", "rejected", "estimate"),
    ("less than counts", {"gains": [0.5] * 9}, {"gains": [0.505] * 9}, "rejected", "promoted", "estimate"),
    (
        "more, and perhaps by chance",
        {"gains": [0.5, 0.5, 0.5] * 3},
        {"gains": [1.4, 0.2, 0.2] * 3},
        "rejected",
        "promoted",
        "estimate",
    ),
    ("only the first passes", {}, {"gains": [-0.5] * 9}, "promoted", "rejected", "gates"),
    (
        "more, and a harm",
        {},
        {"gains": [0.9] * 9, "collapse": collapse(candidate={"loops": 9})},
        *("promoted", "rejected", "gates"),
    ),
    ("neither passes", {"gains": [-0.5] * 9}, {"gains": [-0.5] * 9}, "rejected", "rejected", ""),
    ("the second learned more", learned(0.5), learned(1.0), "rejected", "promoted", "learned"),
    ("the first learned more", learned(1.0), learned(0.5), "promoted", "rejected", "learned"),
]


@pytest.mark.parametrize(
    ("first", "second", "one", "other", "decider"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_better_of_those_that_pass(
    first: dict[str, Any], second: dict[str, Any], one: str, other: str, decider: str
) -> None:
    """At most one is promoted, by the first figure that tells the two apart."""
    mine, its = judged(first, second)
    assert (mine.outcome, its.outcome) == (one, other)
    for verdict in (mine, its):
        assert verdict.pair is not None
        assert verdict.pair.decided_by == decider
        assert verdict.pair.is_better == (None if not decider else verdict.outcome == "promoted")


def test_loser_keeps_what_it_passed() -> None:
    """It is rejected for its rival alone, and the reason says that it passed by itself."""
    loser, winner = judged({"gains": [0.5] * 9}, {"gains": [0.8] * 9})
    assert loser.failed == ["rival"]
    said = f"{winner.reason}\n{loser.reason}\n"
    assert said == kept("pair-verdicts", said)
    assert [figure.is_met for figure in loser.figures if figure.name == "rival"] == [False]


def test_failed_one_keeps_its_reasons() -> None:
    """What it failed stands in its verdict, and the comparison is shown beside it without deciding."""
    bad, _ = judged({"gains": [-0.5] * 9}, {})
    alone = judge(report(gains=[-0.5] * 9), Gates())
    assert (bad.failed, bad.reason) == (alone.failed, alone.reason)
    assert [figure.is_binding for figure in bad.figures if figure.name == "rival"] == [False]


def test_comparison_is_paired() -> None:
    """Experiences differ by far more than the candidates do; token for token the difference is sure."""
    spread = [0.2, 1.4, 0.3, 2.0, 0.9, 0.5, 1.1, 0.7, 1.8]
    first, second = judged({"gains": spread}, {"gains": [gain + 0.05 for gain in spread]})
    assert second.pair is not None
    assert second.pair.decided_by == "holdout"
    assert second.pair.holdout is not None
    assert second.pair.holdout.low == pytest.approx(0.05)
    assert first.pair is not None
    assert first.pair.holdout is not None
    assert (first.pair.holdout.estimate, first.pair.holdout.high) == (
        -second.pair.holdout.estimate,
        -(second.pair.holdout.low or 0.0),
    )


def test_other_tokens_are_not_compared() -> None:
    """An experience that one of them was measured on in another length tells nothing about the two."""
    other = report(gains=[0.8] * 9)
    longer = [type(one)(**{**_fields(one), "tokens": 90}) for one in other.holdout]
    verdicts = judge_pair(
        (Contender(7, "a", report(gains=[0.5] * 9)), Contender(8, "b", _with(other, holdout=longer))), Gates()
    )
    assert verdicts[7].pair is not None
    assert verdicts[7].pair.holdout is None
    assert verdicts[7].outcome == "promoted"


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _with(one: Report, **changes: Any) -> Report:
    return type(one)(**{**_fields(one), **changes})


def test_decided_one_stays_decided() -> None:
    """Where the other's verdict is in effect already, this one is not promoted beside it, whatever the figures."""
    first, _ = judged({"gains": [0.9] * 9}, {"gains": [0.5] * 9}, promoted=8)
    assert first.outcome == "rejected"


def test_safety_gates_stay_as_strict() -> None:
    """Two candidates share the alpha of a promotion; what counts as a harm is the same as for one alone."""
    one, _ = judged({}, {})
    alone = judge(report(), Gates())
    limits = {figure.name: figure.limit for figure in alone.figures}
    assert {name: limit for name, limit in limits.items() if name != "rival"} == {
        figure.name: figure.limit for figure in one.figures if figure.name != "rival"
    }
    assert one.gain is not None
    assert one.gain.confidence == pytest.approx(0.975)


def test_pair_keeps_the_error_rate() -> None:
    """Of 100 pairs without any effect, no more end with a promotion than of 100 single candidates may."""
    chance, promoted = random.Random(1), 0
    for _ in range(100):
        gains = [[chance.gauss(0, 0.5) for _ in range(12)] for _ in range(2)]
        one, other = judged({"gains": gains[0]}, {"gains": gains[1]})
        promoted += "promoted" in (one.outcome, other.outcome)
    assert promoted <= 8  # at a rate of 5 % nine or more have a probability of 6 %; the draws are always the same


def test_alone_says_why() -> None:
    """The other one failed: the whole of alpha, and a reason that names it."""
    found = judge_alone(report(), Gates(), Absent(8, "eager", "failed", "out of memory"))
    assert found.outcome == "promoted"
    assert found.gain is not None
    assert found.gain.confidence == pytest.approx(0.95)
    assert found.reason.endswith("; judged alone: cycle 8 (strategy eager) failed")
    assert found.pair is not None
    assert found.pair.text.endswith(": out of memory")


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("consolidate", "eager", ""),
        ("careful", "rehearse", ""),
        ("consolidate", "consolidate", "twice"),
        ("consolidate", "gentle", "other shapes"),
    ],
)
def test_comparable_strategies(one: str, other: str, reason: str) -> None:
    """Two strategies are compared where both can train the same examples from the same champion."""
    found = why_not_comparable(STRATEGIES[one], STRATEGIES[other])
    assert bool(found) == bool(reason)
    assert reason in found
