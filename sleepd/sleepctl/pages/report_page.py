"""The page of ``sleepctl report``: one cycle, explained in sentences."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import NamedTuple

from sleepd.cycle import JUDGED_STATES
from sleepd.protocol.answers import Learned, LearnedText
from sleepd.protocol.job import Report
from sleepd.protocol.status import BufferStatus, CycleDetail, CycleSummary, QuarantineEntry, SkippedRecordView
from sleepd.protocol.strategy import FOREIGN
from sleepd.text.shell import command_line

from .cycle_table import STATE_STYLES
from .lines.cycle_sentences import sentences
from .lines.evidence_lines import (
    advice_lines,
    chat_lines,
    check_lines,
    collapse_lines,
    cost_lines,
    drift_line,
    metric_lines,
    probe_lines,
    recall_lines,
    sentence_lines,
)
from .lines.pair_lines import pair_lines
from .terminal import Page, Row, Span, shorten
from .wording import HANDLINGS, MISSING, count, duration, has_low_sample, model, moment

_TEXT_COLUMNS = 240
_REASONS = 8
_IDS = 10


class KnownCycle(NamedTuple):
    """What is known of one cycle."""

    detail: CycleDetail
    learned: Learned | None
    """What it learned from; None: no experience is recorded for it."""
    buffer: BufferStatus
    """As it is now, or as it was last read."""
    set_aside: list[SkippedRecordView]
    """The first records that the buffer skipped; from disk none."""
    quarantine: list[QuarantineEntry]
    """The first experiences that the buffer counts as in quarantine; from disk none."""
    is_live: bool
    """False: read from disk, where nothing stands that came after the verdict."""


def report_page(known: KnownCycle, now: datetime) -> Page:
    """Everything that is known about one cycle; ``now`` is today."""
    detail, report, verdict = known.detail, known.detail.report, known.detail.verdict
    page = [*_headline(detail.summary, now), *_short(detail)]
    if not known.is_live:
        late = "Read from disk: only the daemon shows figures added by hand and later comparisons."
        page += [Row([]), _text(late, "dim")]
    if verdict is not None:
        page += _section("Each figure against its limit", sentence_lines(verdict.figures))
    if report is not None:
        page += _section("Proofs of effect", check_lines(report, verdict))
    page += _section("Two strategies on the same experiences", pair_lines(detail))
    page += _learned(detail, known.learned)
    if report is not None:
        page += _measured(detail, report)
        page += _section("What a prompt would serve better", advice_lines(report.evidence.remembered))
    page += _section("Not trained", _not_trained(report, known))
    page += _section("Personal data", _personal(known.buffer))
    if report is not None:
        page += _section("Chat template", chat_lines(report.chat) if report.chat else [])
        page += _section("What it cost", cost_lines(report))
        page += _section("Notices", [Row([Span(notice.text)], hang=2) for notice in report.notices])
    return page + _section("To undo it", _undo(detail)) + _section("Files", [Row([Span(detail.directory or "none")])])


def _section(title: str, rows: list[Row]) -> Page:
    """A heading and what stands below it; nothing where there is nothing."""
    if not rows:
        return []
    indented = [Row([Span("  "), *row.spans], hang=row.hang + 2) for row in rows]
    return [Row([]), Row([Span(title, "bold")]), *indented]


def _text(text: str, style: str = "") -> Row:
    return Row([Span(text, style)])


def _headline(summary: CycleSummary, now: datetime) -> Page:
    state = "rolled back" if summary.is_rolled_back else summary.state
    spans = [Span(f"Cycle {summary.cycle}: ", "bold"), Span(state, STATE_STYLES.get(state, "blue"))]
    spans += [Span(mark) for holds, mark in _marks(summary) if holds]
    when = f"Began {moment(summary.started_at, now)}"
    if summary.ended_at is not None and summary.ended_at != summary.started_at:
        when += f" and took {duration((summary.ended_at - summary.started_at).total_seconds())}"
    verb = "trained" if summary.state in JUDGED_STATES | {"imported", "adopted"} else "to be trained"
    origin = f"{verb} from {model(summary.parent)}" + (
        f" by the strategy {summary.strategy}" if summary.strategy else ""
    )
    if summary.strategy.startswith(FOREIGN):
        sender = summary.strategy.removeprefix(FOREIGN)
        origin = f"an adapter of {sender}, compared with {model(summary.parent)}; nothing was trained here"
    return [Row(spans), Row([]), _text(f"{when}; {origin}{', forced' if summary.is_forced else ''}.")]


def _marks(summary: CycleSummary) -> list[tuple[bool, str]]:
    return [
        (summary.is_champion, ", in use"),
        (summary.is_on_probation, ", on probation"),
        (has_low_sample(summary), ", low sample"),
        (bool(summary.tag), f", tagged {summary.tag}"),
    ]


def _short(detail: CycleDetail) -> Page:
    """The cycle in a few sentences, each of them measured."""
    summary = detail.summary
    page = [Row([]), _text(" ".join(sentences(detail))), Row([])]
    page.append(Row([Span("Why: ", "bold"), Span(summary.reason or MISSING)]))
    if detail.comparison is not None:
        by = f" (compared by cycle {detail.compared_by})" if detail.compared_by is not None else ""
        page.append(Row([Span("Later: ", "bold"), Span(f"{detail.comparison.reason}{by}")]))
    return [*page, Row([Span(f"→ {summary.hint}", "bold")], hang=2)] if summary.hint else page


def _learned(detail: CycleDetail, learned: Learned | None) -> Page:
    total = len(detail.trained_ids) + len(detail.replayed_ids)
    if learned is None or not total:
        return []
    rows = [Row([Span(f"{len(detail.trained_ids)} new, {len(detail.replayed_ids)} learned before and repeated.")])]
    if released := len(detail.released_ids):
        text = f"Of the new ones {released} had been held out. They have judged earlier adapters and are learned now."
        rows.append(Row([Span(text)]))
    if learned.problem:
        rows.append(Row([Span(f"The buffer cannot be read now: {learned.problem}", "yellow")]))
    if learned.present or learned.gone or learned.changed:
        still = f"{learned.present} of {total} are still in the buffer as they were trained"
        shown = len(learned.experiences)
        more = f"; the {shown} most salient:" if 0 < shown < learned.present else (":" if shown else "")
        rows.append(Row([Span(f"{still}{more}")]))
    for each in learned.experiences:
        rows += _experience(each)
    rows += _missing("no longer in the buffer", learned.gone)
    rows += _missing("changed since they were trained", learned.changed)
    rows += _missing("rated down since they were trained, and not repeated", learned.rejected)
    return _section("What it learned from", rows)


def _experience(each: LearnedText) -> Page:
    again = Span("  (repeated)" if each.role == "replay" else "", "dim")
    salience = Span(f"{each.salience:.2f}  ")
    if each.is_withheld:
        ask = command_line("sleepctl", "quarantine", "show", operands=(each.id,))
        secret = f"not shown (a secret, or not screened): {ask}"
        return [Row([salience, Span(secret, "yellow"), again], hang=6)]
    return [
        Row([salience, Span(shorten(each.prompt, _TEXT_COLUMNS), "bold"), again], hang=6),
        Row([Span(f"      {shorten(each.response, _TEXT_COLUMNS)}")], hang=6),
    ]


def _missing(what: str, ids: list[str]) -> Page:
    if not ids:
        return []
    listed = ", ".join(shorten(each, 24) for each in ids[:_IDS])
    rest = f" and {len(ids) - _IDS} more" if len(ids) > _IDS else ""
    return [Row([Span(f"{len(ids)} {what}: {listed}{rest}", "dim")], hang=2)]


def _measured(detail: CycleDetail, report: Report) -> Page:
    evidence, has_parent = report.evidence, detail.summary.parent is not None
    drift = drift_line(evidence)
    replies = probe_lines(evidence.probe_replies, has_parent=has_parent, width=_TEXT_COLUMNS)
    spoken = collapse_lines(evidence.collapse, has_parent=has_parent)
    return [
        *_section("Replies before and after, on the probes", replies),
        *_section("Your questions", recall_lines(evidence.recall, width=_TEXT_COLUMNS)),
        *_section("Style of the replies", spoken),
        *_section("Drift", [Row([Span(drift)])] if drift else []),
        *_section("Your own figures, before and after", metric_lines(evidence.metrics, detail.metrics)),
    ]


def _not_trained(report: Report | None, known: KnownCycle) -> list[Row]:
    buffer, rows = known.buffer, []
    if report is not None and report.truncated:
        rows.append(Row([Span(f"{count(report.truncated, 'experience')} too long: truncated")]))
    unused = [record.reason for record in known.set_aside]
    kept = [
        "dropped by the operator" if entry.state == "dropped" else entry.text
        for entry in known.quarantine
        if entry.state != "released"
    ]
    rows += _counted(buffer.set_aside, "record", "not usable", unused, "sleepctl buffer")
    rows += _counted(buffer.quarantined, "experience", "in quarantine", kept, "sleepctl quarantine")
    if buffer.unscreened:
        rows.append(Row([Span(f"{count(buffer.unscreened, 'experience')} not screened yet")]))
    return rows or [Row([Span("none in the buffer, as it was last read")])]


def _personal(buffer: BufferStatus) -> list[Row]:
    if not buffer.personal:
        return []
    text = f"in {count(buffer.personal, 'experience')} of the buffer, {HANDLINGS[buffer.personal_data]}"
    return [Row([Span(f"{text}, as it was last read: sleepctl quarantine")], hang=2)]


def _counted(total: int, noun: str, what: str, reasons: list[str], command: str) -> list[Row]:
    """How many, the most frequent reasons, and where all of them are."""
    if not total:
        return []
    rows = [Row([Span(f"{count(total, noun)} of the buffer {what}, as it was last read: {command}")], hang=2)]
    for reason, number in Counter(reasons).most_common(_REASONS):
        rows.append(Row([Span(f"{number:>5}  {shorten(reason, _TEXT_COLUMNS)}")], hang=7))
    return rows


def _undo(detail: CycleDetail) -> list[Row]:
    if detail.undo:
        return [Row([Span(detail.undo, "bold")])]
    return [Row([Span("nothing to undo: its adapter is not in use")])]
