"""``sleepctl events``: what happens, a line each, from now on.

The stream has no end of its own. Ctrl-C ends it with 130. When the daemon stops, that is reported, and the exit code is
3; it is not asked again, for what happened in between would be missing unseen. What is missing is in the journal.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from sleepd.client import Client
from sleepd.errors import DaemonNotRunning, RequestFailed
from sleepd.protocol.control import Announcement
from sleepd.protocol.job import Progress
from sleepd.protocol.status import SCHEMA
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.terminal import Page, Row, Span
from sleepd.sleepctl.session import STATUS_SECONDS, Session

_INDENT = 21
"""Columns of the date and the time."""
_SEE_REST = "later events: sleepctl logs"
_BAD = ("failed", "damaged", "rejected", "refused")


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    """An announcement as ``--json`` shows it."""

    event: str
    at: datetime
    fields: dict[str, Any]
    schema: int = SCHEMA


def follow(session: Session) -> ExitCode:
    """Show events until the daemon goes away.

    Raises:
        DaemonNotRunning: it is not there, or it went away.
        RequestFailed: it is there, but has given this reader up as too slow.
    """
    path = session.places.socket
    with Client(path, timeout=None) as client:
        for announcement in client.subscribe():
            data = _Event(event=announcement.event, at=announcement.at, fields=announcement.fields)
            session.console.show_one_of_many(data, event_page(announcement))
    try:
        Client(path, STATUS_SECONDS).close()
    except DaemonNotRunning as absent:
        raise DaemonNotRunning(
            "the daemon stopped, so no more events come", hint=f"{absent.hint}; {_SEE_REST}"
        ) from None
    raise RequestFailed(
        "the daemon closed the stream: it restarted, or its events were not read fast enough", hint=_SEE_REST
    )


def event_page(announcement: Announcement) -> Page:
    """``2026-07-05 07:20:03  cycle 9: training, step 11 of 24, loss 2.31``, in local time."""
    style = "red" if announcement.event.endswith(_BAD) else "green" if announcement.event.endswith("promoted") else ""
    moment = Span(f"{announcement.at.astimezone():%Y-%m-%d %H:%M:%S}  ", "dim")
    return [Row([moment, Span(_sentence(announcement), style)], hang=_INDENT)]


def _sentence(announcement: Announcement) -> str:
    fields = dict(announcement.fields)
    cycle = fields.pop("cycle", None)
    start = "" if cycle is None else f"cycle {cycle}: "
    if announcement.event == "progress":
        try:
            return start + _progress(msgspec.convert(announcement.fields, Progress))
        except msgspec.ValidationError:
            pass  # of a newer daemon: shown as any other event
    name = announcement.event.replace("_", " ")
    name = name.removeprefix("cycle ") if start else name
    text = fields.pop("text", "") or fields.pop("reason", "")
    figures = ", ".join(
        f"{key} {_figure(value)}" for key, value in fields.items() if value not in (None, "", "progress")
    )
    return f"{start}{name}" + (f": {text}" if text else "") + (f" ({figures})" if figures else "")


def _progress(progress: Progress) -> str:
    parts: list[str] = [progress.phase]
    if progress.steps:
        parts.append(f"step {progress.step} of {progress.steps}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.2f}")
    return ", ".join(parts)


def _figure(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
