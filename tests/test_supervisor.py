"""Tests of the worker's supervision, with a real subprocess that behaves as it is told.

What every engine has in common is in ``test_worker_host.py``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleepd.config.strategies import STRATEGIES
from sleepd.cycles.running.worker_process import Worker, WorkerPolicy
from sleepd.errors import WorkerFailed
from sleepd.protocol.job import Failure, Job, Notice, Progress, Report, TrainingExample, encode
from tests.fakes import fake_worker


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    job = Job(cycle=1, base="b", models_directory="m", staging=str(tmp_path), strategy=STRATEGIES["consolidate"])
    examples = [
        TrainingExample(
            id=str(number), prompt="p", response="r", salience=0.7, role="holdout" if number == 0 else "train"
        )
        for number in range(3)
    ]
    (work / "job.json").write_bytes(encode(job))
    (work / "experiences.jsonl").write_bytes(b"".join(map(encode, examples)))
    return tmp_path


def supervise(
    staging: Path,
    behaviour: str,
    *,
    silence: float = 30.0,
    stop: float = 5.0,
    then: Callable[[Any], None] | None = None,
) -> tuple[Report | Failure, list[Progress | Notice]]:
    """Run a worker to its end; ``then(worker)`` is called on each message."""
    heard: list[Progress | Notice] = []

    async def life() -> Report | Failure:
        def listen(message: Progress | Notice) -> None:
            heard.append(message)
            if then is not None:
                then(worker)

        policy = WorkerPolicy(command=fake_worker(behaviour), silence_seconds=silence, stop_seconds=stop)
        worker = Worker(policy, listen)
        return await worker.run(staging)

    return asyncio.run(life()), heard


def children() -> set[str]:
    """Our own child processes, zombies included."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize(
    ("script", "stop", "words", "hint"),
    [
        ("exit 3", 30.0, "the worker ended with exit status 3 and no report", "[log] level"),
        ("echo first; echo '  last '; echo; exit 4", 30.0, "exit status 4 and no report:   last", "[log] level"),
        ("kill -TERM $$", 30.0, "the worker was killed by SIGTERM", "[log] level"),
        ("kill -KILL $$", 30.0, "the worker was killed by SIGKILL; the kernel", "out of memory"),
        ('eval "exec $1>&-"; exec sleep 60', 0.1, "closed its socket and went on running", "[log] level"),
        ("echo nonsense >&$1", 30.0, "the worker sent what is no message", "same version"),
    ],
)
def test_each_end_is_told_in_words(staging: Path, script: str, stop: float, words: str, hint: str) -> None:
    """How a worker ended without a report is told with its last line, and the hint is about that end."""
    policy = WorkerPolicy(command=("bash", "-c", script), silence_seconds=60.0, stop_seconds=stop)
    with pytest.raises(WorkerFailed) as told:
        asyncio.run(Worker(policy, lambda message: None).run(staging))
    assert words in told.value.message
    assert hint in told.value.hint


@pytest.mark.parametrize(
    ("last", "doing", "hint"),
    [
        (None, "started", "journalctl -u sage-sleepd"),
        (Progress(phase="loading"), "was in the phase loading", "journalctl -u sage-sleepd"),
        (Progress(phase="loading", doing="read the weights"), "read the weights", "try another base"),
        (Progress(phase="training"), "was in the phase training", "journalctl -u sage-sleepd"),
        (Progress(phase="training", doing="took a step"), "took a step", "journalctl -u sage-sleepd"),
    ],
)
def test_silence_is_told_with_its_place(last: Progress | None, doing: str, hint: str) -> None:
    """What the worker said last tells what hangs; another base is advised only where that loads."""
    worker = Worker(WorkerPolicy(command=(), silence_seconds=90.0, stop_seconds=1.0), lambda message: None)
    worker._last_progress = last
    told = worker._silence()
    assert f"for 90 s while it {doing}, and" in told.message
    assert hint in told.hint


def test_a_stubborn_worker_is_killed(staging: Path) -> None:
    """No sign of life for the silence time ends it, even if it ignores SIGTERM."""
    before = children()
    with pytest.raises(WorkerFailed, match="no sign of life"):
        supervise(staging, "stubborn", silence=1.0, stop=0.2)
    assert children() <= before


def test_hang_names_whose_fault(staging: Path) -> None:
    """A worker that hangs while it loads is told with what it was about, and the base is named as what to change."""
    with pytest.raises(WorkerFailed, match=r"for 1 s .* chat template") as caught:
        supervise(staging, "hang_loading", silence=1.0, stop=0.2)
    assert "try another base" in caught.value.hint


def test_output_flood_is_harmless(staging: Path) -> None:
    """Five megabytes without a newline neither block the worker nor the report."""
    outcome, _ = supervise(staging, "flood")
    assert isinstance(outcome, Report)


def test_missing_interpreter_is_named(staging: Path) -> None:
    """The error says what could not be started and which key to set."""
    policy = WorkerPolicy(command=("/nonexistent/python",), silence_seconds=1, stop_seconds=1)
    with pytest.raises(WorkerFailed, match="/nonexistent/python") as caught:
        asyncio.run(Worker(policy, lambda message: None).run(staging))
    assert "[worker] python" in caught.value.hint


def test_worker_inherits_no_systemd_socket(staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOTIFY_SOCKET and WATCHDOG_* stay with the daemon; the hub is off."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    script = "import os, sys; sys.exit(11 if {'NOTIFY_SOCKET', 'WATCHDOG_USEC'} & set(os.environ) else 12 if "
    script += "os.environ['HF_HUB_OFFLINE'] == '1' else 13)"
    policy = WorkerPolicy(command=(sys.executable, "-c", script), silence_seconds=9, stop_seconds=9)
    with pytest.raises(WorkerFailed, match="exit status 12"):
        asyncio.run(Worker(policy, lambda message: None).run(staging))
