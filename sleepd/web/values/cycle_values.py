"""One cycle: verdict, gates against their limits, replies before and after, held out, learned, cost, lineage, undo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sleepd.protocol.evidence import Collapse, ProbeReply, Speech
from sleepd.protocol.job import Report
from sleepd.protocol.status import CycleSummary
from sleepd.protocol.verdict import Figure, Verdict
from sleepd.sleepctl.pages.lines.cycle_sentences import sentences
from sleepd.sleepctl.pages.lines.origin_words import whence
from sleepd.sleepctl.pages.report_page import KnownCycle

from .charts import Bar, Chart, Point, bar, chart
from .lineage import lineage
from .state_marks import mark_of
from .word_changes import TextPiece, changes

HELD_OUT = 60
"""Held-out experiences shown: half of them those that gained most, half those that lost most."""
_REASONS = 8
MAIN_GATES = frozenset({"holdout", "drift", "recall", "relevance", "rival"})
"""Figures that are shown first, whatever became of them."""


class Gate(NamedTuple):
    """One figure and its limit."""

    name: str
    state: str
    """``met``, ``missed``, ``open`` or ``not measured``."""
    colour: str
    text: str
    bar: Bar
    is_binding: bool


class ComparedReply(NamedTuple):
    """One probe prompt and the replies before and after, with the words that differ."""

    prompt: str
    before: list[TextPiece]
    after: list[TextPiece]
    base: str
    """The base's own reply, where it is not the one before; else empty."""


class HeldOutGain(NamedTuple):
    """One held-out experience and what it gained."""

    id: str
    prompt: str
    """Known of some only; else empty."""
    tokens: int
    before: float
    after: float
    gain: float
    bar: Bar


def values(known: KnownCycle, cycles: Iterable[CycleSummary], now: datetime) -> dict[str, Any]:
    """Everything that the template shows."""
    detail, report, verdict = known.detail, known.detail.report, known.detail.verdict
    has_parent = detail.summary.parent is not None
    return {
        "now": now,
        "known": known,
        "detail": detail,
        "summary": detail.summary,
        "whence": whence(detail.summary),
        "mark": mark_of(detail.summary),
        "lead": " ".join(sentences(detail)),
        **_gates(verdict),
        "proofs": _proofs(report, verdict),
        "replies": _replies(report, has_parent=has_parent),
        "held_out": _held_out(report),
        "speech": _speech(report.evidence.collapse, has_parent=has_parent) if report else [],
        "loss": _loss(report),
        "phases": _phases(report),
        "skipped": Counter(each.reason for each in known.set_aside).most_common(_REASONS),
        "tree": lineage(detail.summary.cycle, cycles),
    }


def _gates(verdict: Verdict | None) -> dict[str, list[Gate]]:
    """Those to look at first: the main ones, and every one that is not met although it binds."""
    gates = [_gate(each) for each in (verdict.figures if verdict else [])]
    is_first = [each.name in MAIN_GATES or (each.is_binding and each.state != "met") for each in gates]
    return {
        "gates": [each for each, first in zip(gates, is_first, strict=True) if first],
        "more_gates": [each for each, first in zip(gates, is_first, strict=True) if not first],
    }


def _gate(figure: Figure) -> Gate:
    state, colour = "missed", "bad"
    if figure.value is None:
        state, colour = "not measured", "warn" if figure.is_binding else "quiet"
    elif figure.is_open:
        state, colour = "open", "warn"
    elif figure.is_met:
        state, colour = "met", "good"
    return Gate(
        figure.name,
        state,
        colour,
        figure.text,
        bar(figure.value, figure.limit, figure.upper_limit),
        figure.is_binding,
    )


def _proofs(report: Report | None, verdict: Verdict | None) -> list[tuple[str, bool]]:
    """The proofs of effect that the verdict's figures do not have already."""
    shown = {figure.name for figure in verdict.figures} if verdict else set()
    return [
        (f"{each.name}: {each.detail} (figure {each.figure:.3g}, limit {each.limit:.3g})", each.passed)
        for each in (report.checks if report else [])
        if each.name not in shown
    ]


def _replies(report: Report | None, *, has_parent: bool) -> list[ComparedReply]:
    replies = report.evidence.probe_replies if report else []
    return [_compared(reply, has_parent=has_parent) for reply in replies]


def _compared(reply: ProbeReply, *, has_parent: bool) -> ComparedReply:
    before, after = changes(reply.parent if has_parent else reply.base, reply.candidate)
    return ComparedReply(reply.prompt, before, after, reply.base if has_parent else "")


def _held_out(report: Report | None) -> list[HeldOutGain]:
    """Sorted from what gained most to what lost most."""
    if report is None:
        return []
    prompts = {reply.id: reply.prompt for reply in report.replies}
    pairs = sorted(report.holdout, key=lambda each: each.candidate - each.parent)
    if len(pairs) > HELD_OUT:
        pairs = pairs[: HELD_OUT // 2] + pairs[-HELD_OUT // 2 :]
    most = max((abs(each.parent - each.candidate) for each in pairs), default=0.0)
    found = []
    for each in pairs:
        gain = each.parent - each.candidate
        # The same scale for every row: both ends of the largest change.
        drawn, prompt = _diverging(gain, most), prompts.get(each.id, "")
        found.append(HeldOutGain(each.id, prompt, each.tokens, each.parent, each.candidate, gain, drawn))
    return found


def _diverging(gain: float, most: float) -> Bar:
    """A bar from the middle: to the right for a gain."""
    length = round(abs(gain) / (most or 1.0) * 50, 2)
    return Bar(50.0 if gain >= 0 else round(50.0 - length, 2), length, limit=50.0, upper_limit=None)


def _speech(collapse: list[Collapse], *, has_parent: bool) -> list[tuple[str, str, Speech]]:
    """Way of asking, model, figures."""
    found: list[tuple[str, str, Speech]] = []
    for each in collapse:
        found.append((each.mode, "base" if has_parent else "before", each.base))
        if has_parent:
            found.append((each.mode, "before", each.parent))
        found.append((each.mode, "after", each.candidate))
    return found


def _loss(report: Report | None) -> Chart | None:
    losses = report.epoch_losses if report else []
    if len(losses) < 2:
        return None
    points = [Point(loss, f"epoch {number}: {loss:.3f}") for number, loss in enumerate(losses, 1)]
    drawn = chart("Training loss by epoch, nats per token", points, ("epoch 1", f"epoch {len(losses)}"), is_line=True)
    rows = [(f"epoch {number}", f"{loss:.3f}") for number, loss in enumerate(losses, 1)]
    return drawn and drawn._replace(rows=rows)


def _phases(report: Report | None) -> list[tuple[str, float, float]]:
    """Phase, seconds, and its share of the longest, from 0 to 100."""
    seconds = report.seconds if report else {}
    longest = max(seconds.values(), default=0.0) or 1.0
    return [(phase, spent, round(spent / longest * 100, 1)) for phase, spent in seconds.items()]
