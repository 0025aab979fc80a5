"""The files of the older scheduler, which other tools still read: ``scheduler_state.json``, ``training_state.json`` and
``cycle_results.json``.

Their times are naive and local, as they always were; a time with an offset is understood too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sleepd.errors import CheckpointInvalid
from sleepd.files import read_document, replace_file
from sleepd.protocol.job import Report
from sleepd.text.shell import command_line

from .sqlite.ledger_rows import CycleRecord

SCHEDULER_STATE = "scheduler_state.json"


Count = Annotated[int, Meta(ge=0, le=10**8)]
"""Cycles and experiences: what is more does not fit the names of directories, nor in the end the ledger."""


class SleepEntry(msgspec.Struct, kw_only=True):
    """One past sleep in the older history."""

    cycle: Count
    timestamp: str
    num_experiences: Count = 0
    final_loss: float | None = None
    """Over whole sequences where the older trainer wrote it; ours are over replies alone."""


class SchedulerState(msgspec.Struct, kw_only=True):
    """``scheduler_state.json``."""

    last_sleep_time: str | None = None
    last_sleep_cycle: Count = 0
    experiences_at_last_sleep: Count | None = 0
    """Length of the buffer then; None: nobody knows."""
    total_sleep_cycles: Count = 0
    sleep_history: list[SleepEntry] = []


class _TrainedEntry(msgspec.Struct, kw_only=True):
    """An entry of ``training_history``: the trainer wrote ``sleep_cycle`` where its scheduler wrote ``cycle``."""

    sleep_cycle: Count
    timestamp: str
    num_experiences: Count = 0
    final_loss: float | None = None


class _Written(msgspec.Struct, kw_only=True):
    """``scheduler_state.json`` as it may stand there: its history is of one kind or the other, or of both."""

    last_sleep_time: str | None = None
    last_sleep_cycle: Count = 0
    experiences_at_last_sleep: Count | None = 0
    total_sleep_cycles: Count = 0
    sleep_history: list[dict[str, Any]] = []


class _TrainingState(msgspec.Struct, kw_only=True):
    """``training_state.json`` of an older checkpoint.

    Its ``total_experiences_trained`` adds up all cycles: it is no length of a buffer, and not read.
    """

    sleep_cycle_count: Count
    last_updated: str | None = None
    training_history: list[dict[str, Any]] = []


def local_naive(moment: datetime) -> str:
    """An aware time as the older files have it."""
    return moment.astimezone().replace(tzinfo=None).isoformat()


def from_local(text: str) -> datetime:
    """A time of the older files, in UTC.

    Raises:
        ValueError: it is no ISO 8601 time, or in a year that no other time zone has.
    """
    try:
        # astimezone() takes a naive time as local, which is what these are.
        moment = datetime.fromisoformat(text).astimezone(UTC)
        local_naive(moment)
    except OverflowError as error:
        raise ValueError(f"{text}: {error}") from error
    return moment


def read_scheduler_state(directory: Path) -> SchedulerState | None:
    """The older state in ``directory``; None: there is none.

    Raises:
        CheckpointInvalid: there is one and it cannot be understood.
    """
    path = directory / SCHEDULER_STATE
    try:
        written = msgspec.json.decode(read_document(path), type=_Written, strict=False)
        history = [_entry(raw) for raw in written.sleep_history]
        # The older scheduler, started without its state, put the trainer's sum over all cycles in the place of the
        # buffer's length; that the newest entry is the trainer's own shows it.
        is_sum = bool(written.sleep_history) and "sleep_cycle" in written.sleep_history[-1]
        return SchedulerState(
            last_sleep_time=_checked(written.last_sleep_time),
            last_sleep_cycle=written.last_sleep_cycle,
            experiences_at_last_sleep=None if is_sum else written.experiences_at_last_sleep,
            total_sleep_cycles=written.total_sleep_cycles,
            sleep_history=history,
        )
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CheckpointInvalid(
            f"{path}: not understood: {error}",
            hint=f"repair the file, or start without its history: {command_line('mv', path, f'{path}.old')}",
        ) from error


def read_training_state(checkpoint: Path) -> SchedulerState | None:
    """The history that an older checkpoint carries; None: it carries none.

    Raises:
        CheckpointInvalid: it cannot be understood.
    """
    path = checkpoint / "training_state.json"
    try:
        state = msgspec.json.decode(read_document(path), type=_TrainingState, strict=False)
        history = [_entry(raw) for raw in state.training_history]
        newest = _checked(state.last_updated) or (history[-1].timestamp if history else _written_at(path))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{path}: not understood: {error}", hint="its history is left out") from error
    return SchedulerState(
        last_sleep_time=newest,
        last_sleep_cycle=state.sleep_cycle_count,
        experiences_at_last_sleep=None,
        total_sleep_cycles=state.sleep_cycle_count,
        sleep_history=history,
    )


def _entry(raw: dict[str, Any]) -> SleepEntry:
    if "sleep_cycle" in raw:
        other = msgspec.convert(raw, _TrainedEntry, strict=False)
        entry = SleepEntry(
            cycle=other.sleep_cycle,
            timestamp=other.timestamp,
            num_experiences=other.num_experiences,
            final_loss=other.final_loss,
        )
    else:
        entry = msgspec.convert(raw, SleepEntry, strict=False)
    _checked(entry.timestamp)
    return entry


def _checked(moment: str | None) -> str | None:
    """The time as it is; ValueError: it is none."""
    if moment is not None:
        from_local(moment)
    return moment


def _written_at(path: Path) -> str:
    """When a file was last written, as the older files have it: the next best where no time stands in it."""
    return local_naive(datetime.fromtimestamp(path.stat().st_mtime, UTC))


def write_scheduler_state(directory: Path, state: SchedulerState) -> None:
    """Replace the older state atomically."""
    replace_file(directory / SCHEDULER_STATE, msgspec.json.format(msgspec.json.encode(state), indent=2))


def sleep_entry(summary: CycleRecord, report: Report | None) -> SleepEntry:
    """A cycle with a verdict, in the older history's words."""
    return SleepEntry(
        cycle=summary.cycle,
        timestamp=local_naive(summary.ended_at or summary.started_at),
        num_experiences=summary.trained + summary.replayed,
        final_loss=report.epoch_losses[-1] if report and report.epoch_losses else None,
    )


def cycle_results(cycle: int, report: Report, *, at: datetime) -> dict[str, Any]:
    """``cycle_results.json``: what the older trainer returned and wrote. Losses are ours: per supervised token."""
    return {
        "sleep_cycle": cycle,
        "num_experiences": report.trained + report.replayed,
        "epochs": report.epochs,
        "final_loss": report.epoch_losses[-1] if report.epoch_losses else None,
        "avg_salience": report.avg_salience,
        "epoch_losses": report.epoch_losses,
        "learning_rate": report.learning_rate,
        "timestamp": local_naive(at),
    }


def training_state(history: list[dict[str, Any]], *, total: int, model_path: str, at: datetime) -> dict[str, Any]:
    """``training_state.json`` of a checkpoint.

    Args:
        history: the last ``cycle_results`` of its lineage, oldest first, its own last.
        total: experiences that its whole lineage trained, replayed ones counted again.
        model_path: the base.
        at: when it was written.
    """
    return {
        "sleep_cycle_count": history[-1]["sleep_cycle"],
        "total_experiences_trained": total,
        "training_history": history,
        "model_path": model_path,
        "last_updated": local_naive(at),
    }
