"""The mean of a few figures, and how far two means differ, with bounds by Student's t. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from sleepd.student_t import t_quantile

CONFIDENCE = 0.975
"""Of each bound: both together hold the mean in 95 of 100 cases."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A mean, or a difference of two, with its bounds."""

    mean: float
    low: float | None
    """None: there are too few figures to tell."""
    high: float | None

    @property
    def is_above_or_below_zero(self) -> bool:
        """Whether the bounds exclude 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def spread(figures: Sequence[float]) -> Spread | None:
    """The mean of the figures; None: there are none."""
    if not figures:
        return None
    mean = _mean(figures)
    if len(figures) == 1:
        return Spread(mean=mean, low=None, high=None)
    reach = t_quantile(CONFIDENCE, len(figures) - 1) * math.sqrt(_variance(figures) / len(figures))
    return Spread(mean=mean, low=mean - reach, high=mean + reach)


def difference(one: Sequence[float], other: Sequence[float]) -> Spread | None:
    """By how much the mean of ``one`` is above that of ``other`` (Welch, 1947); None: one of them has no figure."""
    if not one or not other:
        return None
    mean = _mean(one) - _mean(other)
    if min(len(one), len(other)) < 2:
        return Spread(mean=mean, low=None, high=None)
    parts = [_variance(each) / len(each) for each in (one, other)]
    squares = [part**2 / (len(each) - 1) for part, each in zip(parts, (one, other), strict=True)]
    # Rounded down: the wider bounds.
    freedom = max(1, int(sum(parts) ** 2 / sum(squares))) if sum(squares) else len(one) + len(other) - 2
    reach = t_quantile(CONFIDENCE, freedom) * math.sqrt(sum(parts))
    return Spread(mean=mean, low=mean - reach, high=mean + reach)


def _mean(figures: Sequence[float]) -> float:
    return math.fsum(figures) / len(figures)


def _variance(figures: Sequence[float]) -> float:
    mean = _mean(figures)
    return math.fsum((each - mean) ** 2 for each in figures) / (len(figures) - 1)
