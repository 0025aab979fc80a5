"""All cycles: what they gained, how far they drifted, how long they took, and the decisions beneath."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sleepd.protocol.answers import Reasons
from sleepd.protocol.status import CycleSummary
from sleepd.sleepctl.pages.wording import duration, gain, has_low_sample, older_loss

from .charts import Chart, Point, chart
from .state_marks import LEGEND, Mark, mark_of

SHOWN = (50, 200, 1000)
"""Numbers of cycles that can be asked for."""
MAX_DRIFT = 0.05
"""The limit of drift by default; the limit in force stands on the page of each cycle."""
MOST_MARKS = 400
"""Cycles in a chart: more would lie on each other."""
_UNMEASURED = frozenset({"imported", "adopted"})


class Line(NamedTuple):
    """One cycle in the table."""

    summary: CycleSummary
    mark: Mark
    gain: str
    took: str
    notes: list[str]


def values(cycles: Sequence[CycleSummary], reasons: Reasons, now: datetime, *, limit: int) -> dict[str, Any]:
    """Charts with the oldest cycle at the left, a table with the newest first."""
    drawn = list(reversed(cycles[:MOST_MARKS]))
    charts = [
        chart("Gain on held-out experiences, nats per token", [_gain(each) for each in drawn]),
        chart("Drift from the base, nats per token", [_drift(each) for each in drawn], limit=MAX_DRIFT),
        chart("Time, minutes", [_minutes(each) for each in drawn]),
    ]
    return {
        "now": now,
        "lines": [_line(each) for each in cycles],
        "charts": [each for each in charts if each is not None],
        "drawn": len(drawn),
        "legend": LEGEND,
        "decisions": reasons.changes,
        "limit": limit,
        "limits": SHOWN,
    }


def comparison_charts(cycles: Sequence[CycleSummary]) -> list[Chart]:
    """Of the two cycles that are compared."""
    found = [
        chart("Gain on held-out experiences, nats per token", [_gain(each) for each in cycles]),
        chart("Drift from the base, nats per token", [_drift(each) for each in cycles], limit=MAX_DRIFT),
    ]
    return [each for each in found if each is not None]


def _point(cycle: CycleSummary, value: float | None, what: str) -> Point | None:
    if value is None:
        return None
    mark = mark_of(cycle)
    title = f"cycle {cycle.cycle}, {mark.name}: {what}"
    return Point(value, title, mark.shape, mark.colour, f"/cycles/{cycle.cycle}")


def _gain(cycle: CycleSummary) -> Point | None:
    before, after = cycle.holdout_before, cycle.holdout_after
    value = None if before is None or after is None else before - after
    low = " (low sample)" if has_low_sample(cycle) else ""
    return _point(cycle, value, f"gain {gain(before, after)} nats/token{low}")


def _drift(cycle: CycleSummary) -> Point | None:
    return _point(cycle, cycle.drift, "" if cycle.drift is None else f"drift {cycle.drift:.4f} nats/token")


def _minutes(cycle: CycleSummary) -> Point | None:
    seconds = _seconds(cycle)
    return _point(cycle, None if seconds is None else seconds / 60, "" if seconds is None else duration(seconds))


def _seconds(cycle: CycleSummary) -> float | None:
    if cycle.ended_at is None or cycle.state in _UNMEASURED:
        return None
    return (cycle.ended_at - cycle.started_at).total_seconds()


def _line(cycle: CycleSummary) -> Line:
    seconds = _seconds(cycle)
    notes = [
        "in use" if cycle.is_champion else "",
        "on probation" if cycle.is_on_probation else "",
        "low sample" if has_low_sample(cycle) else "",
        f"tagged {cycle.tag}" if cycle.tag else "",
        "weights pruned" if cycle.is_pruned else "",
        older_loss(cycle),
    ]
    took = "–" if seconds is None else duration(seconds)
    shown_gain = gain(cycle.holdout_before, cycle.holdout_after)
    return Line(cycle, mark_of(cycle), shown_gain, took, [note for note in notes if note])
