"""Tests of crashes: a fixed sample of what ``tests/faults/crash_sweep.py`` and ``disk_cuts.py`` try by command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults import crash_sweep, disk_cuts


def can_trace() -> bool:
    """Whether strace is installed and allowed to trace."""
    return shutil.which("strace") is not None and subprocess.run(["strace", "-o", "/dev/null", "true"]).returncode == 0


needs_strace = pytest.mark.skipif(
    not can_trace(), reason="NOT TESTED: crashes at system calls need strace (apt install strace)"
)


@needs_strace
@pytest.mark.parametrize("number", [3, 29, 61, 93, 121, 149, 163, 177, 190])
def test_the_daemon_killed_at_a_write_loses_and_doubles_nothing(number: int) -> None:
    """After the next start the ledger is exact, every experience has one place, ``current`` is whole, staging clean."""
    point, _ = crash_sweep.daemon_point(number, model=None)
    assert point.faults == []


@needs_strace
@pytest.mark.worker
@pytest.mark.parametrize("number", [2, 12])
def test_the_worker_killed_at_a_write_costs_its_steps_alone(number: int, tiny_model: Path) -> None:
    """The same, of the real worker at its own writes."""
    point, _ = crash_sweep.worker_point(number, model=tiny_model)
    assert point.faults == []


@needs_strace
def test_a_loss_of_power_at_any_operation_leaves_a_state_that_can_be_gone_on_from() -> None:
    """Every seventh operation of a cycle, five states of the disk each."""
    operations, tried, failed = disk_cuts.cut(every=7, seed=0)
    assert operations > 100
    assert tried > 100
    assert failed == 0
