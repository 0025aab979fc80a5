"""Tests of means with bounds, against scipy's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sleepd.sleepctl.pages.spread import Spread, difference, spread

Figures = st.lists(st.floats(-5, 5).map(lambda each: round(each, 3)), min_size=2, max_size=12)


def test_few_figures_bound_nothing() -> None:
    """Without a figure there is no mean, and one alone has no bounds."""
    assert spread([]) is None
    assert difference([], [1.0]) is None
    assert spread([2.0]) == Spread(mean=2.0, low=None, high=None)
    assert difference([2.0], [1.0, 1.5]) == Spread(mean=0.75, low=None, high=None)


def test_alike_figures_have_no_width() -> None:
    """Where all are the same, the bounds are the mean; a difference is then certain."""
    assert spread([0.5, 0.5]) == Spread(mean=0.5, low=0.5, high=0.5)
    found = difference([0.5, 0.5], [0.25, 0.25])
    assert found == Spread(mean=0.25, low=0.25, high=0.25)
    assert found.is_above_or_below_zero


@settings(max_examples=25)
@given(Figures)
def test_bounds_are_those_of_t(figures: list[float]) -> None:
    """The bounds of a mean are those of Student's t."""
    found = spread(figures)
    if len(set(figures)) > 1:
        interval = stats.ttest_1samp(figures, 0.0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-6)


@settings(max_examples=25)
@given(Figures, Figures)
def test_a_difference_is_no_surer_than_welch(one: list[float], other: list[float]) -> None:
    """The bounds of a difference lie around those of Welch's test, for its degrees of freedom are rounded down."""
    found = difference(one, other)
    if len(set(one)) > 1 and len(set(other)) > 1:
        interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
        assert found.low <= interval.low + 1e-6
        assert found.high >= interval.high - 1e-6
        assert found.mean == pytest.approx((interval.low + interval.high) / 2, abs=1e-6)
