"""Tests of the bounds of a gain: against tables, against the textbook's case, and by how often they hold."""

from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from sleepd.policy.confidence import gain_interval, most_by_chance, sign_test, t_quantile


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [
        (0.95, 1, 6.3138),
        (0.95, 2, 2.9200),
        (0.95, 3, 2.3534),
        (0.975, 4, 2.7764),
        (0.99, 7, 2.9980),
        (0.95, 30, 1.6973),
        (0.95, 999, 1.6464),
        (0.5, 5, 0.0),
        (0.05, 3, -2.3534),
    ],
)
def test_quantiles_of_t_are_those_of_the_tables(share: float, freedom: int, value: float) -> None:
    """For even and odd, few and many degrees of freedom."""
    assert t_quantile(share, freedom) == pytest.approx(value, abs=2e-4)


def test_equal_weights_are_the_textbooks_case() -> None:
    """With as many tokens each, the lower bound is mean - t s / sqrt(n), where the bootstrap's is not lower."""
    gains = [0.3, 0.1, 0.4, 0.2, 0.5]
    found = gain_interval([(100, 3.0, 3.0 - gain) for gain in gains], 0.95)
    reach = 2.1318 * statistics.stdev(gains) / math.sqrt(5)
    assert found.estimate == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - reach, abs=1e-4)
    assert found.high == pytest.approx(0.3 + reach, abs=1e-4)
    assert found.experiences == 5


def test_tokens_weigh_and_empty_ones_do_not_count() -> None:
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


def test_many_skewed_gains_have_the_bootstraps_bound() -> None:
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
    assert all(low <= high + 1e-9 for low, high in pairwise(bounds))  # type: ignore[operator]


def test_the_lower_bound_holds_as_often_as_it_says() -> None:
    """Gains around zero, of replies of unequal length: it is above zero in at most about 5 of 100, few or many."""
    for count in (4, 12):
        above = 0
        for seed in range(200):
            chance = random.Random(seed)
            pairs = [(chance.randint(60, 240), 3.0, 3.0 - chance.gauss(0, 0.2)) for _ in range(count)]
            low = gain_interval(pairs, 0.95).low
            above += low is not None and low > 0
        assert above <= 16, f"{above} of 200 on {count}"  # 10 expected; 16 is beyond 97 of 100 such trials


def test_losses_by_chance() -> None:
    """Five lost and none won is beyond one in twenty, four is not; nothing changed is no evidence."""
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(4, 0) == 1 / 16
    assert sign_test(0, 0) == 1.0
    assert sign_test(6, 4) == pytest.approx(0.377, abs=1e-3)


def test_counts_by_chance() -> None:
    """One that had none of 16 may have three the next time; never more than there are."""
    assert most_by_chance(0, 16, 0.95) == 3
    assert most_by_chance(4, 16, 0.95) == 7
    assert most_by_chance(16, 16, 0.95) == 16
