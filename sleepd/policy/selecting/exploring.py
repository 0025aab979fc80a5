"""Which cycles try a neighbour strategy beside the configured one, and when the evidence for it is sure. Pure.

Whether a cycle explores follows from its number alone: the same number always gives the same answer, and of many
numbers the wanted share explores.

A neighbour is better where all of this holds. Over ``LEAST_PAIRS`` or more pairs, in which both trained the same
examples, the lower bound of its mean gain over the strategy in force is above what counts (Student's t over the pairs).
It was refused by its own gates no more often than the strategy in force. The bound is taken again after each pair, and
for each neighbour; so that all these looks together are wrong with a probability of at most alpha, the i-th look at one
of k neighbours takes alpha * 6 / (pi^2 i^2 k), whose sum over all looks and neighbours is alpha (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from sleepd.student_t import t_quantile

LEAST_PAIRS: Final = 5
"""Fewer are no evidence over cycles."""


class ComparedPair(NamedTuple):
    """A neighbour beside the strategy in force, on the same examples."""

    gain: float
    """By how much the neighbour's loss on held-out experiences was lower, nats a token."""
    passed: bool
    """The neighbour passed its own gates."""
    usual_passed: bool
    """The strategy in force did."""


class BetterStrategy(NamedTuple):
    """A neighbour that is better, and how sure that is."""

    strategy: str
    pairs: int
    mean: float
    low: float
    """The mean lies above it with ``confidence``."""
    confidence: float


def explored(cycle: int, share: float, neighbours: Sequence[str]) -> str:
    """The neighbour that the cycle of this number tries; empty: none."""
    drawn = sha256(f"explore {cycle}".encode()).digest()
    if not neighbours or int.from_bytes(drawn[:8], "big") >= share * 2**64:
        return ""
    return neighbours[int.from_bytes(drawn[8:16], "big") % len(neighbours)]


def better_strategy(
    pairs: Mapping[str, Sequence[ComparedPair]], *, confidence: float, min_gain: float
) -> BetterStrategy | None:
    """The neighbour with the largest mean gain of those that are surely better; None: there is none.

    Args:
        pairs: of each neighbour, oldest first.
        confidence: of all looks together.
        min_gain: what counts, nats a token.
    """
    found = [_bound(name, each, confidence, len(pairs)) for name, each in pairs.items() if len(each) >= LEAST_PAIRS]
    better = [each for each in found if each.low > min_gain and _is_refused_no_more_often(pairs[each.strategy])]
    return max(better, key=lambda each: each.mean, default=None)


def _bound(name: str, pairs: Sequence[ComparedPair], confidence: float, neighbours: int) -> BetterStrategy:
    gains = [each.gain for each in pairs]
    look, mean = len(gains) - LEAST_PAIRS + 1, math.fsum(gains) / len(gains)
    sure = 1 - (1 - confidence) * 6 / (math.pi**2 * look**2 * neighbours)
    error = math.sqrt(math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1) / len(gains))
    low = mean - t_quantile(sure, len(gains) - 1) * error
    return BetterStrategy(name, len(gains), mean, low, sure)


def _is_refused_no_more_often(pairs: Sequence[ComparedPair]) -> bool:
    return sum(each.passed for each in pairs) >= sum(each.usual_passed for each in pairs)
