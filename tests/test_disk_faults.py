"""Tests of a disk that fails: full for real, and each single write refused by the kernel in a daemon under strace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sleepd.errors import LedgerUnusable
from sleepd.store.sqlite.database import open_database
from tests.faults.disk_faults import CI_POINTS, Fault, daemon_on_full_disk, refuse_sync_of, synced_again, try_fault

has_strace = shutil.which("strace") is not None


def fill(directory: Path) -> Path:
    """Take all the space that is left."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):  # noqa: PT012
        while True:
            file.write(b"x" * 4096)
    return path


def test_full_disk_undoes_the_transaction(small_disk: Path) -> None:
    """SQLite's own failure is a named error, leaves no transaction open, and passes with its cause."""
    database = open_database(small_disk / "state.db")
    filler = fill(small_disk)
    with pytest.raises(LedgerUnusable, match="full") as failure, database.transaction():
        database.execute("INSERT INTO notes VALUES('big', ?)", (b"x" * 500_000,))
    assert "df -h" in failure.value.hint
    filler.unlink()
    with database.transaction():
        database.execute("INSERT INTO notes VALUES('small', x'00')")
    assert database.execute("SELECT name FROM notes").fetchall() == [("small",)]
    database.close()


def test_failure_undoes_whole_transaction(tmp_path: Path) -> None:
    """Whatever ends the block, none of its statements stays and the next transaction begins."""
    database = open_database(tmp_path / "state.db")
    with pytest.raises(ZeroDivisionError), database.transaction():  # noqa: PT012
        database.execute("INSERT INTO notes VALUES('a', x'00')")
        raise ZeroDivisionError
    with database.transaction():
        database.execute("INSERT INTO notes VALUES('b', x'00')")
    assert database.execute("SELECT name FROM notes").fetchall() == [("b",)]
    database.close()


def test_daemon_survives_filling_disk(small_disk: Path, tmp_path: Path) -> None:
    """It answers, names the disk, keeps its champion, and sleeps again by itself once there is space."""
    assert daemon_on_full_disk(small_disk, tmp_path, fill) == []


@pytest.mark.skipif(not has_strace, reason="strace is not installed")
@pytest.mark.parametrize("fault", CI_POINTS, ids=str)
def test_refused_write_costs_no_experience(fault: Fault, tmp_path: Path) -> None:
    """One system call of a cycle fails: the daemon lives, says so, and brings the experiences to a verdict."""
    outcome = try_fault(fault, tmp_path)
    assert outcome.call == fault.call
    assert outcome.faults == []


@pytest.mark.skipif(not has_strace, reason="strace is not installed")
@pytest.mark.parametrize(
    "name",
    ["adapter_model.safetensors", *(pytest.param(each, marks=pytest.mark.model) for each in ("manifest.json", ""))],
)
def test_failed_sync_ends_the_cycle(name: str, tmp_path: Path) -> None:
    """Whatever of a checkpoint the disk does not take, the next cycle trains the same anew, with files of its own."""
    outcome, life = refuse_sync_of(name, tmp_path)
    assert outcome.faults == []
    events = [json.loads(line) for line in (life / "daemon.log").read_text().splitlines() if line.startswith("{")]
    failed = [event for event in events if event["event"] == "cycle_failed"]
    assert [event["cycle"] for event in failed] == [1]
    assert "checkpoint of cycle 1 could" in failed[0]["text"]
    assert next(event["cycle"] for event in events if event["event"] == "candidate_promoted") == 2


def test_second_sync_failure_is_seen(tmp_path: Path) -> None:
    """The look at a trace can fail: the same number after a close is another descriptor, SQLite's is left out."""
    refused = "= -1 EIO (Input/output error) (INJECTED)"
    trace = tmp_path / "trace"
    good = [f"1.0 fsync(7</s/a>) {refused}", "1.1 close(7</s/a>) = 0", "1.2 fsync(7</s/a>) = 0"]
    good += [f"1.3 fdatasync(8</s/state.db-wal>) {refused}", "1.4 fdatasync(8</s/state.db-wal>) = 0"]
    trace.write_text("\n".join(good))
    assert synced_again(trace) == []
    trace.write_text("\n".join([good[0], good[2]]))
    assert synced_again(trace) == [good[2]]
