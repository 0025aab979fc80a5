"""Tests of crashes: a fixed sample of what ``tests/faults/crash_sweep.py`` and ``disk_cuts.py`` try by command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes import real_interpreter
from tests.faults import crash_sweep, disk_cuts

SYNC_AMID_TRAINING = 9
"""The worker's fsync at which it is killed: some resume points are written, and its adapter is not."""


def can_trace() -> bool:
    """Whether strace is installed and allowed to trace."""
    return shutil.which("strace") is not None and subprocess.run(["strace", "-o", "/dev/null", "true"]).returncode == 0


needs_strace = pytest.mark.skipif(
    not can_trace(), reason="NOT TESTED: crashes at system calls need strace (apt install strace)"
)


@pytest.fixture(scope="module")
def writes() -> list[str]:
    """The write-like calls of an undisturbed daemon. It is measured as those below are, for that writes, too."""
    return crash_sweep.daemon_point(0, [], model=None)[1]


@needs_strace
@pytest.mark.model
@pytest.mark.measured
@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.55, 0.65, 0.75, 0.82, 0.9, 0.97])
def test_killed_daemon_loses_no_write(writes: list[str], share: float) -> None:
    """After the next start the ledger is exact, every experience has one place, ``current`` is whole, staging clean."""
    assert len(writes) > 100
    point, _ = crash_sweep.daemon_point(int(share * len(writes)), writes, model=None)
    assert point.faults == []


@needs_strace
@pytest.mark.worker
@pytest.mark.model
def test_worker_killed_at_a_write(tmp_path: Path, tiny_model: Path) -> None:
    """The same, of the real worker in the middle of its own writes: it costs the steps since its last resume point."""
    worker = real_interpreter(tmp_path / "worker")
    syncs = ["fsync"] * SYNC_AMID_TRAINING
    point, _ = crash_sweep.worker_point(len(syncs), syncs, model=tiny_model, worker=str(worker))
    assert point.after == "suspended"
    assert point.faults == []


@needs_strace
def test_power_loss_leaves_resumable_state() -> None:
    """Every seventh operation of a cycle, five states of the disk each."""
    operations, tried, failed = disk_cuts.cut(every=7, seed=0)
    assert operations > 100
    assert tried > 100
    assert failed == 0
