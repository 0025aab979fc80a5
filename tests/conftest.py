"""What tests of several folders share."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from sleepd.cycles import runner
from sleepd.quarantine import keeper
from tests.in_process import screened_here, worker_here

TESTS = Path(__file__).parent

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
"""The same examples in every run, however slow the machine; ``--hypothesis-profile default`` looks for new ones."""

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts."""

keeper.PATIENCE_SECONDS = 50.0
"""A look in the tests' own process waits for a loaded machine's screening; the daemons they start wait as shipped."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests stay in one process of several (``--dist loadgroup``): those of a file, which share fixtures.

    The machines of ``system`` are one group, for their disks are made once. A test elsewhere that starts a real worker
    takes long and shares nothing, so it is a group of its own.
    """
    for item in items:
        folder = item.path.parent.name
        if folder == "system":
            item.add_marker(pytest.mark.xdist_group("system"))
        elif folder == "worker" or item.get_closest_marker("worker") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(TESTS))))


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
