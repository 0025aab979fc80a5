"""The buffer: counts, salience, what was skipped; and the quarantine, to be reviewed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sleepd.protocol.status import BufferDetail, BufferMoment, QuarantineEntry, QuarantineList
from sleepd.sleepctl.pages.wording import moment

from .charts import lines_chart

DECISIONS = {"quarantined": ("release", "drop"), "dropped": ("reset", "release"), "released": ("reset", "drop")}
"""What can be decided about an experience, by its state."""
TITLES = {"release": "Release", "drop": "Drop", "reset": "Leave it to the screening"}
KINDS = {
    "total": "all",
    "held_out": "held out",
    "new": "new since the last sleep",
    "unlearned": "to learn",
    "quarantined": "in quarantine",
}
"""What is counted over time: the field, and its name on the page."""
CHARTS = {
    "All experiences, and those held out": ("total", "held_out"),
    "New, to learn, in quarantine": ("new", "unlearned", "quarantined"),
}
"""What stands in one chart, having about the same size."""
MOMENTS = 200
"""Most moments of the chart."""
ROWS = 20
"""Most rows of its table."""
SEARCHED = 1000
"""Most experiences in quarantine that are listed and searched."""


class Bin(NamedTuple):
    """Experiences of one tenth of the salience."""

    text: str
    number: int
    share: float
    """Of the largest bin, from 0 to 100."""
    is_trained: bool
    """At or above the least salience that is trained."""


class Entry(NamedTuple):
    """One experience in quarantine and what can be decided about it."""

    entry: QuarantineEntry
    decisions: list[tuple[str, str]]
    """Name and title."""


def values(detail: BufferDetail, now: datetime) -> dict[str, Any]:
    """What the template shows."""
    most = max(detail.histogram, default=0) or 1
    bins = [
        Bin(
            f"{number / 10:.1f}–{(number + 1) / 10:.1f}",
            found,
            round(found / most * 100, 1),
            (number + 1) / 10 > detail.min_salience,
        )
        for number, found in enumerate(detail.histogram)
    ]
    return {"detail": detail, "buffer": detail.status, "bins": bins, **_over_time(detail.moments, now)}


def _over_time(moments: Sequence[BufferMoment], now: datetime) -> dict[str, Any]:
    """The counts at earlier moments; a line needs two of them."""
    if len(moments) < 2:
        return {"charts": [], "moments": [], "kinds": KINDS}
    ends = (moment(moments[0].at, now), moment(moments[-1].at, now))
    step = -(-len(moments) // ROWS)
    return {
        "charts": [
            lines_chart(title, {KINDS[name]: [float(getattr(each, name)) for each in moments] for name in names}, ends)
            for title, names in CHARTS.items()
        ],
        "moments": moments[::-1][::step],
        "kinds": KINDS,
    }


def quarantine_values(known: QuarantineList, search: str, state: str) -> dict[str, Any]:
    """The entries that a search finds."""
    found = [each for each in known.entries if _is_found(each, search, state)]
    return {
        "known": known,
        "entries": [_entry(each) for each in found],
        "search": search,
        "state": state,
        "states": ("", *DECISIONS),
    }


def _entry(entry: QuarantineEntry) -> Entry:
    return Entry(entry, [(name, TITLES[name]) for name in DECISIONS[entry.state]] if entry.id else [])


def _is_found(entry: QuarantineEntry, search: str, state: str) -> bool:
    texts: Iterable[str] = (entry.id, entry.reason, entry.text, entry.preview)
    return (not state or entry.state == state) and any(search.casefold() in text.casefold() for text in texts)
