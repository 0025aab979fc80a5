"""Figures in words: durations, moments, losses, names of cycles. What was not measured is never shown as 0."""

from __future__ import annotations

from datetime import datetime

from sleepd.cycle import JUDGED_STATES
from sleepd.protocol.decision_view import ConditionView
from sleepd.protocol.status import CycleSummary
from sleepd.protocol.verdict import is_low_sample

HANDLINGS = {"keep": "trained as they are", "mask": "masked in training", "set_aside": "not trained"}
"""What becomes of experiences with personal data, by ``quarantine.personal_data``."""

MISSING = "–"


def duration(seconds: float) -> str:
    """``seconds`` in its two largest units, such as ``2 h 5 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"


def energy(joules: float) -> str:
    """As an electricity bill counts it: ``16.7 Wh``."""
    hours = joules / 3600
    return f"{hours:.3g} Wh" if hours < 1000 else f"{hours / 1000:.2f} kWh"


def ago(then: datetime, now: datetime) -> str:
    """How long ago; or in how long, for what is still to come."""
    seconds = (now - then).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def moment(then: datetime, now: datetime) -> str:
    """The day and the minute, in local time."""
    try:
        local = then.astimezone()
    except OverflowError:  # of the year 1 or 9999: no clock says so, but it is somebody's answer
        return f"{then:%Y-%m-%d %H:%M}"
    days = (now.astimezone().date() - local.date()).days
    day = {0: "today", 1: "yesterday"}.get(days, f"{local:%Y-%m-%d}")
    return f"{day} {local:%H:%M}"


def count(number: int, noun: str) -> str:
    """``3 experiences``, ``1 experience``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def losses(before: float | None, after: float | None) -> str:
    """``3.12 → 2.71``; a dash where one was not measured."""
    digits = _digits(before, after)
    return " → ".join(MISSING if loss is None else f"{loss:.{digits}f}" for loss in (before, after))


def change(before: float | None, after: float | None) -> str:
    """``−0.41``; a dash where there are no two figures to compare."""
    if before is None or after is None:
        return MISSING
    return f"{after - before:+.{_digits(before, after)}f}".replace("-", "−")


def holdout(before: float | None, after: float | None, held_out: int) -> str:
    """``holdout 3.12 → 2.71 (−0.41 nats/token, 23 experiences)``."""
    if after is None:
        return "holdout not measured"
    if before is None:
        figures = f"{after:.2f} nats/token ({count(held_out, 'experience')}; not measured before)"
    else:
        figures = f"{losses(before, after)} ({change(before, after)} nats/token, {count(held_out, 'experience')})"
    return f"holdout {figures}{low_sample_mark(held_out)}"


def size(number: int) -> str:
    """Bytes as people say them: ``18.5 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:g} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number = number / 1000  # type: ignore[assignment]
    return f"{number:.1f} GB"


def low_sample_mark(held_out: int) -> str:
    """The mark of a figure that rests on too few experiences."""
    return " (low sample)" if is_low_sample(held_out) else ""


def has_low_sample(cycle: CycleSummary) -> bool:
    """Whether what was measured rests on too few experiences; nothing measured is no low sample."""
    return cycle.holdout_after is not None and is_low_sample(cycle.measured_on)


def gain(before: float | None, after: float | None) -> str:
    """``+0.41``: by how much the loss fell, so that more is better; a dash where there are no two figures."""
    if before is None or after is None:
        return MISSING
    return f"{before - after:+.{_digits(before, after)}f}".replace("-", "−")


def older_loss(summary: CycleSummary) -> str:
    """The one figure that an older scheduler kept, marked as not comparable; empty for a cycle of ours."""
    if summary.imported_loss is None:
        return ""
    return f"loss {summary.imported_loss:.2f} over whole sequences, from an older scheduler; not comparable"


def lacking(condition: ConditionView) -> str:
    """What an unmet condition still waits for."""
    found, required = condition.found, condition.required
    match condition.name:
        case "min_experiences" | "min_new_experiences" if found is not None:
            kind = "experience" if condition.name == "min_experiences" else "new experience"
            return f"{count(int(required - found), f'more {kind}')} ({found:g} of {required:g})"
        case "min_hours_between_sleep" if found is not None:
            return f"{duration((required - found) * 3600)} more since the last sleep (of {duration(required * 3600)})"
    return condition.text


def model(cycle: int | None) -> str:
    """What is in use when ``cycle`` is the champion."""
    return "the base model" if cycle is None or cycle == 0 else f"cycle {cycle}"


def _digits(before: float | None, after: float | None) -> int:
    # 3.121 → 3.118 at two digits would read as no change at all.
    return 4 if before is not None and after is not None and 0 < abs(after - before) < 0.01 else 2


def used(cycle: CycleSummary) -> str:
    """How many experiences it trained; without a verdict, how many it was to train, for it may have ended before."""
    if cycle.state in JUDGED_STATES or cycle.state in ("imported", "adopted"):
        return f"{cycle.trained} trained, {cycle.replayed} replayed, {cycle.held_out} held out"
    return f"{cycle.trained} to train, {cycle.replayed} to replay, {cycle.held_out} held out"
