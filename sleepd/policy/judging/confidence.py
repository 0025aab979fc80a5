"""How sure a mean gain is: bounds for the gain in reply loss, over experiences. Pure; the only chance has a fixed seed.

The gain is the token-weighted mean of the paired differences, as the holdout loss itself is a token-weighted mean.
Experiences are what is drawn by chance, not tokens: the tokens of one reply rise and fall together. So do the replies
of one conversation, which count as one experience here (Cameron and Miller, A Practitioner's Guide to Cluster-Robust
Inference, 2015). Each bound is the more cautious of two:

- Student's t with the delete-one jackknife's standard error of that ratio (Efron and Tibshirani, An Introduction to the
  Bootstrap, 1993, ch. 11), with n - 1 degrees of freedom. It is the wider one on few experiences;
- the percentile of a paired bootstrap, ``RESAMPLES`` draws of experiences with replacement (ibid., ch. 13). By itself
  it is too narrow on few experiences, roughly by sqrt((n - 1) / n) and by the tails of t; on many it follows the skew.

One experience bounds nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from functools import lru_cache

from sleepd.protocol.verdict import Interval
from sleepd.student_t import t_quantile

RESAMPLES = 2000
SEED = 20240229
"""Of the bootstrap: the same evidence always gives the same verdict."""

Pair = tuple[int, float, float]
"""Tokens, loss of the older one, loss of the newer one."""


def gain_interval(pairs: Sequence[Pair], confidence: float, conversations: Sequence[str] = ()) -> Interval:
    """The mean gain, in nats per supervised token, with its bounds.

    Args:
        pairs: one of each experience; those without tokens do not count.
        confidence: of each bound by itself, 0.5 to 1.
        conversations: of each pair, in parallel; empty: it is a conversation of its own.

    Raises:
        ValueError: there is no experience with tokens.
    """
    weighted = _by_conversation(pairs, conversations or [""] * len(pairs))
    if not weighted:
        raise ValueError("nothing to average")
    estimate = _ratio(weighted)
    if len(weighted) == 1:
        return Interval(estimate=estimate, low=None, high=None, confidence=confidence, experiences=1)
    margin = t_quantile(confidence, len(weighted) - 1) * _jackknife_error(weighted)
    drawn = _bootstrap(tuple(weighted))
    return Interval(
        estimate=estimate,
        low=min(estimate - margin, _quantile(drawn, 1 - confidence)),
        high=max(estimate + margin, _quantile(drawn, confidence)),
        confidence=confidence,
        experiences=len(weighted),
    )


def independent(conversations: Iterable[str]) -> int:
    """How many experiences there are where those of one conversation count as one."""
    named = list(conversations)
    return named.count("") + len(set(named) - {""})


def _by_conversation(pairs: Sequence[Pair], conversations: Sequence[str]) -> list[tuple[float, float]]:
    """Gain times tokens, and tokens, of each conversation."""
    sums: dict[str | int, tuple[float, float]] = {}
    for number, ((tokens, older, newer), conversation) in enumerate(zip(pairs, conversations, strict=True)):
        if tokens > 0:
            gain, weight = sums.get(conversation or number, (0.0, 0.0))
            sums[conversation or number] = gain + tokens * (older - newer), weight + tokens
    return list(sums.values())


def _ratio(weighted: Sequence[tuple[float, float]]) -> float:
    return math.fsum(gain for gain, _ in weighted) / math.fsum(weight for _, weight in weighted)


def _jackknife_error(weighted: Sequence[tuple[float, float]]) -> float:
    """Standard error of the ratio, from what it is without each of the experiences."""
    gain, weight = (math.fsum(part) for part in zip(*weighted, strict=True))
    without = [(gain - one_gain) / (weight - one_weight) for one_gain, one_weight in weighted]
    mean, count = math.fsum(without) / len(without), len(without)
    return math.sqrt((count - 1) / count * math.fsum((one - mean) ** 2 for one in without))


@lru_cache(maxsize=16)
def _bootstrap(weighted: tuple[tuple[float, float], ...]) -> tuple[float, ...]:
    """The ratio of each resample, in ascending order; kept, for a verdict asks at several confidences."""
    chance, count = random.Random(SEED), len(weighted)  # noqa: S311 - statistics, no secret
    ratios = []
    for _ in range(RESAMPLES):
        gain = weight = 0.0
        for one_gain, one_weight in chance.choices(weighted, k=count):
            gain += one_gain
            weight += one_weight
        ratios.append(gain / weight)
    return tuple(sorted(ratios))


def _quantile(ascending: Sequence[float], share: float) -> float:
    """With linear interpolation between the order statistics (Hyndman and Fan 1996, type 7)."""
    place = share * (len(ascending) - 1)
    below = min(int(place), len(ascending) - 2)
    low, high = ascending[below], ascending[below + 1]
    return low + (place - below) * (high - low)


def sign_test(lost: int, won: int) -> float:
    """The probability of at least ``lost`` losses among so many changes where each is a toss: McNemar's exact test."""
    changes = lost + won
    return sum(math.comb(changes, k) for k in range(lost, changes + 1)) / float(2**changes)


def most_by_chance(count: int, of: int, confidence: float) -> int:
    """What another one of the same kind reaches with more than 1 - ``confidence``, where one had ``count`` of ``of``.

    The rate is taken as (count + 1) / (of + 2), Laplace's rule of succession, so that none seen is not never.
    """
    rate, beyond = (count + 1) / (of + 2), 1.0
    for k in range(of + 1):
        beyond -= math.comb(of, k) * rate**k * (1 - rate) ** (of - k)
        if beyond <= 1 - confidence:
            return k
    return of
