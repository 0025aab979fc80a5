"""The bench of the worker's replies against transformers' ``generate``, in its short form: on the tiny model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.worker


@pytest.fixture(scope="module")
def bench() -> Any:
    """The bench as a module."""
    pytest.importorskip("torch")
    path = Path(__file__).parents[1] / "bench" / "bench_generate.py"
    spec = importlib.util.spec_from_file_location("bench_generate", path)
    module = sys.modules["bench_generate"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("is_sampled", [False, True], ids=["greedy", "sampled"])
def test_generate_says_the_same(bench: Any, tiny_model: Path, tmp_path: Path, is_sampled: bool) -> None:
    """With an adapter, rows that end at different steps are token by token the same in both ways."""
    model, device, chat = bench.prepare(str(tiny_model), tmp_path, with_adapter=True)
    asked = bench.questions(chat, 3, 12, is_sampled=is_sampled)
    found = bench.compare(model, device, asked, frozenset({2}), repeats=1)
    assert (found.same, found.replies) == (3, 3)


def test_generate_obeys_the_base(bench: Any, tiny_model: Path, tmp_path: Path) -> None:
    """A repetition penalty in the base's generation_config.json changes what generate says, not what the worker says.

    A candidate that runs in a loop would be measured with its loop suppressed.
    """
    model, device, chat = bench.prepare(str(tiny_model), tmp_path, with_adapter=False)
    asked = bench.questions(chat, 2, 12, is_sampled=False)
    before = bench.replies(model, device, asked, stop_ids=frozenset({2}))
    # Below 1 it rewards repetition: the replies of a random model do not repeat by themselves.
    model.generation_config.repetition_penalty = 0.01
    assert bench.replies(model, device, asked, stop_ids=frozenset({2})) == before
    assert bench.by_transformers(model, device, asked, stop_ids=frozenset({2})) != before
