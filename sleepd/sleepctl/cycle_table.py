"""Cycles as rows of a table: the three of ``status``, and those of ``history``.

An older scheduler's loss is over whole sequences. It stands on a line of its own, never in a column of ours.
"""

from __future__ import annotations

from datetime import datetime

from sleepd.cycle import TERMINAL_STATES
from sleepd.status import CycleSummary

from .terminal import Page, Row, Span, pad, shorten
from .words import MISSING, THIN_HOLDOUT, change, duration, losses, moment, older_loss

STATE_STYLES = {
    "promoted": "green",
    "rejected": "yellow",
    "inconclusive": "yellow",
    "rolled back": "yellow",
    "failed": "red",
}


_ENDED = TERMINAL_STATES | {"imported", "adopted"}

_REASON_COLUMNS = 120
"""Two lines of a reason; the rest is in ``show``."""


def recent_rows(cycles: list[CycleSummary], now: datetime, *, is_live: bool) -> Page:
    """The last cycles, beside the labels of ``status``; the reason below each that did not end well."""
    if not cycles:
        return []
    page = [Row([Span(f"{'':>4}  {'started':<16}  {'verdict':<12}  holdout", "dim")], "")]
    for cycle in cycles:
        page.append(
            Row([Span(f"{cycle.cycle:>4}  {moment(cycle.started_at, now):<16}  "), *_verdict(cycle, is_live)], "")
        )
        note = older_loss(cycle) or ("" if cycle.state == "promoted" else cycle.reason)
        if note:
            page.append(Row([Span(f"      {shorten(note, _REASON_COLUMNS)}", "dim")], "", hang=6))
    return page


def history_page(cycles: list[CycleSummary], now: datetime, *, is_live: bool) -> Page:
    """All cycles given, newest first."""
    if not cycles:
        return [Row([Span("no cycle yet")])]
    page = [Row([Span(f"cycle  {'started':<16}  {'took':>9}  {'verdict':<12}  holdout", "dim")])]
    for cycle in cycles:
        start = f"{cycle.cycle:>5}  {moment(cycle.started_at, now):<16}  {_took(cycle):>9}  "
        page.append(Row([Span(start), *_verdict(cycle, is_live)]))
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
    parts += [f"tagged {cycle.tag}"] if cycle.tag else []
    parts += ["weights pruned"] if cycle.is_pruned else []
    if cycle.imported_loss is not None:
        return " · ".join([*parts, f"{cycle.trained} trained", older_loss(cycle)])
    if cycle.trained:
        parts.append(f"{cycle.trained} trained, {cycle.replayed} replayed, {cycle.held_out} held out")
    return " · ".join([*parts, cycle.reason] if cycle.reason else parts)


def _verdict(cycle: CycleSummary, is_live: bool) -> list[Span]:
    """What became of it, and its holdout figures."""
    word = "rolled back" if cycle.is_rolled_back else cycle.state
    if not is_live and cycle.state not in _ENDED:
        word = "unfinished"  # what it was doing it does no more: the daemon is down
    spans = [Span(pad(word, 12), STATE_STYLES.get(word, "blue")), Span("  ")]
    if cycle.holdout_after is None:
        return [*spans, Span(MISSING)]
    before, after = cycle.holdout_before, cycle.holdout_after
    spans.append(Span(f"{losses(before, after)} ({change(before, after)})"))
    return [*spans, Span(" thin", "dim")] if cycle.held_out < THIN_HOLDOUT else spans
