"""Tests of llama-server in a unit of systemd's: a fake systemctl restarts the fake server."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleepd.config.serve_config import ENVIRONMENT_FILE
from tests.serving.fake_engines import FakeEngine
from tests.serving.serving_stage import ServingStage, fake_gguf, sleep_with_engine

SYSTEMCTL = """#!/bin/sh
echo "$@" >>{log}
. {fault}
cat {environment} >{started}
"""


class RestartedServer(FakeEngine):
    """Runs what its environment file said when it was restarted last."""

    def __init__(self, started: Path) -> None:
        super().__init__()
        self.started = started

    def runs(self, model: str) -> int | None:
        words = self.started.read_text().partition("=")[2].split()
        return int(Path(words[1]).read_text()) if words else None


@pytest.fixture
def stage(tmp_path: Path, two_champions: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServingStage]:
    """Two champions, and a unit whose server runs the base."""
    monkeypatch.setattr("sleepd.serving.serve_process.prepared_gguf", fake_gguf)
    shutil.copytree(two_champions, tmp_path, dirs_exist_ok=True, symlinks=True)
    (tmp_path / "fault").touch()
    (tmp_path / "started").touch()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    environment = tmp_path / "state" / "serving" / ENVIRONMENT_FILE
    places = {name: tmp_path / name for name in ("log", "fault", "started")}
    systemctl.write_text(SYSTEMCTL.format(environment=environment, **places))
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    with RestartedServer(tmp_path / "started") as server:
        yield ServingStage(tmp_path, server, "llama-restart", unit="llama.service", ready_seconds=1.0)


def test_unit_is_restarted_with_the_adapter(stage: ServingStage) -> None:
    """The champion, then the base: one restart of that unit each, and no request that changes adapters."""
    assert stage.turns().served == 2
    stage.roll_back(0)
    state = stage.turns()
    assert (state.served, state.is_proved) == (None, True)
    log = (stage.directory / "log").read_text().splitlines()
    assert log == ["--no-ask-password restart llama.service"] * 2
    assert "/lora-adapters" not in stage.engine.paths()


def test_refused_restart_names_the_way_out(stage: ServingStage) -> None:
    """Where the service's user may not restart the unit, the hint is the command that allows it."""
    (stage.directory / "fault").write_text("echo 'Access denied' >&2; exit 4\n")
    state = stage.turns()
    assert re.search(r"llama\.service .* 4: Access denied$", state.problem)
    assert state.hint == "sudo sleepctl setup-serve"


def test_command_restarts_where_no_unit_is(stage: ServingStage) -> None:
    """Without a unit the operator's own command restarts the server; no systemctl is asked, and no GPU freed."""
    environment, started = stage.state / "serving" / ENVIRONMENT_FILE, stage.directory / "started"
    stage.configure(unit="", command=f"sh -c 'cat {environment} >{started}; test -f $SLEEPD_ADAPTER'")
    assert stage.turns().served == 2
    assert not (stage.directory / "log").exists()

    stage.configure(free_before_training=True)
    seen, state = sleep_with_engine(stage, lambda: False)
    assert (seen != [], state.served, state.is_proved) == (True, 3, True)
    assert not (stage.directory / "log").exists()


def test_server_that_is_down_is_started(stage: ServingStage) -> None:
    """A server that does not answer is restarted with the champion, where a request could not reach it."""
    stage.engine.on_request = lambda _method, path: None
    stage.engine.status = 503
    (stage.directory / "fault").write_text(f"touch {stage.directory}/up\n")

    def look(_method: str, _path: str) -> None:
        if (stage.directory / "up").exists():
            stage.engine.status = 200

    stage.engine.on_request = look
    assert stage.turns().served == 2
