"""One cycle: the agent writes, the daemon notices, decides, trains, measures and judges, and all of it is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from sleepd.errors import EngineFailed, ProtocolError, WorkerFailed
from sleepd.protocol.control import Announcement, GetStatus, Show
from sleepd.protocol.deployment.serve_messages import ServedState
from sleepd.protocol.job import Progress
from sleepd.protocol.status import CycleDetail, Status

from .sample import Sample
from .screen import Screen
from .stage import Stage

SILENCE_SECONDS = 300.0
"""A daemon that sends nothing for so long has a problem."""
WRITING_PAUSE_SECONDS = 0.15
_PHASES = {
    "preparing": "prepares {} for the engine",
    "swapping": "has the engine restarted with {}",
    "proving": "asks the engine the prompts by which {} is known",
}


def sleep_once(stage: Stage, sample: Sample, screen: Screen) -> CycleDetail:
    """Let the agent write all it has, and follow the cycle which that leads to; returns the cycle.

    Raises:
        WorkerFailed: the cycle ended without a verdict.
        ProtocolError: the daemon went away.
    """
    with stage.client(SILENCE_SECONDS) as listening:
        announcements = listening.subscribe()
        for experience in sample.experiences:
            stage.append(experience)
            screen.report("agent", f"writes: {experience['prompt']} -> {experience['response']}")
            time.sleep(WRITING_PAUSE_SECONDS)
        cycle = _follow(announcements, screen)
    with stage.client() as asking:
        return asking.call(Show(cycle=cycle), CycleDetail)


def await_served(stage: Stage, cycle: int | None, screen: Screen) -> ServedState:
    """Wait until the engine is proved to run that cycle (None: the base); what the status then says of it.

    Raises:
        EngineFailed: the daemon found that it does not.
        ProtocolError: the daemon went away.
    """
    with stage.client(SILENCE_SECONDS) as listening:
        announcements = listening.subscribe()
        while True:
            with stage.client() as asking:
                state = asking.call(GetStatus(), Status).serving
            if state is None or state.problem:
                raise EngineFailed(
                    state.problem if state else "no engine is configured", hint=state.hint if state else ""
                )
            if state.is_proved and state.served == cycle:
                return state
            for announcement in announcements:
                if text := _PHASES.get(str(announcement.fields.get("phase"))):
                    screen.report("daemon", text.format(announcement.fields["text"]))
                if announcement.event == "serving" and not announcement.fields:
                    break
            else:
                raise ProtocolError("the daemon stopped while it served", hint="the log has its last messages")


def _follow(announcements: Iterator[Announcement], screen: Screen) -> int:
    device = ""
    for announcement in announcements:
        fields = announcement.fields
        match announcement.event:
            case "progress":
                progress = msgspec.convert(fields, Progress)
                if progress.steps:
                    screen.draw("worker", _progress_text(progress))
            case "phase_started":
                # The device is the same in every phase and is shown once.
                news = f" on {fields['device']}" if fields["device"] != device else ""
                device = fields["device"]
                screen.report("worker", fields["phase"] + news)
            case "cycle_ended":
                if fields["state"] not in ("promoted", "rejected", "inconclusive"):
                    raise WorkerFailed(f"the cycle ended as {fields['state']}", hint="the log has the reason")
                return int(fields["cycle"])
            case event:
                if text := _fact_text(event, fields):
                    screen.report("daemon", text)
    raise ProtocolError("the daemon stopped in the middle of the cycle", hint="the log has its last messages")


def _progress_text(progress: Progress) -> str:
    parts = [f"{progress.phase}, step {progress.step} of {progress.steps}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.2f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:.0f} tokens/s")
    if progress.eta_seconds is not None:
        parts.append(f"about {progress.eta_seconds:.0f} s left")
    return ", ".join(parts)


def _fact_text(event: str, fields: dict[str, Any]) -> str:
    """A past fact as a sentence; empty for what need not be shown."""
    match event:
        case "decision_changed":
            return f"decides: {fields['reason']}" + ("; it sleeps" if fields["should_sleep"] else "; it waits")
        case "cycle_started":
            return (
                f"cycle {fields['cycle']} starts: trains on {fields['trained']}, "
                f"holds {fields['held_out']} out to measure on"
            )
        case "candidate_promoted":
            return f"verdict: promoted. {fields['text']}"
        case "candidate_rejected":
            return f"verdict: rejected; the model does not change. {fields['text']}"
        case "candidate_left_open":
            return f"verdict: inconclusive; the model does not change. {fields['text']}"
        case "state" | "paused" | "resumed" | "serving":
            return ""
        case _:
            text = " ".join(str(fields[key]) for key in ("text", "hint") if fields.get(key))
            return text or event
