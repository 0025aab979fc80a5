"""The two cycles of a pair, a line each, and what told them apart."""

from __future__ import annotations

from sleepd.protocol.status import CycleDetail, CycleSummary
from sleepd.protocol.verdict import Interval
from sleepd.sleepctl.pages.terminal import Row, Span
from sleepd.sleepctl.pages.wording import MISSING, count, duration, gain

_NAME_COLUMNS = 12


def pair_lines(detail: CycleDetail) -> list[Row]:
    """Both with their figures; nothing where the cycle is in no pair."""
    summary, pair = detail.summary, detail.verdict.pair if detail.verdict else None
    if summary.rival is None:
        return []
    rows = [_row(each) for each in (summary, detail.rival) if each is not None]
    if pair is None:
        return rows
    rows.append(Row([Span(pair.text)], hang=2))
    if pair.holdout is not None:
        rows.append(Row([Span(f"paired, held out: {_interval(pair.holdout)}")], hang=2))
    if pair.learned is not None:
        rows.append(Row([Span(f"paired, newly trained: {_interval(pair.learned)}")], hang=2))
    return rows


def _row(summary: CycleSummary) -> Row:
    drift = MISSING if summary.drift is None else f"{summary.drift:.3f}"
    took = "" if summary.worker_seconds is None else f", worker {duration(summary.worker_seconds)}"
    figures = f"gain {gain(summary.holdout_before, summary.holdout_after)}, drift {drift}{took}"
    name = f"cycle {summary.cycle} {summary.strategy:<{_NAME_COLUMNS}}"
    return Row([Span(f"{name} {summary.state:<12} {figures}")], hang=2)


def _interval(found: Interval) -> str:
    bounds = ""
    if found.low is not None and found.high is not None:
        bounds = f" ({found.low:+.3f} to {found.high:+.3f}, each bound with {found.confidence:.3g})"
    text = f"this one gained {found.estimate:+.3f} nats/token more{bounds} on {count(found.experiences, 'experience')}"
    return text.replace("-", "−")
