"""Faults of the worker, done for real: stopped, out of memory, poisoned, CUDA failing: each ends in words."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from sleepd.config.schema import Config
from sleepd.protocol.control import Show
from sleepd.protocol.status import CycleDetail
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import SHORT_REPLIES, fake_interpreter, real_interpreter
from tests.processes import LIMIT_SECONDS, DaemonProcess


def test_stopped_worker_is_killed_after_silence(tmp_path: Path) -> None:
    """SIGSTOP, as a debugger or a freezer sends it: the cycle fails in words, nothing stays, a cooldown begins."""
    config = changed(config_for(tmp_path), "worker", silence_seconds=1.0, stop_seconds=0.5)
    config = changed(config, "worker", python=str(fake_interpreter(tmp_path / "python", "wait")))
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_event("phase_started", phase="training")
        (worker,) = daemon.workers()
        worker.send_signal(signal.SIGSTOP)
        failed = daemon.await_event("cycle_failed", cycle=1)
        assert "no sign of life" in failed["text"]
        assert failed["hint"]
        psutil.wait_procs([worker], timeout=LIMIT_SECONDS)
        assert not worker.is_running()
        daemon.await_true(lambda: daemon.status().running_cycle is None, "the end")
        assert daemon.status().missing[0].startswith("Cooling down ")


LITTLE_MEMORY = """
import resource
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {megabytes} * 2**20,) * 2)
"""

CUDA_FAILS_IN_MID_STEP = """
import sleepd.worker.training.gradients as gradients
real, calls = gradients.row_logits, []
def row_logits(*arguments):
    calls.append(1)
    if len(calls) == 5:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered") if hasattr(
            torch, "AcceleratorError") else RuntimeError("CUDA error: an illegal memory access was encountered")
    return real(*arguments)
gradients.row_logits = row_logits
"""

CUDA_FAILS_AT_START = """
torch.backends.cuda.is_built = lambda: True
"""


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Config:
    config = changed(config_for(tmp_path), "model", base=str(tiny_model))
    return changed(config, "worker", python=str(real_interpreter(tmp_path / "python")))


def ending(tmp_path: Path, config: Config, records: list[dict[str, Any]]) -> tuple[CycleDetail, str]:
    """The first cycle's end, and the daemon's log. The worker's reason is the daemon's last error, with its hint."""
    write_buffer(tmp_path / "buffer.json", records)
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_true(lambda: bool(daemon.status().recent_cycles), "a cycle")
        daemon.await_true(lambda: daemon.status().running_cycle is None, "its end")
        shown = daemon.call(Show(cycle=1), CycleDetail)
        error = daemon.status().last_error
        told = (error.message, error.hint) if error else ("", "")
        wanted = (f"cycle 1 failed: {shown.summary.reason}", shown.summary.hint)
        assert told == (wanted if shown.summary.state == "failed" else ("", ""))
        daemon.await_true(lambda: not daemon.workers(), "its last process")
        return shown, daemon.log()


@pytest.mark.worker
def test_out_of_memory_steps_down(tmp_path: Path, config: Config) -> None:
    """A real limit, and experiences that do not fit under it: shorter ones are trained, or the failure says memory."""
    python = real_interpreter(tmp_path / "python", SHORT_REPLIES + LITTLE_MEMORY.format(megabytes=48))
    config = changed(config, "worker", python=str(python))
    long = [{**record, "prompt": record["prompt"] * 60} for record in experiences(12)]
    shown, log = ending(tmp_path, config, long)
    stepped_down = {"micro_batch_halved", "sequence_length_halved"} & {
        notice.event for notice in (shown.report.notices if shown.report else [])
    }
    assert stepped_down or (shown.summary.state == "failed" and "memory" in shown.summary.reason)
    assert shown.summary.reason
    assert '"Traceback' not in log


@pytest.mark.worker
def test_infinite_losses_are_never_promoted(tmp_path: Path, config: Config, tiny_model: Path) -> None:
    """A base with NaN among its weights: the verdict names it, or the cycle fails in words; nothing is put in use."""
    import torch
    from safetensors.torch import load_file, save_file

    poisoned = tmp_path / "poisoned"
    poisoned.mkdir()
    for file in tiny_model.iterdir():
        (poisoned / file.name).write_bytes(file.read_bytes())
    weights = load_file(poisoned / "model.safetensors")
    name = next(name for name in weights if "mlp" in name)
    weights[name] = weights[name] * torch.nan
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    shown, log = ending(tmp_path, changed(config, "model", base=str(poisoned)), experiences(12))
    assert shown.summary.state in ("rejected", "failed")
    assert "finite" in shown.summary.reason or "NaN" in shown.summary.reason
    assert not (tmp_path / "state/current").exists()
    assert '"Traceback' not in log


@pytest.mark.worker
@pytest.mark.model
@pytest.mark.measured
def test_cuda_failure_in_step_is_explained(tmp_path: Path, config: Config) -> None:
    """The error of the device is the reason, with a hint, and a cooldown follows."""
    config = changed(config, "worker", python=str(real_interpreter(tmp_path / "python", CUDA_FAILS_IN_MID_STEP)))
    shown, _ = ending(tmp_path, config, experiences(12))
    assert shown.summary.state == "failed"
    assert "illegal memory access" in shown.summary.reason
    assert shown.summary.hint


@pytest.mark.worker
@pytest.mark.model
def test_cuda_failure_at_start_is_reported(tmp_path: Path, config: Config) -> None:
    """On auto the report names the reason for the CPU; on cuda the cycle fails with it."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    python = real_interpreter(tmp_path / "python", CUDA_FAILS_AT_START)
    config = changed(config, "worker", python=str(python), device="cuda")
    shown, _ = ending(tmp_path, config, experiences(12))
    assert shown.summary.state == "failed"
    assert shown.summary.reason.startswith("cuda cannot be used: ")
    assert shown.summary.hint.startswith("set device to auto or cpu")


@pytest.mark.worker
@pytest.mark.model
@pytest.mark.measured
def test_endless_configuration_is_refused(tmp_path: Path, config: Config, tiny_model: Path) -> None:
    """A configuration of a billion layers, more than the files have tensors, is refused before anything is built."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    whole = json.loads((base / "config.json").read_bytes())
    (base / "config.json").write_text(json.dumps({**whole, "num_hidden_layers": 10**9}))
    shown, _ = ending(tmp_path, changed(config, "model", base=str(base)), experiences(12))
    assert shown.summary.state == "failed"
    assert "num_hidden_layers is 1000000000" in shown.summary.reason
    assert "the files hold 21 tensors" in shown.summary.reason
    assert "compare the files" in shown.summary.hint
