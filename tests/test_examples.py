"""The examples in ``config/examples``: what an operator copies must run as it stands."""

from __future__ import annotations

import ast
import importlib.util
import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sleepd.buffer.experience import Experience, parse
from sleepd.config.limits import parse_limit
from sleepd.config.schema import Config
from sleepd.policy.recall import is_recalled, read_questions

EXAMPLES = Path(__file__).parents[1] / "config" / "examples"
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs torch")


def make_adapter(base: Path, directory: Path, seed: int) -> Path:
    """An adapter with large random weights, which changes every reply."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(directory)
    return directory


def test_example_probes_are_read() -> None:
    """The example file of probes is accepted, and its own answers are right answers."""
    questions = read_questions(str(EXAMPLES / "probes.toml"))
    assert len(questions) == 2
    assert all(is_recalled(f"It is {text}.", each.expected) for each in questions for text in each.expected)


@pytest.mark.worker
@needs_torch
def test_example_agent_follows_current(tiny_model: Path, tmp_path: Path) -> None:
    """The agent answers with the base, then with each adapter that ``current`` points to, then with the base again.

    Each experience names the adapter under which the reply was given, and is one that the daemon reads.
    """
    state, buffer = tmp_path / "state", tmp_path / "experiences.jsonl"
    state.mkdir()
    for number in (1, 2):
        make_adapter(tiny_model, state / f"cycle_00{number}", seed=number)
    command = [sys.executable, str(EXAMPLES / "agent.py"), "--base", str(tiny_model), "--state", str(state)]
    link = state / "current"
    with subprocess.Popen(
        [*command, "--buffer", str(buffer)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        for target in ("", "cycle_001", "cycle_002", ""):
            link.unlink(missing_ok=True)
            if target:
                link.symlink_to(target)
            agent.stdin.write("Who are you?\n")
            agent.stdin.flush()
            assert agent.stdout.readline()
        agent.stdin.close()
    assert agent.returncode == 0
    replies = [json.loads(line) for line in buffer.read_text(encoding="utf-8").splitlines()]
    assert [each["metadata"].get("adapter") for each in replies] == [None, "cycle_001", "cycle_002", None]
    texts = [each["response"] for each in replies]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3
    parsed = [parse(each) for each in replies]
    assert all(isinstance(each, Experience) for each in parsed), parsed
    assert [each.said_under for each in parsed if isinstance(each, Experience)] == [None, 1, 2, None]


@pytest.mark.worker
@needs_torch
def test_example_evaluation_gives_figures(tiny_model: Path, tmp_path: Path) -> None:
    """The worker runs the example for the base and for an adapter, and reads the figures that its limits name."""
    from sleepd.config.strategies import find_strategy
    from sleepd.protocol.job import Job
    from sleepd.worker.evaluation import evaluation_command

    adapter = make_adapter(tiny_model, tmp_path / "adapter", seed=1)
    (tmp_path / "staging" / "work").mkdir(parents=True)
    job = Job(
        cycle=1,
        base=str(tiny_model),
        models_directory=str(tmp_path),
        staging=str(tmp_path / "staging"),
        strategy=find_strategy("consolidate"),
        evaluation_command=shlex.join([sys.executable, str(EXAMPLES / "evaluate.py")]),
        evaluation_seconds=Config().evaluation.seconds,
    )
    for directory in (None, adapter):
        figures = evaluation_command.figures(job, directory, tiny_model, lambda: None)
        assert set(figures) == {"accuracy", "mean_words"}
        assert 0 <= figures["accuracy"] <= 1
    documented = ast.get_docstring(ast.parse((EXAMPLES / "evaluate.py").read_text()), clean=False) or ""
    shown = tomllib.loads("\n".join(line.strip() for line in documented.splitlines() if line.startswith("    ")))
    assert {parse_limit(limit).name for limit in shown["promotion"]["limits"]} == set(figures)
