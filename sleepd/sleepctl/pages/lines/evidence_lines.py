"""What was measured, as lines for the screens of ``show`` and ``report``. What was not measured is a dash, never 0."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sleepd.protocol.evidence import (
    RECALLED,
    ChatContract,
    Collapse,
    Evidence,
    Metric,
    ProbeReply,
    RecallAnswer,
    RememberedLoss,
    Speech,
)
from sleepd.protocol.job import Report
from sleepd.protocol.verdict import AddedMetric, Figure, Verdict
from sleepd.sleepctl.pages.terminal import Row, Span, pad, shorten
from sleepd.sleepctl.pages.wording import MISSING, count, duration, energy

_NAME_COLUMNS = 22


def figure_lines(figures: Iterable[Figure]) -> list[Row]:
    """Each figure and its limit, in columns."""
    rows = []
    for figure in figures:
        against = f"{figure.relation} {_number(figure.limit)}"
        if figure.relation == "within":
            against = f"within {_number(figure.limit)} to {_number(figure.upper_limit)}"
        text = f"{pad(figure.name, _NAME_COLUMNS)} {_number(figure.value):>9}  {against}"
        rows.append(Row([_mark(figure), Span(text)], hang=2))
    return rows


def sentence_lines(figures: Iterable[Figure]) -> list[Row]:
    """Each figure in the words of the judgement."""
    return [Row([_mark(figure), Span(figure.text)], hang=2) for figure in figures]


def _mark(figure: Figure) -> Span:
    if figure.is_open:
        return Span("? ", "yellow")
    if figure.value is None and not figure.is_binding:
        return Span("- ", "dim")  # not measured, and nothing is to rest on it
    return Span("✓ ", "green") if figure.is_met else Span("✗ ", "red")


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}".replace("-", "−")


def check_lines(report: Report, verdict: Verdict | None) -> list[Row]:
    """The proofs of effect that the verdict's figures do not have already."""
    shown = {figure.name for figure in verdict.figures} if verdict else set()
    rows = []
    for check in report.checks:
        if check.name not in shown:
            mark = Span("✓ ", "green") if check.passed else Span("✗ ", "red")
            proof = f"{check.name} {check.figure:.3g} (limit {check.limit:.3g}): {check.detail}"
            rows.append(Row([mark, Span(proof)], hang=2))
    return rows


def advice_lines(measured: Sequence[RememberedLoss]) -> list[Row]:
    """What the base recalls from its prompt and the adapter does not; nothing where no experience was tried."""
    if not measured:
        return []
    better = [each for each in measured if each.is_better_in_prompt]
    tried = f"of {count(len(measured), 'trained experience')} that were tried"
    if not better:
        return [Row([Span(f"None {tried}: each that the base recalls from its prompt, the adapter recalls, too.")])]
    tokens = sum(each.prompt_tokens for each in better)
    verb = "is" if len(better) == 1 else "are"
    text = (
        f"{len(better)} {tried} {verb} not recalled by the adapter (reply loss {RECALLED:.2f} nats/token or more) and "
        f"recalled by the base with the experience in its prompt, which takes {count(tokens, 'token')} together."
    )
    return [Row([Span(text)])] + [
        Row([Span(f"{shorten(each.id, 24)}: {each.candidate:.2f}, in the prompt {each.in_prompt:.2f}")], hang=2)
        for each in better
    ]


def probe_lines(replies: Sequence[ProbeReply], *, has_parent: bool, width: int) -> list[Row]:
    """Each probe prompt with the replies before and after; the base's own where it is not the one before."""
    rows = []
    for reply in replies:
        rows.append(Row([Span(f"> {shorten(reply.prompt, width)}", "bold")], hang=2))
        texts = [("base", reply.base), ("before", reply.parent)] if has_parent else [("before", reply.base)]
        rows += [_reply_row(who, text, width) for who, text in texts]
        rows.append(_reply_row("after", reply.candidate, width))
    return rows


def _reply_row(who: str, text: str, width: int) -> Row:
    return Row([Span(f"  {who:<8}", "dim"), Span(shorten(text, width) or "(nothing)")], hang=10)


def recall_lines(answers: Sequence[RecallAnswer], *, width: int) -> list[Row]:
    """How many of the operator's questions are answered rightly, then those that are not."""
    if not answers:
        return []
    total = len(answers)
    base, before, after = (
        sum(getattr(answer, f"{who}_is_right") for answer in answers) for who in ("base", "parent", "candidate")
    )
    rows = [Row([Span(f"{after} of {total} right; before: {before}; base: {base}")])]
    for answer in answers:
        if not answer.candidate_is_right:
            lost = " (right before, now forgotten)" if answer.parent_is_right else ""
            expected = " or ".join(answer.expected)
            rows.append(Row([Span("✗ ", "red"), Span(shorten(answer.question, width)), Span(lost, "red")], hang=2))
            text = f"  expected {shorten(expected, width)}; it says {shorten(answer.candidate, width) or '(nothing)'}"
            rows.append(Row([Span(text, "dim")], hang=2))
    return rows


def collapse_lines(collapse: Sequence[Collapse], *, has_parent: bool) -> list[Row]:
    """How each model speaks when it is asked the same in the same way, in figures."""
    if not collapse:
        return []
    head = f"{'':<8} {'':<7} {'words':>6} {'distinct-2':>10} {'repeat':>6} {'similar':>7} {'loops':>6} {'floods':>6}"
    rows = [Row([Span(head, "dim")])]
    for each in collapse:
        models = [("base", each.base), ("before", each.parent), ("after", each.candidate)]
        if not has_parent:
            models = [("before", each.base), ("after", each.candidate)]
        rows += [
            Row([Span(f"{each.mode if number == 0 else '':<8} {who:<7} {_speech(speech)}")])
            for number, (who, speech) in enumerate(models)
        ]
    return rows


def _speech(speech: Speech) -> str:
    distinct = MISSING if speech.distinct_2 is None else f"{speech.distinct_2:.2f}"
    similar = MISSING if speech.similar_pairs_share is None else f"{speech.similar_pairs_share:.0%}"
    figures = f"{speech.mean_words:>6.1f} {distinct:>10} {speech.longest_repeat_words:>6} {similar:>7}"
    return f"{figures} {speech.loops:>6} {speech.question_floods:>6}"


def metric_lines(metrics: Sequence[Metric], added: Sequence[AddedMetric]) -> list[Row]:
    """The operator's own figures: of the command before and after, and those that were added by hand."""
    rows = [
        Row([Span(f"{pad(each.name, _NAME_COLUMNS)} {_number(each.parent):>9} → {_number(each.candidate)}")])
        for each in metrics
    ]
    return rows + [
        Row([Span(f"{pad(each.name, _NAME_COLUMNS)} {_number(each.value):>9}   added {each.added_at:%Y-%m-%d}")])
        for each in added
    ]


def drift_line(evidence: Evidence) -> str:
    """How far it moved from the base where it was taught nothing; empty: not measured."""
    drift = evidence.drift
    if drift is None:
        return ""
    over = f"{drift.tokens} tokens of {drift.prompts} reference prompts"
    return f"{drift.candidate:.4f} nats/token from the base; before: {drift.parent:.4f} ({over})"


def chat_lines(chat: ChatContract) -> list[Row]:
    """What the base's chat template does, as it was checked on a sample before the training."""
    warned = [Row([Span("! ", "yellow"), Span(warning)], hang=2) for warning in chat.warnings]
    sample = f"in a sample reply, {chat.supervised!r} is supervised (sleepctl tokens ID shows one experience)"
    return [*warned, *(Row([Span(text)], hang=2) for text in (sample, *chat.notes))]


def cost_lines(report: Report) -> list[Row]:
    """Wall time by phase, how much of it was measuring, tokens, memory, device."""
    spent = sum(report.seconds.values())
    rows = []
    if spent > 0:
        phases = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in report.seconds.items())
        rows.append(Row([Span(f"{duration(spent)} in all: {phases}")]))
        if report.evaluation_share is not None:
            rows.append(
                Row([Span(f"{report.evaluation_share:.0%} of the time for measuring, before and after training")])
            )
    tokens = f"{report.tokens} tokens in training, {report.supervised_tokens} of them supervised"
    rows.append(Row([Span(f"{tokens}, {report.tokens_per_second:.0f} tokens/s")]))
    memory = f"{report.peak_memory_bytes / 2**20:.0f} MiB peak memory"
    if report.host_memory_bytes not in (None, report.peak_memory_bytes):
        memory += f" and {report.host_memory_bytes / 2**20:.0f} MiB of the host"
    rows.append(Row([Span(f"{memory}, on {report.measured_where}, {report.dtype}")]))
    if report.energy_joules is not None:
        rows.append(Row([Span(f"{energy(report.energy_joules)} drawn by the GPU, by its own count")]))
    return rows
