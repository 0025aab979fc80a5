"""Tests of the bounds of a gain: against scipy, and by how often they hold."""

from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from sleepd.policy.judging.confidence import _quantile, gain_interval, most_by_chance, sign_test
from sleepd.student_t import t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 47, 999])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.8, 0.95, 0.975, 0.999])
def test_t_quantiles_agree_with_scipy(share: float, freedom: int) -> None:
    """Student's t has scipy's quantiles, for even and odd, few and many degrees of freedom."""
    assert t_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-9, abs=1e-12)


def test_t_bounds_agree_with_scipy() -> None:
    """With as many tokens each, the bounds by the jackknife and t are scipy's t interval of the mean."""
    gains = [0.3, 0.1, 0.4, 0.2, 0.5]
    found = gain_interval([(100, 3.0, 3.0 - gain) for gain in gains], 0.95)
    # scipy's confidence is of both bounds together, ours of each by itself.
    low, high = stats.t.interval(0.9, len(gains) - 1, loc=statistics.mean(gains), scale=stats.sem(gains))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.3, low, high))
    assert found.experiences == 5


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_quantiles_agree_with_numpy(share: float) -> None:
    """The quantile of a list is numpy's, at both ends of the list too."""
    values = [0.0, 1.0, 5.0]
    assert _quantile(values, share) == pytest.approx(np.quantile(values, share))


@pytest.mark.parametrize("seed", range(3))
def test_bootstrap_bounds_agree_with_scipy(seed: int) -> None:
    """On many skewed gains of unequal length the lower bound is the percentile of scipy's bootstrap, up to chance.

    Two bootstraps of 2000 draws differ in the 5 % percentile by about 0.07 standard errors (2 ** 0.5 * 0.0049 / 0.103).
    """
    chance = random.Random(seed)
    gains = [0.2 + chance.gauss(0, 0.05) for _ in range(45)] + [-3.0] * 3
    tokens = [chance.randint(60, 240) for _ in gains]
    found = gain_interval([(one, 3.0, 3.0 - gain) for one, gain in zip(tokens, gains, strict=True)], 0.95)
    weighted = np.array([one * gain for one, gain in zip(tokens, gains, strict=True)])

    def ratio(gain: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
        return gain.sum(axis) / weight.sum(axis)

    drawn = stats.bootstrap(
        (weighted, np.array(tokens)),
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=2000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    assert found.low == pytest.approx(drawn.confidence_interval.low, abs=0.25 * drawn.standard_error)


def test_tokens_weigh_and_empty_do_not() -> None:
    """The estimate is the difference of token-weighted means."""
    found = gain_interval([(300, 3.0, 2.0), (100, 3.0, 3.0), (0, 9.0, 1.0)], 0.95)
    assert found.estimate == pytest.approx(0.75)
    assert found.experiences == 2


def test_one_experience_bounds_nothing() -> None:
    """And none at all is no interval."""
    found = gain_interval([(100, 3.0, 2.0)], 0.95)
    assert (found.estimate, found.low, found.high) == (1.0, None, None)
    with pytest.raises(ValueError, match="nothing to average"):
        gain_interval([(0, 3.0, 2.0)], 0.95)


def test_skewed_gains_have_bootstrap_bound() -> None:
    """A few large losses pull the lower bound further down than a symmetric interval would have it."""
    gains = [0.2] * 45 + [-3.0] * 3
    found = gain_interval([(100, 3.0, 3.0 - gain) for gain in gains], 0.95)
    assert found.low is not None
    symmetric = statistics.mean(gains) - t_quantile(0.95, 47) * statistics.stdev(gains) / math.sqrt(48)
    assert found.low < symmetric


@settings(max_examples=40, deadline=None)
@given(some.lists(some.tuples(some.integers(1, 500), some.floats(0, 9), some.floats(0, 9)), min_size=2, max_size=9))
def test_bounds_enclose_and_widen(pairs: list[tuple[int, float, float]]) -> None:
    """The estimate lies between them; more confidence is never narrower; the same evidence gives the same bounds."""
    narrow, wide = gain_interval(pairs, 0.8), gain_interval(pairs, 0.99)
    assert narrow == gain_interval(pairs, 0.8)
    bounds = [wide.low, narrow.low, narrow.estimate, narrow.high, wide.high]
    assert all(bound is not None for bound in bounds)
    assert all(low <= high + 1e-9 for low, high in pairwise(bounds))


def test_lower_bound_holds_as_stated() -> None:
    """Gains around zero, of replies of unequal length: it is above zero in at most about 5 of 100, few or many."""
    for count in (4, 12):
        above = 0
        for seed in range(200):
            chance = random.Random(seed)
            pairs = [(chance.randint(60, 240), 3.0, 3.0 - chance.gauss(0, 0.2)) for _ in range(count)]
            low = gain_interval(pairs, 0.95).low
            above += low is not None and low > 0
        assert above <= 16, f"{above} of 200 on {count}"  # 10 expected; 16 is beyond 97 of 100 such trials


@pytest.mark.parametrize(("lost", "won"), [(5, 0), (4, 0), (1, 0), (6, 4), (3, 9), (40, 25)])
def test_sign_test_agrees_with_scipy(lost: int, won: int) -> None:
    """The sign test is scipy's exact binomial test that losses are more than half of the changes."""
    expected = stats.binomtest(lost, lost + won, alternative="greater").pvalue
    assert sign_test(lost, won) == pytest.approx(expected)


def test_no_change_is_no_evidence() -> None:
    """Where nothing was lost and nothing won, the probability is 1."""
    assert sign_test(0, 0) == 1.0


@pytest.mark.parametrize("count", [0, 1, 4, 14, 15, 16])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_counts_by_chance_agree_with_scipy(count: int, confidence: float) -> None:
    """The most that chance reaches is scipy's quantile of the binomial at Laplace's rate; never more than there are."""
    expected = stats.binom.ppf(confidence, 16, (count + 1) / 18)
    assert most_by_chance(count, 16, confidence) == expected


def test_replies_of_a_conversation_count_once() -> None:
    """Ten replies of one conversation are one experience: they bound nothing that one of it would not bound."""
    single = [(1000, 3.0, 2.0), (100, 3.0, 2.9), (200, 3.0, 3.1)]
    parts = [(100, 3.0, 2.0)] * 10
    clustered = gain_interval([*parts, *single[1:]], 0.95, ["c1"] * 10 + ["", ""])
    assert clustered == gain_interval(single, 0.95)
    assert clustered.experiences == 3
    alone = gain_interval([*parts, *single[1:]], 0.95)
    assert (alone.experiences, alone.low is not None and clustered.low is not None and alone.low > clustered.low) == (
        12,
        True,
    )
