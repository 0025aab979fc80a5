"""The report of a real daemon's cycle, live and after the daemon has stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import fake_interpreter
from tests.processes import LIMIT_SECONDS, DaemonProcess

Sleepctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def daemon(short_directory: Path) -> Iterator[DaemonProcess]:
    """A daemon with one promoted cycle."""
    config = config_for(short_directory)
    config = changed(config, "worker", python=str(fake_interpreter(short_directory / "worker", "promote")))
    write_buffer(short_directory / "buffer.json", experiences(12))
    with DaemonProcess(short_directory, config) as daemon:
        daemon.await_event("candidate_promoted", cycle=1)
        daemon.await_true(lambda: daemon.status().running_cycle is None, "its end")
        yield daemon


@pytest.fixture
def sleepctl(daemon: DaemonProcess) -> Sleepctl:
    """Runs the command line on that daemon's configuration."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sleepd.sleepctl", "--config", str(daemon.config_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)

    return run


def test_live_and_offline_reports_agree(daemon: DaemonProcess, sleepctl: Sleepctl) -> None:
    """Verdict, figures, texts and the way back come from the socket, and without it from the files."""
    live = sleepctl("report", "--json")
    assert live.returncode == 0, live.stderr
    plain = sleepctl("report")
    assert plain.stdout.startswith("Cycle 1: promoted, in use")
    assert "\x1b" not in plain.stdout
    daemon.process.terminate()
    daemon.process.wait()
    down = sleepctl("report", "--json")
    assert down.returncode == 3
    one, other = json.loads(live.stdout), json.loads(down.stdout)
    assert one["learned"] == other["learned"]
    assert len(one["learned"]["experiences"]) == len(one["cycle"]["trained_ids"]) > 5
    for told in (one, other):
        for name in ("trained_ids", "replayed_ids", "held_out_ids"):
            told["cycle"][name].sort()
    assert one["cycle"]["undo"] == "sleepctl rollback 0"
    assert one["cycle"] == other["cycle"]
    assert (one["is_live"], other["is_live"]) == (True, False)


def test_the_command_that_undoes_it_does(daemon: DaemonProcess, sleepctl: Sleepctl) -> None:
    """Typed as it stands on the page; the report then says that there is nothing to undo."""
    command = json.loads(sleepctl("show", "1", "--json").stdout)["undo"]
    assert f"To undo it\n  {command}\n" in sleepctl("report").stdout
    program, *arguments = command.split()
    assert program == "sleepctl"
    assert sleepctl(*arguments).returncode == 0
    report = sleepctl("report", "1").stdout
    assert report.startswith("Cycle 1: rolled back")
    assert "To undo it\n  nothing to undo" in report
