"""The screen of ``sleepctl status``."""

from __future__ import annotations

from datetime import datetime

from sleepd.protocol.job import Progress
from sleepd.protocol.status import BufferStatus, Champion, LastError, Status

from .cycle_table import recent_rows
from .lines.origin_words import came_from
from .lines.serving_lines import serving_rows
from .terminal import Page, Row, Span
from .wording import ago, count, duration, holdout, lacking, moment

_BAR_COLUMNS = 32
_STATE_STYLES = {"idle": "green", "paused": "yellow", "starting": "yellow", "stopping": "yellow", "suspended": "yellow"}


def status_page(status: Status, *, now: datetime, is_live: bool) -> Page:
    """The whole screen.

    Args:
        status: the daemon's answer, or what it last wrote.
        now: for "ago" and "in".
        is_live: False: the daemon is down, so nothing is shown in the present tense.
    """
    page = [_headline(status, now, is_live)]
    if is_live and status.progress is not None:
        page += [Row(line, hang=2) for line in progress_lines(status.progress)]
    page.append(Row([]))
    if is_live:
        page += _next_sleep(status, now)
    page += _buffer(status.buffer, now)
    page += _champion(status.champion, now, is_served=status.serving is not None)
    page += _labelled("Strategy", [status.adopted_strategy] if status.adopted_strategy else [])
    page += serving_rows(status.serving, now)
    page += _cycles(status, now, is_live)
    page += [Row([Span(alarm.text, "yellow")], "Warning") for alarm in status.alarms]
    page += _last_error(status.last_error, now)
    page += _labelled(
        "Daemon", [f"{status.version}, pid {status.pid}" if is_live else f"not running; it was {status.version}"]
    )
    page += _labelled("", [status.config_path or "no configuration file: built-in defaults"], "dim")
    page += _labelled("", [status.state_directory], "dim")
    return page


def progress_lines(progress: Progress) -> list[list[Span]]:
    """The bar, and below it the figures that are known."""
    bar = [Span("  ")]
    if progress.steps > 0:
        share = min(max(progress.step / progress.steps, 0.0), 1.0)
        filled = int(share * _BAR_COLUMNS)
        bar += [Span("█" * filled, "blue"), Span("░" * (_BAR_COLUMNS - filled), "dim"), Span(f" {share:4.0%}  ")]
    bar.append(Span(progress.phase, "bold"))
    bar.append(Span(progress.step_text))
    if progress.epochs > 0:
        bar.append(Span(f", epoch {progress.epoch} of {progress.epochs}"))
    loss, speed, rest = progress.loss, progress.tokens_per_second, progress.eta_seconds
    figures = [
        "" if rest is None else f"about {duration(rest)} left",
        "" if loss is None else f"loss {loss:.2f}",
        "" if speed is None else f"{speed:.0f} tokens/s",
        progress.device,
    ]
    below = " · ".join(figure for figure in figures if figure)
    return [bar, [Span(f"  {below}")]] if below else [bar]


def _headline(status: Status, now: datetime, is_live: bool) -> Row:
    if not is_live:
        return Row(
            [
                Span("○ sage-sleepd is "),
                Span("not running", "red"),
                Span(f"; {ago(status.written_at, now)} it {_was(status.state)}"),
            ]
        )
    style = _STATE_STYLES.get(status.state, "blue")
    dot = "red" if status.last_error else style
    state = status.state if status.running_cycle is None else f"{status.state} (cycle {status.running_cycle})"
    since = f"since {moment(status.since, now)} ({ago(status.since, now)})"
    return Row([Span("● ", dot), Span("sage-sleepd is "), Span(state, style), Span(f", {since}")])


def _labelled(label: str, lines: list[str], style: str = "") -> Page:
    """Lines below each other, the label beside the first."""
    return [Row([Span(line, style)], label if number == 0 else "") for number, line in enumerate(lines)]


def _next_sleep(status: Status, now: datetime) -> Page:
    decision = status.decision
    never = [veto.text for veto in decision.vetoes if veto.name == "trains_nothing"]
    lines = never or [lacking(condition) for condition in decision.conditions if not condition.is_met]
    lines += [] if never else [veto.text for veto in decision.vetoes]
    page = _labelled("Next sleep", lines or ["a cycle is due"])
    if status.next_check_at is not None:
        page += _labelled("", [f"next check {ago(status.next_check_at, now)}"], "dim")
    return page


def _buffer(buffer: BufferStatus, now: datetime) -> Page:
    if buffer.form == "absent":
        unread = "does not exist yet" if buffer.read_at else "not read yet"
        page = _labelled("Buffer", [unread if buffer.path else "none: buffer.path is not set"])
    else:
        parts = [f"{buffer.new} new", f"{buffer.unlearned} to learn", f"{buffer.held_out} held out"]
        if buffer.set_aside:
            parts.append(f"{buffer.set_aside} skipped")
        if buffer.quarantined:
            parts.append(f"{buffer.quarantined} in quarantine")
        if buffer.unscreened:
            parts.append(f"{buffer.unscreened} not screened yet")
        if buffer.personal:
            parts.append(f"{buffer.personal} with personal data")
        page = _labelled("Buffer", [f"{count(buffer.total, 'experience')}: {', '.join(parts)}"])
    if buffer.problem:
        page.append(Row([Span(buffer.problem, "yellow")], ""))
    if buffer.path:
        read = f" · read {ago(buffer.read_at, now)}" if buffer.read_at else ""
        page += _labelled("", [f"{buffer.path}{read}"], "dim")
    return page


def _champion(champion: Champion | None, now: datetime, *, is_served: bool) -> Page:
    if champion is None:
        # Where an engine is configured, the next line says what answers.
        return _labelled("Champion", ["none" if is_served else "none: the base model is in use"])
    verb = "adopted" if champion.is_adopted else "promoted"
    age = f"{verb} {moment(champion.promoted_at, now)} ({ago(champion.promoted_at, now)})"
    page = [Row([Span(f"cycle {champion.cycle}", "green"), Span(f", {age}")], "Champion")]
    if champion.is_adopted and champion.measured_by is None:
        page += _labelled("", ["adopted, not measured: the first cycle trained from it also compares it with the base"])
    else:
        by = "" if champion.measured_by is None else f", by cycle {champion.measured_by}"
        page += _labelled("", [holdout(champion.holdout_before, champion.holdout_after, champion.held_out) + by])
    if champion.quantization not in ("", "none"):
        page += _labelled("", [f"measured on the base in {champion.quantization}"])
    if champion.origin is not None:
        before, after, held_out = champion.holdout_before, champion.holdout_after, champion.held_out
        page += _labelled("", [came_from(champion.origin, before, after, held_out)])
    if champion.is_on_probation:
        open_ = "on probation: its evidence was inconclusive; later experiences decide whether it stays"
        page.append(Row([Span(open_, "yellow")], ""))
    if champion.comparison is not None:
        page += _labelled("", [f"on later experiences: {champion.comparison.reason}"])
    if champion.new_lineage:
        page.append(Row([Span(f"the next cycle starts from the base: {champion.new_lineage}", "yellow")], ""))
    if champion.holdout_base is not None and champion.holdout_base != champion.holdout_before:
        page += _labelled("", [f"the base model has {champion.holdout_base:.2f}"])
    return page


def _cycles(status: Status, now: datetime, is_live: bool) -> Page:
    completed = f"{status.total_cycles} completed" if status.recent_cycles or status.total_cycles else "none yet"
    if status.last_sleep_at is not None:
        completed += f", the last {moment(status.last_sleep_at, now)} ({ago(status.last_sleep_at, now)})"
    return _labelled("Cycles", [completed]) + recent_rows(status.recent_cycles, now, is_live=is_live)


def _last_error(error: LastError | None, now: datetime) -> Page:
    if error is None:
        return _labelled("Last error", ["none"])
    page = [Row([Span(error.message, "red"), Span(f" ({ago(error.at, now)})", "dim")], "Last error")]
    return page + ([Row([Span(f"→ {error.hint}", "bold")], "", hang=2)] if error.hint else [])


def _was(state: str) -> str:
    """What the daemon did when it last wrote: it stopped in order, or was in the middle of something."""
    return state if state == "stopped" else f"was {state}"
