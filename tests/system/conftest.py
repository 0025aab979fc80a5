"""The machines of the system tests: made once, then laid under a fresh disk for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.system.layers import KEPT, ROOT, Layers, digest, made_once, temporary
from tests.system.machine import Machine
from tests.system.scenes import install, prepare_owner

PACKAGES = "systemd,systemd-sysv,libpam-systemd,dbus,python3,python3-venv,procps,sudo,cron"
TRIES = 3
"""A package mirror may fail for a moment, and every test here would fail with it."""
TORCH = "torch==2.13.0"
REQUIREMENTS = ROOT / "config" / "requirements"
LOCKED = ("build.txt", "web.txt", "worker.txt")
OF_A_CHECKOUT = ("pyproject.toml", "README.md", "LICENSE", "install.sh", "sleepd", "systemd", "config")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a machine."""
    reason = why_not()
    for item in items:
        if "tests/system/" in str(item.path):
            item.add_marker(pytest.mark.system)
            if reason:
                item.add_marker(pytest.mark.skip(reason=f"SYSTEM TESTS NOT RUN: {reason}"))


def why_not() -> str:
    """Why no machine can be booted here; empty: one can."""
    if os.geteuid() != 0:
        return "they need root, to boot a container"
    for program, package in (("systemd-nspawn", "systemd-container"), ("debootstrap", "debootstrap")):
        if not shutil.which(program) and not (program == "debootstrap" and list(KEPT.glob("tree-*.complete"))):
            return f"{program} is missing (apt install {package})"
    return ""


@pytest.fixture(scope="session")
def tree() -> Path:
    """A fresh Debian with systemd and Python."""

    def make(directory: Path) -> None:
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(directory)]
        for _ in range(TRIES):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                return
            shutil.rmtree(directory)
            directory.mkdir()
        pytest.fail(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")

    return made_once(KEPT / f"tree-{sha256(PACKAGES.encode()).hexdigest()[:8]}", make)


@pytest.fixture(scope="session")
def wheels(tree: Path) -> Path:
    """Every package that an installation fetches; the machines have no network."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (tree / "usr/bin" / version).exists():
        pytest.skip(f"SYSTEM TESTS NOT RUN: the machine has no {version} for which packages could be fetched here")
    locked = ["--require-hashes", "--no-deps", *(f"-r{ROOT / 'config' / 'requirements' / name}" for name in LOCKED)]
    content = b"".join((REQUIREMENTS / name).read_bytes() for name in LOCKED)

    def make(directory: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-input", "--dest", str(directory)]
        subprocess.run([*pip, *locked], check=True)
        subprocess.run([*pip, TORCH], check=True)

    return made_once(KEPT / f"wheels-{sha256(TORCH.encode() + content).hexdigest()[:8]}", make)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as an owner has it: without what tests and caches leave behind."""
    directory = tmp_path_factory.mktemp("checkout")
    directory.chmod(0o755)
    for name in OF_A_CHECKOUT:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, directory / name)
    return directory


@pytest.fixture(scope="session")
def layers(tree: Path, wheels: Path, source: Path) -> Layers:
    """What machines are made of."""
    shown = {"/checkout": source, "/wheels": wheels, "/tests": ROOT / "tests"}
    return Layers(tree, shown, digest(source))


@pytest.fixture(scope="session")
def installed(layers: Layers) -> Path:
    """The layer that ``install.sh`` adds to the tree, with what an owner has beside it: a model and an agent."""

    def make(machine: Machine) -> None:
        machine.write("/srv/install.out", install(machine))
        prepare_owner(machine)

    return layers.made("installed", [], make)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where a machine's disk lies."""
    with temporary() as directory:
        yield directory


@pytest.fixture
def machine(layers: Layers, installed: Path, scratch: Path) -> Iterator[Machine]:
    """A booted machine with sage-sleepd installed and not started, with a disk of its own."""
    with layers.machine([installed], scratch) as booted:
        yield booted


@pytest.fixture(scope="module")
def shared(layers: Layers, installed: Path) -> Iterator[Machine]:
    """As ``machine``, one for all tests of a module, which look at it or leave it as it was."""
    with temporary() as directory, layers.machine([installed], directory) as booted:
        yield booted
