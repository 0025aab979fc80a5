"""The letter of ``sleepctl digest``: about ten lines, the most important ones first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from sleepd.protocol.status import CycleSummary, Status

from .terminal import Page, Row, Span, shorten
from .wording import ago, count, gain, holdout, model, moment

CYCLES = 4
"""Cycles with a line of their own."""
WARNINGS = 3
_COLUMNS = 200


def digest_page(status: Status, cycles: Sequence[CycleSummary], since: datetime, now: datetime) -> Page:
    """``cycles``: those that ended, or run, since then, newest first."""
    page = [_line("State", f"{status.state}, since {moment(status.since, now)} ({ago(status.since, now)})")]
    page += [_line("Look at", text) for text in _warnings(status)]
    page.append(_line("Cycles", f"{_counted(cycles)} since {moment(since, now)}"))
    page += [_cycle(each) for each in cycles[:CYCLES]]
    if len(cycles) > CYCLES:
        page.append(_line("", f"{len(cycles) - CYCLES} more: sleepctl history"))
    page.append(_line("In use", _champion(status)))
    buffer = status.buffer
    counts = f"{count(buffer.total, 'experience')}, {buffer.new} new, {buffer.quarantined} in quarantine"
    page.append(_line("Buffer", f"{counts}: sleepctl quarantine" if buffer.quarantined else counts))
    page.append(_line("Next sleep", "; ".join(status.missing) or status.decision.reason))
    return page


def _line(label: str, text: str) -> Row:
    return Row([Span(shorten(text, _COLUMNS))], label, hang=2)


def _warnings(status: Status) -> list[str]:
    found = [f"{status.last_error.message} (sleepctl status)"] if status.last_error else []
    found += [alarm.text for alarm in status.alarms]
    shown = found[:WARNINGS]
    return [*shown, f"{len(found) - WARNINGS} more: sleepctl status"] if len(found) > WARNINGS else shown


def _counted(cycles: Sequence[CycleSummary]) -> str:
    states = Counter("rolled back" if each.is_rolled_back else each.state for each in cycles)
    return ", ".join(f"{number} {state}" for state, number in states.items()) or "none"


def _cycle(cycle: CycleSummary) -> Row:
    state = "rolled back" if cycle.is_rolled_back else cycle.state
    figures = f", gain {gain(cycle.holdout_before, cycle.holdout_after)} nats/token" if cycle.holdout_after else ""
    reason = "" if state == "promoted" else f": {cycle.reason}"
    return _line("", f"cycle {cycle.cycle} {state}{figures}{reason}")


def _champion(status: Status) -> str:
    champion = status.champion
    if champion is None:
        return model(None)
    figures = holdout(champion.holdout_before, champion.holdout_after, champion.held_out)
    return f"{model(champion.cycle)}, {figures}"
