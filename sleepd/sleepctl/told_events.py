"""Which events a status and a history bring that were not told yet. No clock, no file, no process."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sleepd.cycle import TERMINAL_STATES
from sleepd.protocol.status import SCHEMA, CycleSummary, Status
from sleepd.text.shell import command_line

from .pages.wording import count, gain

KEPT = 500
"""Most facts that are remembered; more than one history holds."""


class TellableEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator's command gets."""

    event: str
    """``promoted``, ``rolled_back``, ``alarm`` …: as in ``notify.events``."""
    name: str = ""
    """Of an alarm, by which it can be chosen: ``overdue``, ``not_served`` …"""
    text: str
    cycle: int | None = None
    hint: str = ""
    schema: int = SCHEMA


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What was told, or lay before the first start."""

    facts: list[str]
    """Of cycles: they never come again."""
    active: list[str] = []
    """Of alarms and errors that last: told again when they come back after they had ended."""


def new_events(status: Status, cycles: Sequence[CycleSummary], told: Told | None) -> tuple[list[TellableEvent], Told]:
    """The events, oldest first, and what is told with them; ``told``: None at the very first start."""
    facts = {name: event for each in reversed(cycles) for name, event in _of_cycle(each).items()}
    lasting = _lasting(status)
    known = [] if told is None else told.facts
    seen = set(known)
    fresh = [name for name in facts if name not in seen]
    now_told = Told(facts=[*known, *fresh][-KEPT:], active=sorted(lasting))
    if told is None:
        return [], now_told
    active = set(told.active)
    events = [facts[name] for name in fresh]
    return events + [event for name, event in lasting.items() if name not in active], now_told


def _of_cycle(cycle: CycleSummary) -> dict[str, TellableEvent]:
    """Its end, and its rollback."""
    found = {}
    number = cycle.cycle
    if cycle.state in TERMINAL_STATES:
        figures = ""
        if cycle.holdout_after is not None:
            over = count(cycle.measured_on, "held-out experience")
            figures = f", gain {gain(cycle.holdout_before, cycle.holdout_after)} nats/token on {over}"
        text = f"cycle {number} {cycle.state}{figures}{f': {cycle.reason}' if cycle.reason else ''}"
        found[f"{number} ended"] = TellableEvent(event=cycle.state, text=text, cycle=number, hint=cycle.hint)
    if cycle.is_rolled_back:
        text = f"cycle {number} was rolled back: its adapter is not in use any more"
        hint = command_line("sleepctl", "report", number)
        found[f"{number} rolled back"] = TellableEvent(event="rolled_back", text=text, cycle=number, hint=hint)
    return found


def _lasting(status: Status) -> dict[str, TellableEvent]:
    found = {
        f"alarm {each.name}": TellableEvent(event="alarm", name=each.name, text=each.text, hint="sleepctl doctor")
        for each in status.alarms
    }
    error = status.last_error
    if error is not None:
        found[f"error {error.message}"] = TellableEvent(event="error", text=error.message, hint=error.hint)
    return found
