"""The screens of ``check``, ``why`` and ``buffer``, and the one-line answers of what changes something."""

from __future__ import annotations

from datetime import datetime

from sleepd.protocol.decision_view import DecisionView
from sleepd.protocol.status import BufferDetail, CycleSummary, DecisionRecord, RunResult

from .terminal import Page, Row, Span, pad, shorten
from .wording import HANDLINGS, ago, holdout, moment, used

_HISTOGRAM_COLUMNS = 40
_REASON_COLUMNS = 300


def line(text: str, style: str = "") -> Row:
    """One line at the left edge."""
    return Row([Span(text, style)])


def decision_page(decision: DecisionView) -> Page:
    """Begins with the two lines that scripts search for; then every condition, then every veto."""
    page = [line(f"Should run: {decision.should_sleep}"), Row([Span(f"Reason: {decision.reason}")], hang=8), line("")]
    page += [
        _condition("✓" if it.is_met else "✗", it.name, "met" if it.is_met else "not met", it.text)
        for it in decision.conditions
    ]
    return page + [_condition("!", veto.name, "veto", veto.text) for veto in decision.vetoes]


_MARK_STYLES = {"✓": "green", "✗": "yellow", "!": "red"}


def _condition(mark: str, name: str, state: str, text: str) -> Row:
    return Row([Span(f"{mark} ", _MARK_STYLES[mark]), Span(f"{pad(name, 24)} {pad(state, 8)} {text}")], hang=36)


def why_page(current: DecisionView, changes: list[DecisionRecord], now: datetime, *, adopted: str = "") -> Page:
    """The decision now, then how it came about, newest first; ``adopted``: why another strategy is in force."""
    page = decision_page(current)
    page += [line(""), Row([Span(f"strategy: {adopted}")], hang=10)] if adopted else []
    page += [line(""), line("how it changed, newest first:" if changes else "it has not changed yet", "dim")]
    return page + changes_page(changes, now)


def changes_page(changes: list[DecisionRecord], now: datetime) -> Page:
    """Each change with its reason, and below it the figures."""
    page = []
    for change in changes:
        answer = Span("yes", "green") if change.decision.should_sleep else Span("no ", "yellow")
        start = Span(f"  {moment(change.at, now):<16}  ")
        page.append(Row([start, answer, Span(f"  {change.decision.reason}")], hang=25))
        figures = ", ".join(f"{name} {_figure(value)}" for name, value in change.facts.items())
        if figures:
            page.append(Row([Span(f"    {figures}", "dim")], hang=4))
    return page


def _figure(value: object) -> str:
    if value is None or value == "":
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def buffer_page(detail: BufferDetail, now: datetime) -> Page:
    """Counts, how salient they are, and what is not used."""
    status = detail.status
    read = f", read {ago(status.read_at, now)}" if status.read_at else ""
    files = f", {detail.files} files" if detail.files > 1 else ""
    form = f"{status.form}{files}" if status.read_at or status.form != "absent" else "not read yet"
    page = [line(status.path or "buffer.path is not set", "bold"), line(f"form: {form}{read}", "dim")]
    if status.problem:
        page.append(line(status.problem, "yellow"))
    page.append(line(""))
    counts = (
        (status.total, "in the buffer"),
        (status.new, "new: not seen by the last cycle with a verdict"),
        (status.eligible, f"with salience of {detail.min_salience:g} or more"),
        (status.unlearned, "to learn: of these, not held out and not yet trained"),
        (status.held_out, "held out: never trained, to measure on"),
        (status.set_aside, "skipped: not usable as a record"),
        (status.quarantined, "in quarantine: excluded from training (sleepctl quarantine)"),
    )
    page += [line(f"{number:>7}  {meaning}") for number, meaning in counts]
    if status.unscreened:
        page.append(line(f"{status.unscreened:>7}  not screened yet: not trained before that"))
    if detail.rated_down:
        page.append(line(f"{detail.rated_down:>7}  rated down by a person: not trained"))
    if detail.left_out:
        page.append(line(f"{detail.left_out:>7}  left out: older than the {status.total} newest"))
    if detail.ratings_without_reply:
        page += _without_reply(detail)
    if status.personal:
        page.append(line(f"{status.personal:>7}  with personal data: {HANDLINGS[status.personal_data]}"))
    return page + _histogram(detail) + _skipped(detail)


def _without_reply(detail: BufferDetail) -> Page:
    places = [shorten(each, _REASON_COLUMNS) for each in detail.ratings_without_reply_at]
    more = ", the newest:" if detail.ratings_without_reply > len(places) else ":"
    names = "rating names" if detail.ratings_without_reply == 1 else "ratings name"
    text = (
        f"{detail.ratings_without_reply:>7}  {names} no reply read so far (it is yet to come, has left the buffer, or "
        f"has another name){more} {', '.join(places)}"
    )
    return [Row([Span(text, "yellow")], hang=9)]


def _histogram(detail: BufferDetail) -> Page:
    most = max(detail.histogram, default=0)
    if not most:
        return []
    page = [line(""), line("salience")]
    bins = len(detail.histogram)
    for number, count_in_bin in enumerate(detail.histogram):
        low, high = number / bins, (number + 1) / bins
        # Never an empty bar for what is there.
        bar = "█" * max(round(count_in_bin / most * _HISTOGRAM_COLUMNS), 1 if count_in_bin else 0)
        style = "green" if low >= detail.min_salience - 1e-9 else "dim"
        page.append(Row([Span(f"  {low:.1f}–{high:.1f} {count_in_bin:>7}  "), Span(bar, style)]))
    return page


def _skipped(detail: BufferDetail) -> Page:
    if not detail.set_aside:
        return []
    page = [line(""), line("skipped")]
    page += [
        Row([Span(f"  {record.position}: {shorten(record.reason, _REASON_COLUMNS)}")], hang=4)
        for record in detail.set_aside
    ]
    rest = detail.status.set_aside - len(detail.set_aside)
    return [*page, line(f"  and {rest} more")] if rest > 0 else page


def _ended(summary: CycleSummary) -> Row:
    strategy = f" ({summary.strategy})" if summary.rival is not None else ""
    reason = f": {summary.reason}" if summary.reason else ""
    return Row([Span(f"cycle {summary.cycle}{strategy} "), Span(summary.state, "bold"), Span(reason)])


def run_page(result: RunResult) -> Page:
    """What a run came to: started, or, waited for, its end."""
    if result.summary is None:
        return [line(f"cycle {result.cycle} started")]
    summary = result.summary
    page = [_ended(each) for each in (summary, result.rival) if each is not None]
    if summary.holdout_after is not None:
        page.append(line(holdout(summary.holdout_before, summary.holdout_after, summary.measured_on)))
    if summary.is_on_probation:
        page.append(line("on probation: later experiences decide whether it stays in use", "yellow"))
    if summary.trained:
        page.append(line(f"experiences: {used(summary)}"))
    return page
