"""Whole lives with the real worker on a tiny random model: trained, killed at points of a cycle, restarted."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from sleepd.config.schema import Config
from sleepd.protocol.control import Cancel, History, Rollback, Run, Show
from sleepd.protocol.job import RESUME_POINT
from sleepd.protocol.status import CycleDetail, RunResult
from sleepd.store.checkpoints import verify
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import real_interpreter
from tests.processes import LIMIT_SECONDS, DaemonProcess

pytestmark = pytest.mark.worker


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Config:
    """Learns the tiny model by heart: it cannot generalise, so its candidates are judged as they come."""
    config = changed(config_for(tmp_path, cooldown_seconds=0.0), "model", base=str(tiny_model))
    return changed(config, "worker", python=str(real_interpreter(tmp_path / "python")))


def lineage(state: Path, cycle: int) -> dict[str, Any]:
    for parent in (state, state / "retired"):
        path = parent / f"cycle_{cycle:03d}" / "lineage.json"
        if path.exists():
            return json.loads(path.read_text())
    raise AssertionError(f"cycle {cycle} left no lineage")


def judged(daemon: DaemonProcess) -> list[int]:
    states = {each["cycle"]: each["state"] for each in daemon.call(History(), dict)["cycles"]}
    return sorted(cycle for cycle, state in states.items() if state in ("promoted", "rejected", "inconclusive"))


def assert_nothing_lost_or_doubled(daemon: DaemonProcess, state: Path, count: int) -> None:
    """Each experience is trained once and held out before alone, ``current`` is whole or absent, staging is empty."""
    trained: list[str] = []
    held: set[str] = set()
    for cycle in judged(daemon):
        placed = lineage(state, cycle)
        now_held = {entry["id"] for entry in placed["held_out"]}
        held |= now_held
        if (state / f"cycle_{cycle:03d}").exists():
            trained += [entry["id"] for entry in placed["trained"]]
        assert not set(trained) & now_held
    assert len(trained) == len(set(trained))
    last = daemon.call(Show(cycle=judged(daemon)[-1]), CycleDetail)
    assert len({*trained, *last.trained_ids, *held}) == count
    if (state / "current").exists():
        assert verify((state / "current").resolve()).verdict == "promoted"
    assert list((state / "staging").iterdir()) == []


def test_two_nights(tmp_path: Path, config: Config) -> None:
    """1. Twelve experiences, one cycle. 2. Eight more, a forced second one. 3. Back to the start.

    Result: each cycle is judged on its own figures, the second continues the first if that was promoted, and
    rolling back puts the base in use.
    """
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_true(lambda: judged(daemon) == [1], "the first verdict")
        first = daemon.call(Show(cycle=1), CycleDetail)
        assert first.report is not None
        assert all(check.passed for check in first.report.checks), first.report.checks
        assert first.report.supervised_tokens > 0
        assert first.report.train_after is not None
        assert first.report.train_before is not None
        assert first.report.train_after < first.report.train_before
        write_buffer(tmp_path / "buffer.json", experiences(20))
        result = daemon.call(Run(force=True, wait=True), RunResult)
        assert result.summary is not None
        assert result.summary.parent == (1 if first.summary.state == "promoted" else None)
        assert_nothing_lost_or_doubled(daemon, tmp_path / "state", 20)
        if daemon.status().champion is not None:
            daemon.call(Rollback(cycle=0), dict)
        assert daemon.status().champion is None


@pytest.mark.model
def test_two_strategies_on_one_night(tmp_path: Path, config: Config) -> None:
    """The real worker trains both on the same examples; each is measured on the same held-out ones, token for token,
    and each verdict has the comparison.
    """
    write_buffer(tmp_path / "buffer.json", experiences(20))
    config = changed(config, "triggers", min_experiences=1000)
    with DaemonProcess(tmp_path, config) as daemon:
        result = daemon.call(Run(force=True, wait=True, strategies=["consolidate", "careful"]), RunResult)
        assert result.summary is not None
        assert result.rival is not None
        details = [daemon.call(Show(cycle=cycle), CycleDetail) for cycle in (1, 2)]
        first, second = (each.report for each in details)
        assert first is not None
        assert second is not None
        assert [(one.id, one.tokens, one.parent) for one in first.holdout] == [
            (one.id, one.tokens, one.parent) for one in second.holdout
        ]
        assert first.learning_rate != second.learning_rate
        for detail in details:
            assert detail.verdict is not None
            assert detail.verdict.pair is not None
            assert detail.verdict.pair.holdout is not None
            assert detail.verdict.pair.holdout.experiences == len(first.holdout)
        assert judged(daemon) == [1, 2]
        assert_nothing_lost_or_doubled(daemon, tmp_path / "state", 20)


def endings(daemon: DaemonProcess, event: str) -> list[int]:
    """The cycles of which this was logged, in order."""
    return [each["cycle"] for each in daemon.events() if each["event"] == event]


@pytest.mark.model
def test_worker_killed_in_any_phase(tmp_path: Path, config: Config) -> None:
    """SIGKILL to the worker, phase after phase: before training that cycle fails; later the same cycle goes on."""
    config = changed(config, "triggers", check_interval_seconds=1.0)
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, config) as daemon:
        for cycle, phase in enumerate(("loading", "preparing", "measuring"), start=1):
            daemon.await_event("phase_started", phase=phase, cycle=cycle)
            kill_workers(daemon)
            daemon.await_event("cycle_failed", cycle=cycle)
        daemon.await_event("phase_started", phase="training", cycle=4)
        point = tmp_path / "state" / "staging" / "cycle_004" / RESUME_POINT
        daemon.await_true(point.exists, "the first resume point")
        kill_workers(daemon)
        daemon.await_event("cycle_suspended", cycle=4)
        daemon.await_event("phase_started", phase="evaluating", cycle=4)
        kill_workers(daemon)
        daemon.await_true(lambda: endings(daemon, "cycle_suspended") == [4, 4], "the second suspension")
        daemon.await_true(lambda: judged(daemon) == [4], "the verdict")
        assert endings(daemon, "cycle_failed") == [1, 2, 3]
        assert_nothing_lost_or_doubled(daemon, tmp_path / "state", 12)


def kill_workers(daemon: DaemonProcess) -> None:
    for worker in daemon.workers():
        worker.send_signal(signal.SIGKILL)


@pytest.mark.model
@pytest.mark.parametrize("phases", [("loading", "preparing", "measuring"), ("training", "saving", "evaluating")])
def test_daemon_killed_in_any_phase(tmp_path: Path, config: Config, phases: tuple[str, ...]) -> None:
    """SIGKILL to the daemon, phase after phase: no orphan trains on, and the same cycle goes on to its verdict.

    The phases are in two lives, for a cycle is given up at its fourth crash.
    """
    write_buffer(tmp_path / "buffer.json", experiences(12))
    for phase in phases:
        with DaemonProcess(tmp_path, config) as daemon:
            daemon.await_event("phase_started", phase=phase, cycle=1)
            workers = daemon.workers()
            daemon.kill()
            _, alive = psutil.wait_procs(workers, timeout=LIMIT_SECONDS)
            assert alive == []
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_true(lambda: judged(daemon) == [1], "the verdict")
        daemon.await_true(lambda: daemon.status().running_cycle is None, "the end of the cycle")
        assert_nothing_lost_or_doubled(daemon, tmp_path / "state", 12)


@pytest.mark.model
@pytest.mark.measured
def test_cancel_stops_and_sigterm_suspends(tmp_path: Path, config: Config) -> None:
    """Cancelled, the cycle is gone at once; told to end, the daemon ends with exit status 0, leaves no process and only
    safetensors and JSON behind, and after the restart the report says where the cycle went on.
    """
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_event("phase_started", phase="measuring", cycle=1)
        daemon.call(Cancel(), dict)
        daemon.await_event("cycle_cancelled", cycle=1)
        daemon.await_event("phase_started", phase="training", cycle=2)
        workers = daemon.workers()
        daemon.process.terminate()
        assert daemon.process.wait(LIMIT_SECONDS) == 0
        assert not any(psutil.pid_exists(worker.pid) for worker in workers)
    left = {path.name for path in (tmp_path / "state/staging/cycle_002/work").iterdir()}
    assert left == {"job.json", "experiences.jsonl", "resume.safetensors"}
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_event("cycle_resumed", cycle=2)
        daemon.await_true(lambda: judged(daemon) == [2], "the verdict")
        report = daemon.call(Show(cycle=2), CycleDetail).report
        assert [notice.event for notice in report.notices if notice.event == "cycle_resumed"]
    log = (tmp_path / "daemon.log").read_text()
    assert "Traceback" not in log
