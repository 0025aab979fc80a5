"""The bench that compares doctor's estimate of memory with a worker's peak, in its short form: on the tiny model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.worker, pytest.mark.model]


def test_estimate_of_a_tiny_cycle(tmp_path: Path) -> None:
    """What is estimated is within 30 percent of what a real worker's process held, which is mostly its libraries."""
    pytest.importorskip("torch")
    path = Path(__file__).parents[1] / "bench" / "bench_memory.py"
    spec = importlib.util.spec_from_file_location("bench_memory", path)
    bench = sys.modules["bench_memory"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    estimated, measured = bench.compare("tiny", tmp_path, 128)
    assert estimated == pytest.approx(measured, rel=0.3)
