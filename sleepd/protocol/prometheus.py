"""The figures of a status in the text format of Prometheus. What was not measured is left out, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sleepd.cycle import State
from sleepd.text.display import clean

from .job import Report
from .status import Status

PREFIX: Final = "sage_sleepd"
STATES: Final = ("idle", "paused", "starting", "stopping", "stopped", *(str(state) for state in State))


def metrics_text(status: Status, report: Report | None = None) -> str:
    """All figures. ``report``: of the newest cycle that has one."""
    parts = [
        _each("info", "The daemon's version.", "version", {status.version: 1}),
        _each("state", "1 for the state that it is in.", "state", {name: name == status.state for name in STATES}),
        _one("state_timestamp_seconds", "Since when.", status.since.timestamp()),
        _one("status_timestamp_seconds", "When these figures were taken.", status.written_at.timestamp()),
        _each("alarm", "1 for each active alarm.", "name", {each.name: 1 for each in status.alarms}),
        _one("error", "1 while the last error lasts.", status.last_error is not None),
        _one("disk_free_bytes", "Free on the disk of the state directory.", status.free_bytes),
        *_buffer(status),
        *_decision(status),
        *_cycles(status),
        *_progress(status),
        *_serving(status),
        *(_of_report(report) if report else []),
    ]
    return "".join(parts)


def _buffer(status: Status) -> list[str]:
    buffer = status.buffer
    kinds = {
        "total": buffer.total,
        "new": buffer.new,
        "eligible": buffer.eligible,
        "to_learn": buffer.unlearned,
        "held_out": buffer.held_out,
        "skipped": buffer.set_aside,
        "quarantined": buffer.quarantined,
        "unscreened": buffer.unscreened,
        "personal": buffer.personal,
    }
    read, unread, waiting = (
        None if moment is None else moment.timestamp()
        for moment in (buffer.read_at, buffer.unread_since, buffer.to_learn_since)
    )
    return [
        _each("experiences", "Experiences of the buffer by kind.", "kind", kinds),
        _one("buffer_read_timestamp_seconds", "When the buffer was last read.", read),
        _one("buffer_unread_since_timestamp_seconds", "Since when the buffer cannot be read.", unread),
        _one("buffer_to_learn_since_timestamp_seconds", "Since when the oldest experience to learn waits.", waiting),
        _one("buffer_problem", "1 while the buffer cannot be read.", bool(buffer.problem)),
    ]


def _decision(status: Status) -> list[str]:
    decision = status.decision
    found = {each.name: each.found for each in decision.conditions}
    required = {each.name: each.required for each in decision.conditions}
    return [
        _one("cycle_due", "1 when every condition of a cycle holds.", decision.due),
        _each("veto", "1 for each veto.", "name", {each.name: 1 for each in decision.vetoes}),
        _each("condition", "What a condition found.", "name", found),
        _each("condition_required", "What a condition requires.", "name", required),
    ]


def _cycles(status: Status) -> list[str]:
    champion = status.champion
    last = None if status.last_sleep_at is None else status.last_sleep_at.timestamp()
    losses: dict[str, float | None] = {}
    if champion is not None:
        losses = {"base": champion.holdout_base, "before": champion.holdout_before, "champion": champion.holdout_after}
    newest = next((each for each in status.recent_cycles if each.holdout_after is not None), None)
    gain = drift = None
    bounds: dict[str, float | None] = {}
    if newest is not None:
        drift, bounds = newest.drift, {"low": newest.gain_low, "high": newest.gain_high}
        if newest.holdout_before is not None and newest.holdout_after is not None:
            gain = newest.holdout_before - newest.holdout_after
    return [
        _one("cycles_judged_total", "Cycles with a verdict.", status.total_cycles, kind="counter"),
        _each("cycles_ended_total", "Cycles of this machine's own by ending.", "state", status.endings, kind="counter"),
        _one("last_sleep_timestamp_seconds", "When the last cycle with a verdict ended.", last),
        _one("champion_cycle", "The cycle whose adapter is in use; 0: the base.", champion.cycle if champion else 0),
        _each("holdout_loss", "Reply loss on held-out experiences, nats per token.", "model", losses),
        _one("last_gain", "Gain of the newest measured cycle, nats per token.", gain),
        _each("last_gain_bound", "Where that gain ends, at promotion.confidence.", "bound", bounds),
        _one("last_drift", "Drift of the newest measured cycle, nats per token.", drift),
        _one("last_drift_limit", "What that drift was held against.", newest.drift_limit if newest else None),
        _one("last_looping_replies", "Of its replies to the probe prompts.", newest.loops if newest else None),
    ]


def _progress(status: Status) -> list[str]:
    progress = status.progress
    return [
        _one("running_cycle", "The cycle under way; 0: none.", status.running_cycle or 0),
        _one("training_loss", "Loss of the last step, nats per token.", progress.loss if progress else None),
        _one("training_step", "Optimizer steps done.", progress.step if progress else None),
        _one("training_steps", "Optimizer steps of the cycle.", progress.steps if progress else None),
    ]


def _serving(status: Status) -> list[str]:
    """What the engine was proved to run; nothing where no engine is configured."""
    serving = status.serving
    if serving is None:
        return []
    since = serving.since.timestamp() if serving.since and serving.is_proved else None
    proof = serving.proved_at.timestamp() if serving.proved_at else None
    distances = {"served": serving.distance, "next_nearest": serving.next_nearest}
    is_wanted = serving.is_proved and serving.served == serving.wanted
    served = (serving.served or 0) if serving.is_proved else None
    return [
        _one("served_as_promoted", "1 while the engine is proved to run what is promoted.", is_wanted),
        _one("served_cycle", "The cycle that the engine is proved to run; 0: the base.", served),
        _one("served_since_timestamp_seconds", "Since when that is proved without a break.", since),
        _one("serve_proof_timestamp_seconds", "When what it runs was proved last.", proof),
        _each("serve_proof_distance", "Of its answers to what it was proved to run.", "generation", distances),
        _one("serve_problem", "1 while something is wrong with it.", bool(serving.problem)),
    ]


def _of_report(report: Report) -> list[str]:
    return [
        _each("last_cycle_phase_seconds", "Wall time of the newest measured cycle by phase.", "phase", report.seconds),
        _one("last_cycle_tokens", "Tokens of its training.", report.tokens),
        _one("last_cycle_energy_joules", "What its GPU drew, other processes on it included.", report.energy_joules),
        _one("last_cycle_peak_memory_bytes", "Peak memory of its worker.", report.peak_memory_bytes),
    ]


def _one(name: str, meaning: str, value: float | None, *, kind: str = "gauge") -> str:
    return _family(name, meaning, kind, [] if value is None else [f" {float(value)!r}"])


def _each(name: str, meaning: str, label: str, values: Mapping[str, float | None], *, kind: str = "gauge") -> str:
    lines = [f'{{{label}="{_escaped(each)}"}} {float(value)!r}' for each, value in values.items() if value is not None]
    return _family(name, meaning, kind, lines)


def _family(name: str, meaning: str, kind: str, lines: list[str]) -> str:
    if not lines:
        return ""
    head = [f"# HELP {PREFIX}_{name} {meaning}", f"# TYPE {PREFIX}_{name} {kind}"]
    return "\n".join([*head, *(f"{PREFIX}_{name}{line}" for line in lines)]) + "\n"


def _escaped(value: str) -> str:
    """The name of a phase or of an alarm may hold anything."""
    return clean(value).replace("\\", "\\\\").replace('"', '\\"')
