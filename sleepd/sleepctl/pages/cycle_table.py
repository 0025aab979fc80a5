"""Cycles as rows of a table: the three of ``status``, and those of ``history``.

An older scheduler's loss is over whole sequences. It stands on a line of its own, never in a column of ours.
"""

from __future__ import annotations

from datetime import datetime

from sleepd.cycle import TERMINAL_STATES
from sleepd.protocol.status import CycleSummary

from .lines.origin_words import whence
from .terminal import Page, Row, Span, pad, shorten
from .wording import MISSING, duration, gain, has_low_sample, losses, moment, older_loss, used

STATE_STYLES = {
    "promoted": "green",
    "rejected": "yellow",
    "inconclusive": "yellow",
    "rolled back": "yellow",
    "failed": "red",
}


_ENDED = TERMINAL_STATES | {"imported", "adopted"}

_FIGURES = f"{'gain':>8}{'drift':>7}"

_REASON_COLUMNS = 120
"""Two lines of a reason; the rest is in ``show``."""


def recent_rows(cycles: list[CycleSummary], now: datetime, *, is_live: bool) -> Page:
    """The last cycles, beside the labels of ``status``; the reason below each that did not end well."""
    if not cycles:
        return []
    page = [Row([Span(f"{'':>4}  {'started':<16}  {'verdict':<12}{_FIGURES}", "dim")], "")]
    for cycle in cycles:
        start = Span(f"{cycle.cycle:>4}  {moment(cycle.started_at, now):<16}  ")
        page.append(Row([start, *_verdict(cycle, is_live)], "", hang=6))
        note = older_loss(cycle) or ("" if cycle.state == "promoted" else cycle.reason)
        notes = [each for each in (whence(cycle), note) if each]
        page += [Row([Span(f"      {shorten(each, _REASON_COLUMNS)}", "dim")], "", hang=6) for each in notes]
    return page


def history_page(cycles: list[CycleSummary], now: datetime, *, is_live: bool) -> Page:
    """All cycles given, newest first."""
    if not cycles:
        return [Row([Span("no cycle yet")])]
    page = [Row([Span(f"cycle  {'started':<16}  {'took':>9}  {'verdict':<12}{_FIGURES}", "dim")])]
    for cycle in cycles:
        start = f"{cycle.cycle:>5}  {moment(cycle.started_at, now):<16}  {_took(cycle):>9}  "
        page.append(Row([Span(start), *_verdict(cycle, is_live)], hang=7))
        if note := _note(cycle):
            page.append(Row([Span(f"       {shorten(note, _REASON_COLUMNS)}", "dim")], hang=7))
    return page


def _took(cycle: CycleSummary) -> str:
    # An older scheduler kept one time for a cycle.
    if cycle.ended_at is None or cycle.state in ("imported", "adopted"):
        return MISSING
    return duration((cycle.ended_at - cycle.started_at).total_seconds())


def _note(cycle: CycleSummary) -> str:
    """What the columns of ``history`` have no room for."""
    parts = ["in use"] if cycle.is_champion else []
    parts += [came] if (came := whence(cycle)) else []
    parts += [f"tagged {cycle.tag}"] if cycle.tag and cycle.tag != cycle.strategy else []
    parts += ["weights pruned"] if cycle.is_pruned else []
    if cycle.imported_loss is not None:
        return " · ".join([*parts, f"{cycle.trained} trained", older_loss(cycle)])
    if cycle.trained:
        parts.append(used(cycle))
    if cycle.holdout_after is not None:
        parts.append(f"holdout {losses(cycle.holdout_before, cycle.holdout_after)}")
    return " · ".join([*parts, cycle.reason] if cycle.reason else parts)


def _verdict(cycle: CycleSummary, is_live: bool) -> list[Span]:
    """What became of it, what it gained on the holdout, how far it drifted, and how much that is worth."""
    state = "rolled back" if cycle.is_rolled_back else cycle.state
    if not is_live and cycle.state not in _ENDED:
        state = "unfinished"  # what it was doing it does no more: the daemon is down
    drift = MISSING if cycle.drift is None else f"{cycle.drift:.3f}"
    figures = f"{gain(cycle.holdout_before, cycle.holdout_after):>8}{drift:>7}"
    marks = [mark for mark, holds in (("n<8", has_low_sample(cycle)), ("probation", cycle.is_on_probation)) if holds]
    spans = [Span(pad(state, 12), STATE_STYLES.get(state, "blue")), Span(figures)]
    return [*spans, Span(f"  {', '.join(marks)}", "yellow")] if marks else spans
