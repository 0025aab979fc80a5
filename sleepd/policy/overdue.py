"""When to warn the owner: a sleep that is due and does not come, or cycles that come too often. Pure."""

from __future__ import annotations

import msgspec

from .triggers import Decision

_NO_FAULT = frozenset({"nothing_to_train", "nothing_to_measure", "cycle_running"})
"""Vetoes that are no obstacle which anybody should remove."""


class ActiveAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """Something that lasts and that the operator should look at."""

    name: str
    text: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """From when on it is worth a warning."""

    overdue_hours: float
    max_cycles_a_day: int


def is_overdue(decision: Decision) -> bool:
    """Whether a sleep should be under way and something that somebody can change keeps it from being."""
    return decision.due and any(veto.name not in _NO_FAULT for veto in decision.vetoes)


def alarms(decision: Decision, *, hours_due: float, cycles_today: int, limits: Limits) -> list[ActiveAlarm]:
    """What to warn of.

    Args:
        decision: the newest one.
        hours_due: for how long it has been due and held back; 0: it is not.
        cycles_today: cycles begun in the last 24 hours.
        limits: the configured ones.
    """
    found = []
    if is_overdue(decision) and hours_due >= limits.overdue_hours:
        obstacle = next(veto.text for veto in decision.vetoes if veto.name not in _NO_FAULT)
        found.append(ActiveAlarm(name="overdue", text=f"A sleep has been due for {hours_due:.0f} h: {obstacle}"))
    if cycles_today > limits.max_cycles_a_day:
        found.append(
            ActiveAlarm(
                name="too_many_cycles",
                text=f"{cycles_today} cycles began in the last 24 h (more than {limits.max_cycles_a_day}); "
                "sleepctl why and sleepctl history tell why; sleepctl pause stops them",
            )
        )
    return found
