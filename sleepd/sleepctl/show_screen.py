"""The screen of ``sleepctl show N``: everything known about one cycle."""

from __future__ import annotations

from datetime import datetime

from sleepd.job import Report
from sleepd.status import CycleDetail, CycleSummary

from .cycle_table import STATE_STYLES
from .terminal import Page, Row, Span, shorten
from .words import MISSING, duration, holdout, losses, model, moment, older_loss

_SHOWN_REPLIES = 5
_TEXT_COLUMNS = 300
"""Of a prompt or a reply: enough to judge it; the rest is in ``--json``."""


def show_page(detail: CycleDetail, now: datetime) -> Page:
    """The cycle's verdict, how it was trained, what was measured, what it says now."""
    summary = detail.summary
    page = [_headline(summary, now), Row([])]
    page += _verdict(summary)
    page.append(_row("From", f"{model(summary.parent)}, strategy {summary.strategy or MISSING}"))
    learned = f"{len(detail.trained_ids)} trained, {len(detail.replayed_ids)} replayed"
    page.append(_row("Used", f"{learned}, {len(detail.held_out_ids)} held out (ids: --json)"))
    if detail.report is not None:
        page += _training(detail.report) + _proofs(detail.report) + _holdout(detail.report)
        page += _replies(detail.report) + _notices(detail.report)
    page.append(_row("Files", detail.directory or "none kept"))
    if summary.is_pruned:
        page.append(_row("", "its weights were pruned; what was measured on them stays"))
    return page


def _row(label: str, text: str, style: str = "") -> Row:
    return Row([Span(text, style)], label)


def _headline(summary: CycleSummary, now: datetime) -> Row:
    state = "rolled back" if summary.is_rolled_back else summary.state
    spans = [Span(f"cycle {summary.cycle} ", "bold"), Span(state, STATE_STYLES.get(state, "blue"))]
    if summary.is_champion:
        spans.append(Span(", in use"))
    if summary.tag:
        spans.append(Span(f", tagged {summary.tag}"))
    spans.append(Span(f"; started {moment(summary.started_at, now)}"))
    if summary.ended_at is not None:
        spans.append(Span(f", took {duration((summary.ended_at - summary.started_at).total_seconds())}"))
    return Row([*spans, Span(", forced" if summary.is_forced else "")])


def _verdict(summary: CycleSummary) -> Page:
    page = [_row("Verdict", summary.reason or MISSING)]
    if summary.hint:
        page.append(_row("", f"→ {summary.hint}", "bold"))
    page.append(_row("Measured", holdout(summary.holdout_before, summary.holdout_after, summary.held_out)))
    page.append(_row("Trained on", f"loss {losses(summary.train_before, summary.train_after)} nats/token"))
    older = older_loss(summary)
    return [*page, _row("Older", older)] if older else page


def _training(report: Report) -> Page:
    page = [_row("Training", f"{report.steps} steps, {report.epochs} epochs, learning rate {report.learning_rate:g}")]
    tokens = f"{report.supervised_tokens} supervised of {report.tokens} tokens, {report.tokens_per_second:.0f} tokens/s"
    page.append(_row("", tokens))
    page.append(_row("", f"loss by epoch {', '.join(f'{loss:.2f}' for loss in report.epoch_losses) or MISSING}"))
    page.append(_row("Device", f"{report.device}, {report.dtype}, at most {report.peak_memory_bytes / 2**20:.0f} MiB"))
    times = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in report.seconds.items())
    return [*page, _row("Time", times)] if times else page


def _proofs(report: Report) -> Page:
    page = []
    for number, check in enumerate(report.checks):
        mark = Span("✓ ", "green") if check.passed else Span("✗ ", "red")
        proof = f"{check.name} {check.figure:.3g} (limit {check.limit:.3g}): {check.detail}"
        page.append(Row([mark, Span(proof)], "Proofs" if number == 0 else ""))
    return page


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
            too = "; its parent loops here too" if reply.parent_is_loop else ""
            page.append(_row("", f"(a loop: {reply.repeated_share:.0%} of it is repeated{too})", "red"))
    rest = len(report.replies) - _SHOWN_REPLIES
    return [*page, _row("", f"and {rest} more: --json")] if rest > 0 else page


def _notices(report: Report) -> Page:
    return [_row("Notices" if number == 0 else "", notice.text) for number, notice in enumerate(report.notices)]
