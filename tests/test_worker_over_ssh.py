"""The engine ``ssh`` with the real ssh and sshd, a forced command, and the programs as the daemon starts them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from sleepd.config.render import render
from sleepd.cycles.remote import check_host
from sleepd.cycles.running.worker_engine import engine_command
from sleepd.cycles.running.worker_process import Worker, WorkerPolicy
from sleepd.protocol.host_check import HostCheck
from sleepd.protocol.job import Notice, Progress, Report
from sleepd.protocol.remote_job import MachineIdentity
from sleepd.version import VERSION
from tests.fakes import fake_interpreter
from tests.loopback_ssh import SSHD, TwoMachines
from tests.test_worker_host import staging

__all__ = ["staging"]
pytestmark = pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed")


def fake_python(path: Path) -> Path:
    """The worker's interpreter on both machines: it knows a base, sees no GPU, and trains until it is let go."""
    identity = msgspec.json.encode(MachineIdentity(version=VERSION, code="0123456789abcdef", base="base-1")).decode()
    capability = json.dumps({"version": VERSION, "device": "cpu", "dtype": "float32"})
    fake_interpreter(path.with_name("waiting"), "wait")
    path.write_text(
        f"#!/bin/sh\ncase \"$*\" in\n*identify*) echo '{identity}' ;;\n*probe*) echo '{capability}' ;;\n"
        f'*) exec {path.with_name("waiting")} "$@" ;;\nesac\n'
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> TwoMachines:
    """Two machines with fake workers."""
    return TwoMachines(tmp_path, fake_python(tmp_path / "python"), "/my/base")


def kill_ssh(parent: int) -> None:
    """Kill every ssh below a process, as a line that breaks would."""
    for child in map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()):
        if Path(f"/proc/{child}/comm").read_text().strip() == "ssh":
            os.kill(child, signal.SIGKILL)
        else:
            kill_ssh(child)


def test_cycle_outlives_a_broken_ssh(pair: TwoMachines, staging: Path) -> None:
    """A job goes over ssh to a forced command, ssh is killed in the midst of it, and the report comes home.

    1. The worker on the host trains; ssh is killed.
    2. The line is opened again, the same job goes on, and is let come to its end.
    Result: the report, measured on thor; the adapter is in the staging directory; the host keeps nothing.
    """
    heard: list[Progress | Notice] = []

    def listen(message: Progress | Notice) -> None:
        heard.append(message)
        if isinstance(message, Progress) and message.phase == "training":
            steps = [each for each in heard if isinstance(each, Progress) and each.phase == "training"]
            if len(steps) == 1:
                kill_ssh(os.getpid())
            elif [each for each in heard if isinstance(each, Notice)]:
                (work,) = pair.host_state.glob("hosted/*/run/work")
                (work / "go").touch()

    policy = WorkerPolicy(command=engine_command(pair.home), silence_seconds=60.0, stop_seconds=10.0)
    outcome = asyncio.run(Worker(policy, listen).run(staging))
    assert isinstance(outcome, Report), outcome
    assert outcome.host == "thor"
    assert [each.event for each in heard if isinstance(each, Notice)] == ["host_line_broken"]
    assert (staging / "adapter_model.safetensors").read_bytes() == b"weights of cycle 1"
    assert [path.name for path in (pair.host_state / "hosted").iterdir()] == ["lock"]


def test_check_says_what_is_there(pair: TwoMachines) -> None:
    """The check reaches the host, finds the key confined, and names the GPU that is missing."""
    found = asyncio.run(check_host.check(pair.home, is_direct=False))
    assert [(each.name, each.level) for each in found.findings] == [
        ("line", "PASS"),
        ("same", "PASS"),
        ("device", "WARN"),
        ("disk", "PASS"),
    ]


def test_check_names_a_missing_key(
    pair: TwoMachines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host that lets no key of this machine in is told with what ssh says, and with the next step."""
    (pair.place / "ssh" / "authorized_keys").write_text("")
    (pair.place / "home.toml").write_text(render(pair.home, title="home"))
    monkeypatch.setattr(sys, "argv", ["check_host", "--config", str(pair.place / "home.toml"), "--host", "thor"])
    assert check_host.main() == 0
    (finding,) = msgspec.json.decode(capsys.readouterr().out, type=HostCheck).findings
    assert (finding.level, "Permission denied" in finding.text) == ("FAIL", True)
    assert "authorized_keys" in finding.hint
