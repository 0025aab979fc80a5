"""When the next sleep will be due, if experiences go on coming as they came. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from .simulation import Look, arrived
from .triggers import Decision, Facts


class Forecast(NamedTuple):
    """When the next sleep is expected."""

    at: datetime | None
    """None: nobody can tell; ``reason`` says why."""
    per_day: float | None
    """Experiences that came in a day; None: not known."""
    reason: str


def forecast(looks: Sequence[Look], facts: Facts, decision: Decision, now: datetime) -> Forecast:
    """The expected moment of the next sleep.

    Args:
        looks: recorded ones, oldest first; the rate at which experiences come is read off them.
        facts: as they are now.
        decision: what was decided on them.
        now: the present.
    """
    rate = _per_hour(looks, facts, now)
    per_day = None if rate is None else rate * 24
    if decision.should_sleep:
        return Forecast(now, per_day, "it is due now")
    if decision.due:
        return Forecast(None, per_day, f"it is due, and waits: {decision.vetoes[0].text}")
    if any(veto.name == "trains_nothing" for veto in decision.vetoes):
        return Forecast(None, per_day, decision.reason)
    hours = 0.0
    for each in decision.conditions:
        if each.is_met:
            continue
        left = each.required - (each.found or 0)
        if each.name != "min_hours_between_sleep":
            if not rate:
                missing = "no experience came in the recorded time" if rate == 0 else "no rate is known yet"
                return Forecast(None, per_day, f"{left:g} experiences are missing, and {missing}")
            left /= rate
        hours = max(hours, left)
    return Forecast(now + timedelta(hours=hours), per_day, "if experiences go on coming at that rate")


def _per_hour(looks: Sequence[Look], facts: Facts, now: datetime) -> float | None:
    """Experiences in an hour since the first look, or since the last sleep where no look is older."""
    hours, came = facts.hours_since_last_sleep, facts.new
    if looks and (seconds := (now - looks[0].at).total_seconds()) > 3600 * (hours or 0.0):
        hours = seconds / 3600
        every = [*(look.facts for look in looks), facts]
        came = sum(arrived(earlier, later) for earlier, later in pairwise(every))
    return came / hours if hours else None
