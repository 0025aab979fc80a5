"""How far what is new, and how the last cycles went, move the thresholds for a sleep. Pure.

A factor below 1 makes a cycle due earlier, one above 1 later. It applies to the fewest new experiences and to the
fewest hours. Each factor has a reason, which the decision shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

SALIENT: Final = 0.75
"""New experiences with a mean salience above it make a cycle due earlier."""
PLAIN: Final = 0.65
"""Those with a mean salience below it make a cycle due later."""
LEAST, MOST = 0.25, 4.0
"""Of all factors together."""
NO_GAIN: Final = 0.01
"""Nats a token: a gain below it is none."""
LEARNED_BY_HEART: Final = 0.1
"""Nats a token by which the loss on what was trained fell while the held-out loss did not."""
CYCLES: Final = 3
"""So many of the last cycles with a verdict decide about the trend."""

Trend = Literal["", "improving", "flat", "overfitting"]
"""Of the last cycles; empty: they are too few."""
_TREND_FACTORS: Final[dict[Trend, float]] = {"flat": 0.5, "overfitting": 2.0}


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What the trend takes of a cycle with a verdict."""

    outcome: str
    """``promoted``, ``rejected`` or ``inconclusive``."""
    gain: float | None
    """Nats a token on held-out experiences; None: not measured."""
    trained_gain: float | None
    """The same on what was trained."""


class Adjustment(msgspec.Struct, frozen=True):
    """One factor and its reason."""

    factor: float
    reason: str


def trend(newest_first: Sequence[Judged]) -> Trend:
    """How the last cycles went.

    ``overfitting``: the newest one was rejected, or learned its texts by heart while the held-out loss did not fall.
    ``flat``: of the last three none gained. Both are told from three cycles or more.
    """
    last = newest_first[:CYCLES]
    if len(last) < CYCLES:
        return ""
    newest = last[0]
    by_heart = (newest.trained_gain or 0.0) > LEARNED_BY_HEART and (newest.gain or 0.0) <= 0
    if newest.outcome == "rejected" or by_heart:
        return "overfitting"
    is_flat = all(each.outcome != "promoted" and (each.gain or 0.0) < NO_GAIN for each in last)
    return "flat" if is_flat else "improving"


def adjustments(*, new_salience: float | None, quality_factor: float, of_cycles: Trend) -> list[Adjustment]:
    """The factors that apply, each with its reason; none where nothing is moved.

    Args:
        new_salience: mean of the new experiences; None: there are none.
        quality_factor: how far the salience moves the thresholds; 1: not at all.
        of_cycles: the trend of the last cycles; empty where the operator does not want it to count.
    """
    found = []
    if new_salience is not None and quality_factor > 1:
        if new_salience > SALIENT:
            found.append(Adjustment(1 / quality_factor, f"the new ones have a mean salience of {new_salience:.2f}"))
        elif new_salience < PLAIN:
            found.append(Adjustment(quality_factor, f"the new ones have a mean salience of {new_salience:.2f}"))
    if of_cycles in _TREND_FACTORS:
        texts = {"flat": "the last three cycles gained nothing", "overfitting": "the last cycle overfitted"}
        found.append(Adjustment(_TREND_FACTORS[of_cycles], texts[of_cycles]))
    return found


def factor_of(found: Sequence[Adjustment]) -> float:
    """All factors together, within the bounds."""
    product = 1.0
    for each in found:
        product *= each.factor
    return min(MOST, max(LEAST, product))
