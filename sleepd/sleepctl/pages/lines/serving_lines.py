"""What the engine was proved to run: the line of ``status``, and the spans of ``history`` and ``show``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sleepd.protocol.deployment.serve_messages import ServedSpan, ServedState
from sleepd.sleepctl.pages.terminal import Page, Row, Span
from sleepd.sleepctl.pages.wording import MISSING, ago, count, model, moment

_DOING = {
    "asking": "the engine is asked what it runs",
    "preparing": "{} is made ready for the engine",
    "waiting": "waiting until the engine is idle, to give it {}",
    "swapping": "the engine is given {}",
    "proving": "the engine is asked whether it runs {}",
    "putting_back": "what was served before is put back",
    "freeing": "the engine frees the GPU for the cycle",
}


def serving_rows(serving: ServedState | None, now: datetime) -> Page:
    """What is served, since when that is proved, and what is wrong with it; nothing where no engine is configured."""
    if serving is None:
        return []
    wanted = model(serving.wanted)
    page = [Row([_what(serving, now)], "Serving")]
    if serving.phase:
        page.append(Row([Span(_DOING[serving.phase].format(wanted), "blue")], ""))
    if serving.problem:
        page.append(Row([Span(serving.problem, "yellow")], ""))
    if serving.problem and serving.hint:
        page.append(Row([Span(f"→ {serving.hint}", "bold")], "", hang=2))
    again = f" · tried again {ago(serving.retry_at, now)}" if serving.retry_at else ""
    page.append(Row([Span(f"{serving.model} at {serving.url} ({serving.kind}){again}", "dim")], ""))
    return page


def _what(serving: ServedState, now: datetime) -> Span:
    """``cycle 7, proved 2 min ago (0.08; next nearest 0.58)``."""
    if serving.proved_at is None:
        return Span("not known: nothing is proved", "yellow")
    proved = f"proved {ago(serving.proved_at, now)}{_figures(serving.distance, serving.next_nearest)}"
    if not serving.is_proved:
        return Span(f"not known; {model(serving.served)} was {proved}", "yellow")
    if serving.served != serving.wanted:
        return Span(f"{model(serving.served)}, {proved}, and not {model(serving.wanted)}, which is promoted", "yellow")
    return Span(f"{model(serving.served)}, {proved}", "green")


def span_rows(spans: Sequence[ServedSpan], now: datetime, label: str) -> Page:
    """From when to when each was served, newest first."""
    rows: Page = []
    for span in spans:
        until = "now" if span.until is None else moment(span.until, now)
        proofs = count(span.proofs, "proof")
        figures = _figures(span.distance, span.next_nearest)
        text = f"{model(span.cycle)}: {moment(span.since, now)} to {until}, {proofs}{figures}"
        rows.append(Row([Span(text)], "" if rows else label))
    return rows


def _figures(distance: float | None, next_nearest: float | None) -> str:
    if distance is None:
        return ""
    return f" ({distance:.2f}; next nearest {MISSING if next_nearest is None else f'{next_nearest:.2f}'})"
