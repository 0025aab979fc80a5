"""One GPU, several daemons."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sleepd.cycles.running.gpu_lock import GpuLock
from sleepd.errors import Busy
from sleepd.protocol.control import Run
from sleepd.protocol.status import RunResult
from tests.agents import changed, config_for, experiences, write_buffer
from tests.processes import DaemonProcess
from tests.test_daemon import behaving


def test_second_waits_for_first(tmp_path: Path) -> None:
    """While one holds it, another may not begin; its own hold is no problem to the holder."""
    path = tmp_path / "gpu.lock"
    path.touch()
    first, second = GpuLock(), GpuLock()
    first.take(str(path))
    assert first.problem(str(path)) == ""
    assert second.problem(str(path)).startswith("another sage-sleepd trains ")
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(Busy, match="another sage-sleepd trains"):
        second.take(str(path))
    assert os.listdir("/proc/self/fd") == descriptors
    first.release()
    assert second.problem(str(path)) == ""
    assert not second.is_held


def test_missing_file_means_no_waiting(tmp_path: Path) -> None:
    """An absent file, or none named, is always free."""
    for path in ("", str(tmp_path / "absent")):
        lock = GpuLock()
        assert lock.problem(path) == ""
        lock.take(path)
        assert not lock.is_held


def test_unopenable_lock_delays_training(tmp_path: Path) -> None:
    """Where it cannot be known whether another one trains, nothing begins."""
    path = tmp_path / "gpu.lock"
    path.symlink_to(path)  # refused to root too
    assert "cannot be opened" in GpuLock().problem(str(path))
    path.unlink()
    os.mkfifo(path)
    assert GpuLock().problem(str(path)) == "", "nobody waits for a writer"


def test_a_block_that_fails_lets_go(tmp_path: Path) -> None:
    """What could not be begun holds nobody up."""
    path = tmp_path / "gpu.lock"
    path.touch()
    lock = GpuLock()
    with pytest.raises(ValueError, match="no"), lock.taken(str(path)):
        raise ValueError("no")
    assert not lock.is_held
    with lock.taken(str(path)):
        pass
    assert lock.is_held
    lock.release()


def test_two_daemons_train_in_turn(tmp_path: Path) -> None:
    """The second one says what it waits for, is not forced, and trains once the first has ended."""
    lock = tmp_path / "gpu.lock"
    lock.touch()
    folders = [tmp_path / "a", tmp_path / "b"]
    configs = []
    for folder, behaviour in zip(folders, ("wait", "promote"), strict=True):
        folder.mkdir()
        write_buffer(folder / "buffer.json", experiences(12))
        own = changed(config_for(folder, check_interval_seconds=1.0), "worker", gpu_lock=str(lock), stop_seconds=0.5)
        configs.append(behaving(own, folder, behaviour))
    with DaemonProcess(folders[0], configs[0]) as first:
        first.await_event("phase_started", phase="training")
        with DaemonProcess(folders[1], configs[1]) as second:
            second.await_event(
                "decision_changed", text="Waiting for the GPU: another sage-sleepd trains on this machine"
            )
            with pytest.raises(Exception, match="another sage-sleepd trains"):
                second.call(Run(force=True), RunResult)
            first.kill()
            second.await_event("candidate_promoted", cycle=1)
