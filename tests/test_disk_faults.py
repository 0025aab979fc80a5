"""Tests of a disk that fails: full for real, and each single write refused by the kernel in a daemon under strace."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleepd.database import open_database
from sleepd.errors import LedgerUnusable
from tests.faults.disk_faults import CI_POINTS, Fault, daemon_on_full_disk, try_fault

can_mount = os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0
has_strace = shutil.which("strace") is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(directory)], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """Take all the space that is left."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):  # noqa: PT012
        while True:
            file.write(b"x" * 4096)
    return path


def test_a_transaction_on_a_full_disk_is_undone_and_the_next_one_goes_on(small_disk: Path) -> None:
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


def test_a_failure_inside_a_transaction_undoes_all_of_it(tmp_path: Path) -> None:
    """Whatever ends the block, none of its statements stays and the next transaction begins."""
    database = open_database(tmp_path / "state.db")
    with pytest.raises(ZeroDivisionError), database.transaction():  # noqa: PT012
        database.execute("INSERT INTO notes VALUES('a', x'00')")
        raise ZeroDivisionError
    with database.transaction():
        database.execute("INSERT INTO notes VALUES('b', x'00')")
    assert database.execute("SELECT name FROM notes").fetchall() == [("b",)]
    database.close()


def test_a_daemon_lives_through_a_disk_that_fills_up(small_disk: Path, tmp_path: Path) -> None:
    """It answers, names the disk, keeps its champion, and sleeps again by itself once there is space."""
    assert daemon_on_full_disk(small_disk, tmp_path, fill) == []


@pytest.mark.skipif(not has_strace, reason="strace is not installed")
@pytest.mark.parametrize("fault", CI_POINTS, ids=str)
def test_a_refused_write_is_named_and_costs_no_experience(fault: Fault, tmp_path: Path) -> None:
    """One system call of a cycle fails: the daemon lives, says so, and brings the experiences to a verdict."""
    outcome = try_fault(fault, tmp_path)
    assert outcome.call == fault.call
    assert outcome.faults == []
