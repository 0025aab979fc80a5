"""Tests of the serve process itself: started as a child, with the operator's own command, asked over its socket."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sleepd.errors import ConfigError
from sleepd.protocol.deployment.serve_messages import ServeRequest
from sleepd.serving.serve_client import ServeClient
from sleepd.serving.serve_process import CREDENTIAL, engine_key
from tests.kept import kept
from tests.serving.fake_engines import FakeEngine
from tests.serving.serving_stage import ServingStage

COMMAND = """
import os, pathlib, sys
assert os.environ["SLEEPD_MODEL"] == "agent"
pathlib.Path(sys.argv[1]).write_text(os.environ["SLEEPD_CYCLE"])
print(os.environ["SLEEPD_ADAPTER"])
"""


class CommandedEngine(FakeEngine):
    """Runs what the operator's command wrote into a file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def runs(self, model: str) -> int | None:
        assert model == self.model
        return int(self.file.read_text() or 0) or None


@pytest.fixture
def stage(tmp_path: Path, two_champions: Path) -> Iterator[ServingStage]:
    """Two champions, and an engine behind a command; the process is a real one."""
    shutil.copytree(two_champions, tmp_path, dirs_exist_ok=True, symlinks=True)
    runs, program = tmp_path / "runs", tmp_path / "put.py"
    runs.write_text("0")
    program.write_text(COMMAND)
    with CommandedEngine(runs) as engine:
        stage = ServingStage(tmp_path, engine, "command", command=f"{sys.executable} {program} {runs}")
        stage.ask = ServeClient(tmp_path / "absent.sock").ask  # type: ignore[method-assign]
        yield stage


def test_command_puts_the_champion_in(stage: ServingStage) -> None:
    """The operator's program is told the cycle, and what the engine then answers is the proof."""
    state = stage.turns()
    assert (state.problem, state.served, state.is_proved) == ("", 2, True)

    stage.roll_back(0)
    state = stage.turns()
    assert (state.served, state.is_proved, stage.engine.runs("agent")) == (None, True, None)


def test_command_that_does_nothing_is_found_out(stage: ServingStage) -> None:
    """A program that ends well and puts nothing in is not believed."""
    stage.configure(command="true")
    state = stage.turns()
    assert (state.wanted, state.served, state.is_proved) == (2, None, True)
    assert state.problem == kept("command-does-nothing", state.problem)


def test_command_that_fails_is_quoted(stage: ServingStage) -> None:
    """Exit status and last line of the program stand in the problem."""
    stage.configure(command="sh -c 'echo no such model; exit 3'")
    assert re.search(r"serve\.command .* 3: no such model$", stage.turns().problem)


def test_process_that_dies_is_no_proof(stage: ServingStage, tmp_path: Path) -> None:
    """A serve process that cannot be started, or ends without an answer, is an error that says so."""
    dead = ServeClient(tmp_path / "absent.sock", python="/bin/true")
    stage.ask = dead.ask  # type: ignore[method-assign]
    state = stage.turns()
    assert not state.is_proved
    assert state.problem.startswith("the serve process ")


def test_request_with_other_settings_is_refused(stage: ServingStage, tmp_path: Path) -> None:
    """With a configuration of its own the process speaks to that engine alone."""
    from sleepd.serving.serve_process import serve
    from tests.agents import write_config

    config = tmp_path / "config.toml"
    write_config(config, stage.config)
    settings = msgspec.to_builtins(msgspec.structs.replace(stage.config.serve, url="http://127.0.0.1:1"))
    request = ServeRequest(wanted=None, settings=settings, state_directory=str(stage.state), base="b", python="p")
    with pytest.raises(ConfigError, match="is not that of") as refused:
        serve(msgspec.json.encode(request), config, report=lambda _step: None, wait=lambda _seconds: True)
    assert refused.value.hint == "sleepctl reload"


def test_key_comes_from_file_or_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key file wins over systemd's credential; one that others may read is refused."""
    assert engine_key("") == ""
    (tmp_path / CREDENTIAL).write_text("of-systemd\n")
    (tmp_path / CREDENTIAL).chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert engine_key("") == "of-systemd"

    file = tmp_path / "key"
    file.write_text("mine")
    file.chmod(0o600)
    assert engine_key(str(file)) == "mine"
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="only its owner may read"):
        engine_key(str(file))
