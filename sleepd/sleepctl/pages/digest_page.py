"""The letter of ``sleepctl digest``: at most ten lines, the most important ones first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from sleepd.protocol.status import CycleSummary, Status

from .terminal import Page, Row, Span, shorten
from .wording import ago, count, gain, holdout, model, moment

CYCLES = 3
"""Lines of cycles."""
WARNINGS = 2
"""Lines of warnings."""
_COLUMNS = 68
"""Of a line beside its label: none is wrapped at 80 columns."""


def digest_page(status: Status, cycles: Sequence[CycleSummary], since: datetime, now: datetime) -> Page:
    """``cycles``: those that ended, or run, since then, newest first."""
    page = [_line("State", f"{status.state}, since {moment(status.since, now)} ({ago(status.since, now)})")]
    warnings = [f"{shorten(status.last_error.message, 50)} (sleepctl status)"] if status.last_error else []
    warnings += [alarm.text for alarm in status.alarms]
    page += [_line("Look at", text) for text in _first(warnings, WARNINGS, "sleepctl status")]
    page.append(_line("Cycles", f"{_counted(cycles)} since {moment(since, now)}"))
    page += [_line("", text) for text in _first([_cycle(each) for each in cycles], CYCLES, "sleepctl history")]
    page.append(_line("In use", _champion(status)))
    buffer = status.buffer
    counts = f"{count(buffer.total, 'experience')}, {buffer.new} new, {buffer.quarantined} in quarantine"
    page.append(_line("Buffer", f"{counts}: sleepctl quarantine" if buffer.quarantined else counts))
    page.append(_line("Next sleep", "; ".join(status.missing) or status.decision.reason))
    return page


def _line(label: str, text: str) -> Row:
    return Row([Span(shorten(text, _COLUMNS))], label, hang=2)


def _first(texts: Sequence[str], most: int, command: str) -> Sequence[str]:
    """So many lines; the last one says how many more there are, and the command that shows them."""
    if len(texts) <= most:
        return texts
    return [*texts[: most - 1], f"{len(texts) - most + 1} more: {command}"]


def _counted(cycles: Sequence[CycleSummary]) -> str:
    states = Counter("rolled back" if each.is_rolled_back else each.state for each in cycles)
    return ", ".join(f"{number} {state}" for state, number in states.items()) or "none"


def _cycle(cycle: CycleSummary) -> str:
    state = "rolled back" if cycle.is_rolled_back else cycle.state
    figures = f", gain {gain(cycle.holdout_before, cycle.holdout_after)} nats/token" if cycle.holdout_after else ""
    reason = "" if state == "promoted" else f": {cycle.reason}"
    return f"cycle {cycle.cycle} {state}{figures}{reason}"


def _champion(status: Status) -> str:
    champion = status.champion
    if champion is None:
        return model(None)
    figures = holdout(champion.holdout_before, champion.holdout_after, champion.held_out)
    return f"{model(champion.cycle)}, {figures}"
