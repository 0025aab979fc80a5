"""The screen of ``sleepctl show N``: everything known about one cycle."""

from __future__ import annotations

from datetime import datetime

from sleepd.protocol.job import Report
from sleepd.protocol.status import CycleDetail, CycleSummary

from .cycle_table import STATE_STYLES
from .lines.evidence_lines import check_lines, cost_lines, drift_line, figure_lines, metric_lines, recall_lines
from .lines.pair_lines import pair_lines
from .lines.serving_lines import span_rows
from .terminal import Page, Row, Span, shorten
from .wording import MISSING, duration, holdout, losses, model, moment, older_loss, used

_SHOWN_REPLIES = 5
_TEXT_COLUMNS = 300
"""Of a prompt or a reply: enough to judge it; the rest is in ``--json``."""


def show_page(detail: CycleDetail, now: datetime) -> Page:
    """The cycle's verdict, how it was trained, what was measured, how it replies now."""
    summary = detail.summary
    page = [_headline(summary, now), Row([])]
    page += _verdict(detail)
    page += _labelled("Pair", pair_lines(detail))
    page += _origin(detail)
    has_ids = detail.trained_ids or detail.held_out_ids
    page.append(_row("Used", f"{used(summary)}{' (ids: --json)' if has_ids else ''}"))
    if detail.report is not None:
        page += _evidence(detail, detail.report)
        page += _training(detail.report) if detail.origin is None else []
        page += _labelled("Cost", cost_lines(detail.report)) + _holdout(detail.report)
        page += _replies(detail.report) + _notices(detail.report)
    page += span_rows(detail.served, now, "Served")
    page.append(_row("Undo", detail.undo or "nothing to undo"))
    page.append(_row("Files", detail.directory or "none kept"))
    if summary.is_pruned:
        page.append(_row("", "its weights were pruned; their measurements stay"))
    return page


def _origin(detail: CycleDetail) -> Page:
    """What it was made from: here, or on another machine."""
    summary, origin = detail.summary, detail.origin
    if origin is None:
        return [_row("From", f"{model(summary.parent)}, strategy {summary.strategy or MISSING}")]
    there = holdout(origin.holdout_before, origin.holdout_after, origin.held_out)
    return [
        _row("From", f"{origin.signer}, bundle {origin.bundle[:12]}, cycle {origin.cycle} there"),
        _row("There", f"{origin.outcome}, {there}, on {origin.device}; these figures decided nothing here"),
        _row("Compared", f"with {model(summary.parent)} of this machine; nothing was trained"),
    ]


def _row(label: str, text: str, style: str = "") -> Row:
    return Row([Span(text, style)], label)


def _headline(summary: CycleSummary, now: datetime) -> Row:
    state = "rolled back" if summary.is_rolled_back else summary.state
    spans = [Span(f"cycle {summary.cycle} ", "bold"), Span(state, STATE_STYLES.get(state, "blue"))]
    if summary.is_champion:
        spans.append(Span(", in use"))
    if summary.is_on_probation:
        spans.append(Span(", on probation", "yellow"))
    if summary.tag:
        spans.append(Span(f", tagged {summary.tag}"))
    spans.append(Span(f"; started {moment(summary.started_at, now)}"))
    if summary.ended_at is not None:
        spans.append(Span(f", took {duration((summary.ended_at - summary.started_at).total_seconds())}"))
    return Row([*spans, Span(", forced" if summary.is_forced else "")])


def _verdict(detail: CycleDetail) -> Page:
    summary = detail.summary
    page = [_row("Verdict", summary.reason or MISSING)]
    if summary.hint:
        page.append(_row("", f"→ {summary.hint}", "bold"))
    if detail.comparison is not None:
        by = f" (compared by cycle {detail.compared_by})" if detail.compared_by is not None else ""
        page.append(_row("Later", f"{detail.comparison.reason}{by}"))
    page.append(_row("Measured", holdout(summary.holdout_before, summary.holdout_after, summary.measured_on)))
    if detail.report is not None and detail.report.host:
        page.append(_row("", f"on {detail.report.measured_where}", "yellow"))
    page.append(_row("Trained on", f"loss {losses(summary.train_before, summary.train_after)} nats/token"))
    older = older_loss(summary)
    return [*page, _row("Older", older)] if older else page


def _training(report: Report) -> Page:
    return [
        _row("Training", f"{report.steps} steps, {report.epochs} epochs, learning rate {report.learning_rate:g}"),
        _row("", f"loss by epoch {', '.join(f'{loss:.2f}' for loss in report.epoch_losses) or MISSING}"),
    ]


def _evidence(detail: CycleDetail, report: Report) -> Page:
    """Every figure beside its limit; what was decided later on; and what was measured without a limit."""
    figures = figure_lines(detail.verdict.figures) if detail.verdict else []
    drift = drift_line(report.evidence)
    return [
        *_labelled("Figures", figures),
        *_labelled("Proofs", check_lines(report, detail.verdict)),
        *_labelled("Drift", [Row([Span(drift)])] if drift else []),
        *_labelled("Questions", recall_lines(report.evidence.recall, width=_TEXT_COLUMNS)[:1]),
        *_labelled("Your own", metric_lines(report.evidence.metrics, detail.metrics)),
    ]


def _labelled(label: str, rows: list[Row]) -> Page:
    return [row._replace(label=label if number == 0 else "") for number, row in enumerate(rows)]


def _holdout(report: Report) -> Page:
    if not report.holdout:
        return []
    page = [_row("Held out", f"{'experience':<18} {'tokens':>6} {'base':>7} {'before':>7} {'after':>7}", "dim")]
    for pair in report.holdout:
        worse = "yellow" if pair.candidate > pair.parent else ""
        figures = f"{pair.tokens:>6} {pair.base:>7.2f} {pair.parent:>7.2f} {pair.candidate:>7.2f}"
        page.append(_row("", f"{shorten(pair.id, 18):<18} {figures}", worse))
    return page


def _replies(report: Report) -> Page:
    page: Page = []
    for number, reply in enumerate(report.replies[:_SHOWN_REPLIES]):
        page.append(_row("Says now" if number == 0 else "", f"> {shorten(reply.prompt, _TEXT_COLUMNS)}", "dim"))
        page.append(_row("", shorten(reply.text, _TEXT_COLUMNS)))
        if reply.is_loop:
            too = "; its parent's reply loops too" if reply.parent_is_loop else ""
            page.append(_row("", f"(a loop: {reply.repeated_share:.0%} of it is repeated{too})", "red"))
    rest = len(report.replies) - _SHOWN_REPLIES
    return [*page, _row("", f"and {rest} more: --json")] if rest > 0 else page


def _notices(report: Report) -> Page:
    return [_row("Notices" if number == 0 else "", notice.text) for number, notice in enumerate(report.notices)]
