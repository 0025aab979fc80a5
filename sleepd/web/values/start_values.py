"""The start page: state, what the next sleep waits for, progress, champion, warnings with the command that helps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sleepd.protocol.job import Progress
from sleepd.protocol.status import Champion, ConditionView, CycleSummary, Status
from sleepd.sleepctl.pages.origin_words import came_from, whence
from sleepd.sleepctl.pages.serving_lines import serving_rows
from sleepd.sleepctl.pages.wording import count, duration, gain, lacking, losses, low_sample_mark
from sleepd.text.shell import command_line

from .charts import Chart, Point, chart
from .state_marks import mark_of

_HELP = {
    "overdue": "sleepctl why",
    "too_many_cycles": "sleepctl history",
    "clock_set_back": "timedatectl",
    "champion_rolled_back": "sleepctl report",
    "screening_failed": "sleepctl logs",
    "not_served": "sleepctl status",
}
"""By the name of an alarm: the command that says more. For every other one: ``sleepctl doctor``."""
_CLASSES = {"green": "good", "yellow": "warn", "blue": "accent", "dim": "quiet", "bold": "command"}
"""The classes of the style sheet for the styles of a terminal."""
_TITLES = {
    "min_experiences": "Experiences",
    "min_new_experiences": "New experiences",
    "min_hours_between_sleep": "Hours since the last sleep",
}
LOSSES = 400
"""Most points of the loss curve."""
ROWS = 20
"""Most rows of its table."""


class ConditionBar(NamedTuple):
    """One condition of the next sleep."""

    title: str
    is_met: bool
    share: float
    """Of what is required, from 0 to 100."""
    figures: str
    text: str


class Warning(NamedTuple):  # noqa: A001 - it is what the page calls it
    """Something to look at, and the command that says more or fixes it."""

    text: str
    command: str
    is_error: bool = False


def head(status: Status, curve: Sequence[tuple[int, float]], now: datetime) -> dict[str, Any]:
    """What changes every moment: the state and the cycle under way."""
    return {
        "status": status,
        "now": now,
        "progress": status.progress,
        "share": _share(status.progress),
        "figures": _figures(status.progress),
        "loss": loss_chart(curve),
        "tone": _tone(status),
        "headline": _headline(status),
    }


def facts(status: Status, champion: CycleSummary | None, now: datetime) -> dict[str, Any]:
    """What changes with a decision or a cycle. ``champion``: the cycle in use; None: it is not known."""
    return {
        "status": status,
        "now": now,
        "conditions": [_condition(each) for each in status.decision.conditions],
        "vetoes": [each.text for each in status.decision.vetoes if each.text != status.decision.reason],
        "serving_lines": _serving_lines(status, now),
        "champion_lines": _champion_lines(status.champion, champion),
        "cycles": [(each, mark_of(each), whence(each)) for each in status.recent_cycles],
        "warnings": warnings(status),
    }


def warnings(status: Status) -> list[Warning]:
    """The last error first, then the alarms, then what is wrong with the buffer."""
    found = []
    if status.last_error is not None:
        found.append(Warning(status.last_error.message, status.last_error.hint, is_error=True))
    found += [Warning(alarm.text, _HELP.get(alarm.name, "sleepctl doctor")) for alarm in status.alarms]
    if status.buffer.problem:
        found.append(Warning(status.buffer.problem, "sleepctl buffer"))
    if status.champion is not None and status.champion.is_on_probation:
        text = "The champion is on probation: its evidence was inconclusive; later experiences decide whether it stays."
        found.append(Warning(text, command_line("sleepctl", "report", status.champion.cycle)))
    return found


def loss_chart(curve: Sequence[tuple[int, float]]) -> Chart | None:
    """The training loss as it came in; a curve needs two figures."""
    if len(curve) < 2:
        return None
    step = -(-len(curve) // LOSSES)
    points = [Point(loss, f"step {number}: {loss:.3f}") for number, loss in curve[::step]]
    drawn = chart("Training loss, nats per token", points, is_line=True)
    rows = [(f"step {number}", f"{loss:.3f}") for number, loss in curve[:: -(-len(curve) // ROWS)]]
    return drawn and drawn._replace(dots=drawn.dots[-1:], rows=rows)


def _headline(status: Status) -> str:
    if status.running_cycle is None:
        return status.state.capitalize()
    return f"{status.state.capitalize()}: cycle {status.running_cycle}"


def _tone(status: Status) -> str:
    if status.last_error is not None:
        return "bad"
    return {"idle": "good", "paused": "warn", "suspended": "warn", "stopping": "warn"}.get(status.state, "accent")


def _share(progress: Progress | None) -> float | None:
    if progress is None or progress.steps <= 0:
        return None
    return round(min(max(progress.step / progress.steps, 0.0), 1.0) * 100, 1)


def _figures(progress: Progress | None) -> list[str]:
    if progress is None:
        return []
    epochs = f"epoch {progress.epoch} of {progress.epochs}" if progress.epochs > 0 else ""
    steps = f"step {progress.step} of {progress.steps}" if progress.steps > 0 else ""
    rest = "" if progress.eta_seconds is None else f"about {duration(progress.eta_seconds)} left"
    loss = "" if progress.loss is None else f"loss {progress.loss:.2f}"
    speed = "" if progress.tokens_per_second is None else f"{progress.tokens_per_second:.0f} tokens/s"
    return [each for each in (steps, epochs, rest, loss, speed, progress.device, progress.doing) if each]


def _condition(condition: ConditionView) -> ConditionBar:
    found, required = condition.found, condition.required
    share = 100.0 if condition.is_met or required <= 0 else round(min(max((found or 0) / required, 0), 1) * 100, 1)
    is_hours = condition.name == "min_hours_between_sleep"
    wanted = f" of {required:g}" if required > 0 else ""
    figures = "" if found is None else f"{found:.{int(is_hours)}f}{wanted}"
    text = "met" if condition.is_met else lacking(condition)
    return ConditionBar(_TITLES.get(condition.name, condition.name), condition.is_met, share, figures, text)


def _serving_lines(status: Status, now: datetime) -> list[tuple[str, str]]:
    """Class and text of what the engine was proved to run, in the words of ``sleepctl status``."""
    return [
        (_CLASSES.get(span.style, ""), span.text.removeprefix("→ "))
        for row in serving_rows(status.serving, now)
        for span in row.spans
    ]


def _champion_lines(champion: Champion | None, summary: CycleSummary | None) -> list[str]:
    if champion is None:
        return ["No adapter is in use."]
    if champion.is_adopted and champion.measured_by is None:
        return ["Adopted from an older trainer, not measured. The next cycle compares it with the base."]
    lines = [f"It learned from {count(summary.trained, 'experience')}."] if summary and summary.trained else []
    if champion.origin is not None:
        came = came_from(champion.origin, champion.holdout_before, champion.holdout_after, champion.held_out)
        lines.append(f"It came {came}.")
    lines += [_holdout(champion), *(_harms(summary) if summary else [])]
    base, after = champion.holdout_base, champion.holdout_after
    if base is not None and base != champion.holdout_before:
        lines.append(f"Against the base model: {losses(base, after)}, a gain of {gain(base, after)}.")
    if champion.comparison is not None:
        lines.append(f"On later experiences: {champion.comparison.reason}.")
    if champion.new_lineage:
        lines.append(f"The next cycle starts from the base: {champion.new_lineage}.")
    return lines


def _holdout(champion: Champion) -> str:
    before, after = champion.holdout_before, champion.holdout_after
    if after is None:
        return "Nothing was measured on held-out experiences."
    over = f"{count(champion.held_out, 'experience')} that it never trained on"
    mark = low_sample_mark(champion.held_out)
    return f"Reply loss on {over}: {losses(before, after)} nats/token, a gain of {gain(before, after)}{mark}."


def _harms(summary: CycleSummary) -> list[str]:
    lines = []
    if summary.drift is not None:
        allowed = "" if summary.drift_limit is None else f", at most {summary.drift_limit:g} is allowed"
        lines.append(f"Drift from the base: {summary.drift:.3g} nats/token{allowed}.")
    if summary.loops is not None:
        lines.append(f"Of its replies to the probe prompts, {summary.loops or 'none'} run in a loop.")
    return lines
