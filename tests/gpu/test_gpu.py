"""The steps that run on a GPU: for real where there is one, else as a rehearsal on the CPU with tiny shapes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
RUN = Path(__file__).parent / "run.sh"
REHEARSED = ("machine", "bases", "attention", "resume", "oom", "load")
"""What is quick on a CPU; ``tests/gpu/run.sh --cpu`` rehearses all."""


def has_gpu() -> bool:
    """Whether torch sees one."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit code, table, and every figure."""
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "SLEEPD_GPU_WORK": str(tmp_path / "work")}
    environment |= {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([RUN, *arguments], env=environment, capture_output=True, text=True)
    lines = (tmp_path / "out/results.jsonl").read_text().splitlines()
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "out/log.txt").read_text()[-5000:]
    return done.returncode, done.stdout, [json.loads(line) for line in lines]


@pytest.mark.model
@needs_torch
def test_steps_are_rehearsed(tmp_path: Path) -> None:
    """The quick steps end well on tiny shapes; the resumed run has the same bytes, and a full card is survived."""
    _code, table, found = run(tmp_path, "--cpu", *REHEARSED)
    by_step = {one["step"]: one for one in found}
    assert "ERROR" not in table
    assert by_step["resume default"]["in_goes_the_same"]
    assert by_step["resume default"]["was_resumed"]
    assert by_step["oom 300"]["end"].startswith("ended, ")


@pytest.mark.model
@needs_torch
def test_stopped_worker_is_rehearsed(tmp_path: Path) -> None:
    """A whole worker on the CPU stops when it is asked to; a whole cycle is what ``test_whole_worker.py`` runs."""
    _code, _table, found = run(tmp_path, "--cpu", "stop")
    assert found[0]["last"]["type"] == "failure"
    assert found[0]["exit_code"] == 0


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="GPU TESTS NOT RUN: torch sees no GPU here")
def test_all_steps_on_the_gpu(tmp_path: Path) -> None:
    """On a GPU every step of the plan ends well within eight minutes."""
    _code, table, found = run(tmp_path)
    print(table)
    assert found
    assert not re.search("ERROR|CUT|not begun", table)
