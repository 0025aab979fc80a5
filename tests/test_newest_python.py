"""The service and ``sleepctl`` on the newest Python of this machine, from the wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sleepd.sleepctl.exit_codes import ExitCode
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import fake_interpreter
from tests.processes import DaemonProcess
from tests.wheels import ROOT, build_wheel

pytestmark = pytest.mark.model


def newer_pythons() -> list[Path]:
    """Every Python above this one that starts, the newest first; those in PATH, and those of pyenv."""
    folders = [Path(each) for each in os.environ["PATH"].split(os.pathsep)]
    folders += (Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions").glob("*/bin")
    minors = {}
    for path in (path for folder in folders for path in folder.glob("python3.*")):
        named = re.fullmatch(r"python3\.(\d+)", path.name)
        if named and int(named[1]) > sys.version_info.minor:
            minors[path] = int(named[1])
    return [path for path in sorted(minors, key=lambda each: minors[each], reverse=True) if makes_environments(path)]


def makes_environments(python: Path) -> bool:
    """Whether it starts, which a program of pyenv may not, and has what an environment needs."""
    return subprocess.run([python, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL).returncode == 0


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment of the newest Python with the service, without the worker's packages."""
    newer = newer_pythons()
    if not newer:
        pytest.skip(f"no Python above 3.{sys.version_info.minor} is here")
    directory = tmp_path_factory.mktemp("newest")
    subprocess.run([newer[0], "-m", "venv", str(directory / "env")], check=True)
    interpreter = directory / "env" / "bin" / "python"
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"]
    subprocess.run([*install, "--require-hashes", "-r", str(ROOT / "config/requirements/daemon.txt")], check=True)
    subprocess.run([*install, str(build_wheel(directory))], check=True)
    return interpreter


@pytest.mark.parametrize("module", ["sleepd", "sleepd.sleepctl"])
def test_programs_start_there(python: Path, module: str) -> None:
    """Each program loads without a warning, and prints its help."""
    done = subprocess.run([python, "-W", "error", "-P", "-m", module, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout[:6]) == (0, "", "usage:")


def test_configuration_is_read_there(python: Path, tmp_path: Path) -> None:
    """A configuration that names a buffer is correct; one with an unknown key ends with the exit code 9 and the key."""
    path = tmp_path / "config.toml"
    command = [python, "-P", "-m", "sleepd.sleepctl", "config", "check", str(path)]
    path.write_text((ROOT / "config" / "config.toml").read_text().replace('path = ""', 'path = "/srv/buffer.json"', 1))
    assert subprocess.run(command, capture_output=True, text=True).returncode == ExitCode.OK
    path.write_text("[buffer]\npaht = 5\n")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, "buffer.paht" in done.stderr) == (ExitCode.CONFIG, True)


def test_a_cycle_runs_there(python: Path, tmp_path: Path) -> None:
    """The daemon and its processes take experiences from the buffer to an adapter in use."""
    config = changed(config_for(tmp_path), "worker", python=str(fake_interpreter(tmp_path / "worker", "promote")))
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, config, python=python) as daemon:
        daemon.await_event("candidate_promoted", cycle=1)
        assert daemon.sleepctl("status", "--json").returncode == ExitCode.OK
