"""What tests of several folders share."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

sys.path.append(str(Path(__file__).parents[1]))  # for ``tests``; it is the last, so ``sleepd`` is the installed one

from sleepd.cycles.running import runner
from sleepd.quarantine import keeper
from tests.in_process import screened_here, worker_here

ROOT = Path(__file__).parents[1]

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
"""The same examples in every run, however slow the machine; ``--hypothesis-profile default`` looks for new ones."""

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts."""

LONG_TESTS = frozenset(
    f"tests/{name}.py"
    for name in (
        "test_whole_life",
        "test_worker_faults",
        "test_worst_texts",
        "test_crash_sweep",
        "test_benches",
        "test_demo",
        "worker/test_evaluation",
        "worker/test_resume",
    )
)
"""Files whose tests take long and share next to nothing."""

ENVIRONMENT_OF_COVERAGE = "COVERAGE_PROCESS_CONFIG"
"""Where a process that a test starts learns that it is measured."""

keeper.PATIENCE_SECONDS = 50.0
"""A look in the tests' own process waits for a loaded machine's screening; the daemons they start wait as shipped."""


def modules(package: Path) -> dict[Path, bytes]:
    """The source of each module below that folder."""
    return {path.relative_to(package): path.read_bytes() for path in package.rglob("*.py")}


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to test where the processes that tests start import another ``sleepd`` than that of this checkout."""
    if hasattr(session.config, "workerinput"):
        return
    command = [sys.executable, "-P", "-c", "import sleepd; print(sleepd.__path__[0])"]
    installed = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    if not installed or modules(Path(installed)) != modules(ROOT / "sleepd"):
        found = f"another one in {installed}" if installed else "none"
        message = f"expected the installed sleepd to be that of this checkout, found {found}"
        raise pytest.UsageError(f"{message}\nhint: start the tests with ./install.sh test, or pip install -e .")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Say which tests stay in one process of several: those of a file, which share fixtures.

    The machines of ``tests/system`` are one group, for their disks are made once. What takes long and shares nothing is
    a group of its own. This is not ``--dist loadgroup``: with pytest 9.2, xdist 3.8 forgets the groups in silence.
    Groups begin in the order in which they were collected; xdist would begin with those of most tests, and a long test
    by itself would begin last, beside a process that has nothing left to do.
    """
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            if path.startswith("tests/system/"):
                return "tests/system"
            return nodeid if path in LONG_TESTS else path

    return Scheduling(config, log)


def urgency(item: pytest.Item) -> int:
    """When a test begins: what takes longest begins first."""
    path = item.nodeid.partition("::")[0]
    is_long = path in LONG_TESTS or path.startswith("tests/system/")
    return 2 if not is_long else 0 if is_unmeasured(item) else 1


def is_unmeasured(item: pytest.Item) -> bool:
    """Whether it is of the tiers that run without a measurement of coverage, which slows a worker down by half."""
    if item.get_closest_marker("measured"):
        return False
    return any(item.get_closest_marker(tier) for tier in ("model", "system"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, and leave out of the measurement what is not measured."""
    items.sort(key=urgency)
    if config.pluginmanager.hasplugin("_cov"):
        for item in filter(is_unmeasured, items):
            item.add_marker("no_cover")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spare every later garbage collection what the tests' modules have imported; a cycle collects in each phase."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Remove what a killed process has half written of its coverage, before pytest-cov puts all of it together."""
    result = yield
    if not hasattr(session.config, "workerinput"):
        for path in ROOT.glob(".coverage.*"):
            if not is_whole(path):
                path.unlink()
    return result


def is_whole(path: Path) -> bool:
    """Whether coverage can read that file of its own."""
    from coverage import CoverageData
    from coverage.exceptions import CoverageException

    try:
        CoverageData(str(path)).read()
    except CoverageException:
        return False
    return True


@pytest.fixture(autouse=True)
def unmeasured_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a test that is not measured are not measured either."""
    if is_unmeasured(request.node):
        monkeypatch.delenv(ENVIRONMENT_OF_COVERAGE, raising=False)


@pytest.fixture(autouse=True)
def without_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sleeper in the tests' own process screens there, and runs the fake worker there; see the marker."""
    if request.node.get_closest_marker("processes") is None:
        monkeypatch.setattr(keeper, "screened", screened_here)
        monkeypatch.setattr(runner, "Worker", worker_here)


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    """Who sends the log elsewhere, as ``SleepScheduler`` does, does so for one test."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users may enter; they may not enter those of ``tmp_path``."""
    with tempfile.TemporaryDirectory(prefix="open") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny random Llama."""
    pytest.importorskip("torch")
    from sleepd.worker.programs.tiny_model import make_tiny_model

    directory = tmp_path_factory.mktemp("tiny")
    make_tiny_model(directory)
    return directory


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(directory)], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)
