"""Tests of the files of the older scheduler, read and written: each field, and each kind of damage."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sleepd.errors import CheckpointInvalid
from sleepd.store.legacy_formats import (
    SchedulerState,
    SleepEntry,
    cycle_results,
    from_local,
    local_naive,
    read_scheduler_state,
    read_training_state,
    sleep_entry,
    training_state,
    write_scheduler_state,
)
from sleepd.store.sqlite.ledger_rows import CycleRecord
from tests.test_promotion import report

NOW = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)
EARLIER, LATER = "2026-01-08T03:00:00", "2026-01-09T03:00:00"
OURS = {"cycle": 3, "timestamp": EARLIER, "num_experiences": "5", "final_loss": 1.5}
TRAINERS = {"sleep_cycle": 4, "timestamp": LATER, "num_experiences": "6", "final_loss": 2.5, "epochs": 3}
READ = [
    SleepEntry(cycle=3, timestamp=EARLIER, num_experiences=5, final_loss=1.5),
    SleepEntry(cycle=4, timestamp=LATER, num_experiences=6, final_loss=2.5),
]


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path.parent


def test_written_state_is_read_again(tmp_path: Path) -> None:
    """Every field of the scheduler's state survives."""
    state = SchedulerState(
        last_sleep_time=LATER,
        last_sleep_cycle=4,
        experiences_at_last_sleep=12,
        total_sleep_cycles=9,
        sleep_history=READ,
    )
    write_scheduler_state(tmp_path, state)
    assert read_scheduler_state(tmp_path) == state


@pytest.mark.parametrize(
    ("history", "known"), [([], 12), ([OURS], 12), ([TRAINERS, OURS], 12), ([OURS, TRAINERS], None)]
)
def test_sum_of_the_trainer_is_no_length(tmp_path: Path, history: list[dict[str, Any]], known: int | None) -> None:
    """Where the newest entry is the trainer's own, the number beside it is a sum over cycles, and not taken."""
    written(tmp_path / "scheduler_state.json", {"experiences_at_last_sleep": "12", "sleep_history": history})
    found = read_scheduler_state(tmp_path)
    assert found is not None
    assert found.experiences_at_last_sleep == known
    assert found.sleep_history == [READ[0] if entry is OURS else READ[1] for entry in history]


@pytest.mark.parametrize(
    ("state", "last_sleep"),
    [
        ({"last_updated": LATER, "training_history": [OURS]}, LATER),
        ({"training_history": [OURS, TRAINERS]}, LATER),
        ({}, local_naive(NOW)),
    ],
)
def test_training_state_by_cases(tmp_path: Path, state: dict[str, Any], last_sleep: str) -> None:
    """The last sleep is the written time, else that of the newest entry, else that of the file itself."""
    written(tmp_path / "training_state.json", {"sleep_cycle_count": "7", **state})
    os.utime(tmp_path / "training_state.json", (NOW.timestamp(), NOW.timestamp()))
    found = read_training_state(tmp_path)
    assert found is not None
    assert (found.last_sleep_time, found.last_sleep_cycle, found.total_sleep_cycles) == (last_sleep, 7, 7)
    assert found.experiences_at_last_sleep is None
    assert found.sleep_history == READ[: len(state.get("training_history", []))]


def test_absent_files_are_none(tmp_path: Path) -> None:
    """Nothing was left by an older version."""
    assert read_scheduler_state(tmp_path) is None
    assert read_training_state(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"last_sleep_time": "yesterday", "last_updated": "yesterday", "sleep_cycle_count": 1},
        {"last_sleep_time": "0001-01-01T00:00:00", "last_updated": "0001-01-01T00:00:00", "sleep_cycle_count": 1},
        {"last_sleep_cycle": -1, "sleep_cycle_count": -1},
        {"sleep_history": [{}], "training_history": [{}], "sleep_cycle_count": 1},
        {"sleep_history": [{**OURS, "timestamp": "?"}], "training_history": [{**OURS, "timestamp": "?"}]},
    ],
    ids=["cut", "a list", "no time", "the first year", "negative", "an empty entry", "an entry without time"],
)
def test_damaged_state_names_its_file(tmp_path: Path, content: Any) -> None:
    """Neither file is guessed at; each refusal names the file and what to do."""
    if isinstance(content, dict):
        content = {"sleep_cycle_count": 1, **content}
    for name, read in (("scheduler_state.json", read_scheduler_state), ("training_state.json", read_training_state)):
        written(tmp_path / name, content)
        with pytest.raises(CheckpointInvalid, match=f"{name}: not understood"):
            read(tmp_path)


@pytest.mark.parametrize("text", ["2026-01-09T03:00:00", "2026-07-09T03:00:00+02:00", "2026-01-09T03:00:00.5"])
def test_time_of_older_files_is_utc(text: str) -> None:
    """Naive times are local, others have their offset; written again, they are naive."""
    moment = from_local(text)
    assert moment.utcoffset() == timedelta(0)
    assert from_local(local_naive(moment)) == moment
    assert datetime.fromisoformat(local_naive(moment)).tzinfo is None


def test_cycle_in_the_older_words() -> None:
    """What other tools read of a cycle: counts with the replayed ones, the last loss, and naive times."""
    ours = report(trained=8, replayed=3, epoch_losses=[3.0, 2.0], epochs=2)
    summary = CycleRecord(
        cycle=5, state="promoted", started_at=NOW - timedelta(hours=1), ended_at=NOW, parent=None, strategy="gentle",
        is_forced=False, trained=8, replayed=3,
    )  # fmt: skip
    entry = SleepEntry(cycle=5, timestamp=local_naive(NOW), num_experiences=11, final_loss=2.0)
    assert sleep_entry(summary, ours) == entry
    assert sleep_entry(summary, None).final_loss is None
    assert sleep_entry(summary, report(epoch_losses=[])).final_loss is None
    results = cycle_results(5, ours, at=NOW)
    assert (results["sleep_cycle"], results["num_experiences"], results["final_loss"]) == (5, 11, 2.0)
    assert cycle_results(5, report(epoch_losses=[]), at=NOW)["final_loss"] is None
    state = training_state([results], total=20, model_path="m", at=NOW)
    assert (state["sleep_cycle_count"], state["total_experiences_trained"]) == (5, 20)
    assert (state["last_updated"], results["timestamp"]) == (local_naive(NOW), local_naive(NOW))
