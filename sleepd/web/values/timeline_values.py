"""All cycles: gain, drift, loops and time of each, with the decisions and alarms beneath."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sleepd.cycle import JUDGED_STATES
from sleepd.protocol.answers import Reasons
from sleepd.protocol.status import CycleSummary
from sleepd.sleepctl.pages.lines.origin_words import whence
from sleepd.sleepctl.pages.wording import MISSING, duration, energy, gain, has_low_sample, older_loss

from .charts import Point, chart, x_of
from .state_marks import LEGEND, Mark, mark_of

SHOWN = (40, 60)
"""Numbers of cycles that can be asked for at a time."""
_UNMEASURED = frozenset({"imported", "adopted"})


class Line(NamedTuple):
    """One cycle in the table."""

    summary: CycleSummary
    mark: Mark
    gain: str
    interval: str
    """Of the gain; empty: it has none."""
    drift: str
    drift_limit: str
    """Empty: it is not known."""
    took: str
    trained: str
    notes: list[str]


class Happening(NamedTuple):
    """A decision, or an alarm, at its moment."""

    at: datetime
    what: str
    text: str
    shape: str
    colour: str
    x: float
    """Where it stands below the charts."""


def values(
    cycles: Sequence[CycleSummary], reasons: Reasons, now: datetime, *, limit: int, is_newest: bool
) -> dict[str, Any]:
    """Charts with the oldest cycle at the left, tables with the newest first."""
    drawn = list(reversed(cycles))
    figures = {
        "Gain on held-out experiences, nats per token": _gain,
        "Drift from the base, nats per token": _drift,
        "Replies that run in a loop": _loops,
        "Time, minutes": _minutes,
        "Energy that the GPU drew, Wh": _energy,
    }
    ends = (f"cycle {drawn[0].cycle}", f"cycle {drawn[-1].cycle}") if len(drawn) > 1 else ("", "")
    charts = [chart(title, [figure(each) for each in drawn], ends) for title, figure in figures.items()]
    return {
        "now": now,
        "lines": [_line(each) for each in cycles],
        "charts": [each for each in charts if each is not None],
        "legend": [each for each in LEGEND if each.name in {mark_of(cycle).name for cycle in cycles}],
        "happenings": _happenings(reasons, [each.started_at for each in drawn], is_newest=is_newest),
        "is_paged": not is_newest,
        "has_energy": any(each.energy_joules is not None for each in cycles),
        "limit": limit,
        "limits": SHOWN,
        "older": cycles[-1].cycle if len(cycles) == limit and cycles[-1].cycle > 1 else None,
        "newer": cycles[0].cycle + limit + 1 if cycles else None,
    }


def _happenings(reasons: Reasons, starts: Sequence[datetime], *, is_newest: bool) -> list[Happening]:
    """Decisions and alarms of the time that is shown, newest first."""
    found = []
    for each in reasons.changes:
        what, shape = ("sleep", "disc") if each.decision.should_sleep else ("wait", "ring")
        found.append(Happening(each.at, what, each.decision.reason, shape, "accent", _place(each.at, starts)))
    for alarm in reasons.alarms:
        lasted = "and lasts" if alarm.until is None else f"for {duration((alarm.until - alarm.since).total_seconds())}"
        text = f"{alarm.text} ({lasted})"
        found.append(Happening(alarm.since, "alarm", text, "triangle", "warn", _place(alarm.since, starts)))
    shown = [each for each in found if is_newest or (starts and starts[0] <= each.at <= starts[-1])]
    return sorted(shown, key=lambda each: each.at, reverse=True)


def _place(at: datetime, starts: Sequence[datetime]) -> float:
    """Between the two cycles between which it was; those before and after all of them stand at the ends."""
    after = bisect_left(starts, at)
    if after == 0 or after == len(starts):
        return x_of(min(after, max(len(starts) - 1, 0)), len(starts))
    between = (at - starts[after - 1]) / ((starts[after] - starts[after - 1]) or timedelta(1))
    return x_of(after - 1 + between, len(starts))


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
    interval = f", {_interval(cycle)}" if _interval(cycle) else ""
    point = _point(cycle, value, f"gain {gain(before, after)} nats/token{interval}{low}")
    return point and point._replace(low=cycle.gain_low, high=cycle.gain_high)


def _interval(cycle: CycleSummary) -> str:
    """``0.30 to 0.52``, or the bound that is known."""
    ends = [None if each is None else f"{each:.2f}".replace("-", "−") for each in (cycle.gain_low, cycle.gain_high)]
    match ends:
        case str(low), str(high):
            return f"{low} to {high}"
        case str(low), None:
            return f"above {low}"
        case None, str(high):
            return f"below {high}"
    return ""


def _drift(cycle: CycleSummary) -> Point | None:
    limit = "" if cycle.drift_limit is None else f", limit {cycle.drift_limit:g}"
    point = _point(cycle, cycle.drift, "" if cycle.drift is None else f"drift {cycle.drift:.4f} nats/token{limit}")
    return point and point._replace(limit=cycle.drift_limit)


def _loops(cycle: CycleSummary) -> Point | None:
    return _point(cycle, cycle.loops, "" if cycle.loops is None else f"{cycle.loops} replies in a loop")


def _minutes(cycle: CycleSummary) -> Point | None:
    seconds = _seconds(cycle)
    return _point(cycle, None if seconds is None else seconds / 60, "" if seconds is None else duration(seconds))


def _energy(cycle: CycleSummary) -> Point | None:
    joules = cycle.energy_joules
    return _point(cycle, None if joules is None else joules / 3600, "" if joules is None else energy(joules))


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
        whence(cycle),
        f"tagged {cycle.tag}" if cycle.tag and cycle.tag != cycle.strategy else "",
        "weights pruned" if cycle.is_pruned else "",
        older_loss(cycle),
    ]
    took = "–" if seconds is None else duration(seconds)
    shown_gain = gain(cycle.holdout_before, cycle.holdout_after)
    drift = MISSING if cycle.drift is None else f"{cycle.drift:.4f}"
    limit = "" if cycle.drift_limit is None else f"{cycle.drift_limit:g}"
    shown = [note for note in notes if note]
    trained = str(cycle.trained) if cycle.state in JUDGED_STATES | _UNMEASURED else MISSING
    return Line(cycle, mark_of(cycle), shown_gain, _interval(cycle), drift, limit, took, trained, shown)
