"""Quantiles of Student's t, for bounds of a mean. Pure."""

from __future__ import annotations

import math


def t_quantile(share: float, freedom: int) -> float:
    """The value below which Student's t with ``freedom`` degrees of freedom lies with probability ``share``.

    By bisection on the finite sums of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    if share < 0.5:
        return -t_quantile(1 - share, freedom)
    low, high = 0.0, 1.0
    while _t_below(high, freedom) < share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, freedom) < share else (low, middle)
    return high


def _t_below(value: float, freedom: int) -> float:
    """Probability that t lies below ``value`` >= 0."""
    angle = math.atan2(value, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2 == 0:
        within = sine * _series(cosine, freedom, first=1.0, start=2)
    else:
        tail = sine * _series(cosine, freedom, first=cosine, start=3) if freedom > 1 else 0.0
        within = 2 / math.pi * (angle + tail)
    return 0.5 + within / 2


def _series(cosine: float, freedom: int, *, first: float, start: int) -> float:
    """The sum whose terms grow by (k - 1) / k cos² for k = start, start + 2 … below ``freedom``."""
    total = term = first
    for k in range(start, freedom, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return total
