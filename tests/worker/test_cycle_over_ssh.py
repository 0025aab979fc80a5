"""The real worker on a tiny model, on a host that is reached by the real ssh."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from sleepd.cycles.running.worker_engine import engine_command
from sleepd.cycles.running.worker_process import Worker, WorkerPolicy
from sleepd.protocol.job import Notice, Progress, Report, encode
from tests.fakes import real_interpreter
from tests.loopback_ssh import SSHD, TwoMachines

from .conftest import examples, make_job

pytestmark = [pytest.mark.worker, pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed")]


@pytest.mark.model
@pytest.mark.measured
def test_real_cycle_runs_on_the_host(tiny_model: Path, models: Path, tmp_path: Path) -> None:
    """Both machines name the base's fingerprint by themselves, the host trains, and the whole checkpoint is here."""
    real_interpreter(tmp_path / "real")
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *identify*) exec {sys.executable} "$@" ;; *) exec {tmp_path / "real"} "$@" ;; esac\n'
    )
    python.chmod(0o755)
    pair = TwoMachines(tmp_path, python, str(tiny_model))
    staging = tmp_path / "staging"
    job = make_job(tiny_model, models, staging)
    (staging / "work" / "job.json").write_bytes(encode(job))
    (staging / "work" / "experiences.jsonl").write_bytes(b"".join(map(encode, examples())))
    heard: list[Progress | Notice] = []
    policy = WorkerPolicy(command=engine_command(pair.home), silence_seconds=120.0, stop_seconds=10.0)
    report = asyncio.run(Worker(policy, heard.append).run(staging))
    assert isinstance(report, Report), report
    assert (report.trained, report.held_out, report.host) == (6, 2, "thor")
    assert all(check.passed for check in report.checks)
    names = {"work", "adapter_model.safetensors", "adapter_config.json", "replies.json", "fingerprint.json"}
    assert {file.name for file in staging.iterdir()} == names
    phases = list(dict.fromkeys(m.phase for m in heard if isinstance(m, Progress)))
    assert phases == ["loading", "preparing", "measuring", "training", "saving", "evaluating", "fingerprinting"]
