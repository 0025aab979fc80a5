"""The real worker process on a tiny model, over a real socket pair."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sleepd.protocol.job import Failure, Hello, Progress, Report

from .conftest import StartWorker, quick, run_process

pytestmark = pytest.mark.worker


def test_cycle_ends_with_full_report(start_worker: StartWorker, tmp_path: Path, tiny_model: Path) -> None:
    """Hello first, progress in between, one report last, every check passed, and the adapter by peft's names."""
    ended = start_worker()
    report = ended.last
    assert isinstance(ended.messages[0], Hello)
    assert isinstance(report, Report), report
    assert ended.exit_code == 0
    assert [(check.name, check.passed) for check in report.checks] == [
        ("supervised_tokens", True),
        ("adapter_changed", True),
        ("reload_matches", True),
        ("losses_finite", True),
    ]
    assert (report.trained, report.replayed, report.held_out) == (6, 0, 2)
    assert report.train_after < report.train_before
    assert report.holdout_base == report.holdout_before
    assert [pair.id for pair in report.holdout] == ["e6", "e7"]
    assert [reply.prompt for reply in report.replies] == ["Who is number 6?", "Who is number 7?"]
    assert report.lora_shape == "r4:down_proj,gate_proj,k_proj,o_proj,q_proj,up_proj,v_proj"
    assert report.steps == 4
    assert report.avg_salience == pytest.approx(0.55)
    assert {file.name for file in (tmp_path / "staging").iterdir()} == {
        "work",
        "adapter_model.safetensors",
        "adapter_config.json",
        "replies.json",
        "fingerprint.json",
    }
    config = json.loads((tmp_path / "staging/adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == str(tiny_model)
    phases = list(dict.fromkeys(m.phase for m in ended.messages if isinstance(m, Progress)))
    assert phases == ["loading", "preparing", "measuring", "training", "saving", "evaluating", "fingerprinting"]
    training = [m for m in ended.messages if isinstance(m, Progress) and m.phase == "training"]
    assert [m.step for m in training if m.loss is not None][-1] == report.steps
    assert training[-1].eta_seconds is not None


def test_sigterm_stops_a_training(start_worker: StartWorker, tmp_path: Path) -> None:
    """The last message says stopped, the exit code is 0, and no adapter is left; the training would take minutes."""
    ended = start_worker(stop_at_step=3, strategy=quick(epochs=5000))
    assert isinstance(ended.last, Failure)
    assert ended.last.kind == "stopped"
    assert ended.exit_code == 0
    assert not (tmp_path / "staging/adapter_model.safetensors").exists()


def test_worker_leaves_after_daemon(start_worker: StartWorker) -> None:
    """A closed socket ends a long training at its next message."""
    ended = start_worker(die_at_step=3, strategy=quick(epochs=5000))
    assert ended.exit_code == 1


def test_an_unreadable_job_is_a_failure(tmp_path: Path) -> None:
    """No job file and a broken one are bad_job, without a traceback."""
    (tmp_path / "work").mkdir()
    assert run_process(tmp_path).last.kind == "bad_job"
    (tmp_path / "work/job.json").write_text("{}")
    (tmp_path / "work/experiences.jsonl").write_text("")
    assert run_process(tmp_path).last.kind == "bad_job"


@pytest.mark.model
@pytest.mark.measured
def test_asking_gives_one_reply_a_question(tiny_model: Path, models: Path, tmp_path: Path) -> None:
    """Stdout holds a JSON list and nothing else."""
    questions = tmp_path / "questions.json"
    questions.write_text('["Who are you?", "What is a river, and where does it end?"]')
    command = [sys.executable, "-m", "sleepd.worker.programs.ask", "--base", tiny_model, "--models", models]
    command += ["--questions", questions]
    done = subprocess.run(command, capture_output=True, check=True)
    replies = json.loads(done.stdout)
    assert [type(one) for one in replies] == [str, str]
