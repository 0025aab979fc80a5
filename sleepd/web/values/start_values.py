"""The start page: state, what the next sleep waits for, progress, champion, warnings with the command that helps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sleepd.protocol.decision_view import ConditionView
from sleepd.protocol.job import Progress
from sleepd.protocol.status import Champion, CycleSummary, Status
from sleepd.sleepctl.pages.lines.origin_words import came_from, whence
from sleepd.sleepctl.pages.lines.serving_lines import serving_rows
from sleepd.sleepctl.pages.wording import count, duration, gain, losses, low_sample_mark
from sleepd.text.shell import command_line

from .charts import Bar, Chart, Point, bar, chart
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
    "min_hours_between_sleep": "Since the last sleep",
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


class ChampionFigure(NamedTuple):
    """What was measured on the adapter in use."""

    title: str
    figure: str
    text: str
    """What it is over; may be empty."""
    bar: Bar | None = None
    """Against its limit; None: it has none."""
    colour: str = "accent"


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
        "champion_figures": _champion_figures(status.champion, champion),
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
    drawn = chart(
        "Training loss, nats per token", points, (f"step {curve[0][0]}", f"step {curve[-1][0]}"), is_line=True
    )
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
    figures = "" if found is None else f"{found:.{int(is_hours)}f}{wanted}{' h' if is_hours else ''}"
    text = "met" if condition.is_met else _lacks(condition)
    return ConditionBar(_TITLES.get(condition.name, condition.name), condition.is_met, share, figures, text)


def _lacks(condition: ConditionView) -> str:
    """How much is missing, in as few words as can be: what it is of stands beside it."""
    if condition.found is None:
        return condition.text
    missing = condition.required - condition.found
    return f"{duration(missing * 3600) if condition.name == 'min_hours_between_sleep' else f'{missing:g}'} more"


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
    if champion.holdout_after is None:
        lines.append("Nothing was measured on held-out experiences.")
    if champion.comparison is not None:
        lines.append(f"On later experiences: {champion.comparison.reason}.")
    if champion.new_lineage:
        lines.append(f"The next cycle starts from the base: {champion.new_lineage}.")
    return lines


def _champion_figures(champion: Champion | None, summary: CycleSummary | None) -> list[ChampionFigure]:
    """Is it better, and is it harmless: what was measured, in this order."""
    if champion is None or (champion.is_adopted and champion.measured_by is None):
        return []
    return [*_gains(champion), *(_harms(summary) if summary else [])]


def _gains(champion: Champion) -> list[ChampionFigure]:
    base, before, after = champion.holdout_base, champion.holdout_before, champion.holdout_after
    if after is None:
        return []
    over = f"Reply loss {losses(before, after)} on {count(champion.held_out, 'experience')} that it never trained on"
    mark = low_sample_mark(champion.held_out)
    found = [ChampionFigure("Gain", f"{gain(before, after)} nats/token{mark}", over)]
    if base is not None and base != before:
        text = f"Reply loss {losses(base, after)} on the same"
        found.append(ChampionFigure("Gain over the base", f"{gain(base, after)} nats/token{mark}", text))
    return found


def _harms(summary: CycleSummary) -> list[ChampionFigure]:
    found = []
    if summary.drift is not None:
        limit = summary.drift_limit
        allowed = "" if limit is None else f" of at most {limit:g}"
        is_met = limit is None or summary.drift <= limit
        drawn = None if limit is None else bar(summary.drift, limit)
        text = "from the base model" if is_met else "from the base model: more than is allowed"
        figure = f"{summary.drift:.3g}{allowed} nats/token"
        found.append(ChampionFigure("Drift", figure, text, drawn, "good" if is_met else "bad"))
    if summary.loops is not None:
        text = "of its replies to the probe prompts"
        found.append(ChampionFigure("Replies in a loop", str(summary.loops or "none"), text))
    return found
