"""The pages of ``when`` and ``simulate``."""

from __future__ import annotations

from datetime import datetime

from sleepd.protocol.answers import ExpectedSleep, SimulatedTriggers, SimulatedView

from .terminal import Page, Row, Span
from .wording import count, duration, moment

_SLEEPS = 20
"""So many simulated sleeps are listed, the newest; the data of ``--json`` has all of them."""


def expected_page(found: ExpectedSleep, now: datetime) -> Page:
    """When the next sleep is expected, and at which rate experiences came."""
    if found.at is None:
        expected = f"No time is expected: {found.reason}"
    elif found.at <= now:
        expected = "Now: it is due"
    else:
        left = duration((found.at - now).total_seconds())
        expected = f"Expected {moment(found.at, now)}, in {left}, {found.reason}"
    rate = "not known yet" if found.per_day is None else f"{found.per_day:.1f} a day"
    return [Row([Span(expected, "bold")]), Row([Span(f"Experiences: {rate}")])]


def simulation_page(found: SimulatedTriggers, now: datetime) -> Page:
    """How often it would have slept under the configuration in force and under the other one, and what was missing."""
    if found.first is None:
        return [Row([Span("Nothing was recorded in that time: the daemon records facts at its polls")])]
    since = f"since {moment(found.first, now)}"
    page = [
        Row([Span(f"{count(found.looks, 'recorded look')} {since}; {count(found.began, 'cycle')} really began")]),
        Row([]),
        *_side("The configuration in force", found.configured, now),
        Row([]),
        *_side("The other configuration", found.given, now),
        Row([]),
    ]
    note = "A simulated cycle learns all that is new and ends at once; cooldowns and failures are left out."
    return [*page, Row([Span(note, "dim")])]


def _side(title: str, view: SimulatedView, now: datetime) -> Page:
    page = [Row([Span(f"{title}: {count(len(view.sleeps), 'sleep')}", "bold")])]
    page += [
        Row([Span(f"  {moment(each.at, now):<16}  {each.new:>5} new of {each.total:>6}  {each.reason}")], hang=27)
        for each in view.sleeps[-_SLEEPS:]
    ]
    if (more := len(view.sleeps) - _SLEEPS) > 0:
        page.append(Row([Span(f"  and {more} earlier", "dim")]))
    for name, hours in sorted(view.hours_waited.items(), key=lambda item: -item[1]):
        page.append(Row([Span(f"  missing first for {duration(hours * 3600)}: {name}", "dim")]))
    return page
