"""When to warn the operator: a cycle is due and does not start, or cycles start too often. Pure."""

from __future__ import annotations

import msgspec

from .triggers import Decision

_NO_FAULT = frozenset({"nothing_to_train", "nothing_to_measure", "cycle_running"})
"""Vetoes that need no action by the operator."""


class ActiveAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """Something that lasts and that the operator should look at."""

    name: str
    text: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """From when on it is worth a warning."""

    overdue_hours: float
    max_cycles_a_day: int


def is_overdue(decision: Decision) -> bool:
    """Whether a cycle is due and something that the operator can change prevents it."""
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
        found.append(ActiveAlarm(name="overdue", text=f"A cycle has been due for {hours_due:.0f} h: {obstacle}"))
    if cycles_today > limits.max_cycles_a_day:
        found.append(
            ActiveAlarm(
                name="too_many_cycles",
                text=f"{cycles_today} cycles started in the last 24 h (more than {limits.max_cycles_a_day}); "
                "sleepctl why and sleepctl history show the reasons; sleepctl pause stops them",
            )
        )
    return found
