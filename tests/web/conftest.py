"""The page as a process of its own, before a fake daemon on a short socket path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.web.browser import Browser
from tests.web.pages_daemon import answer_pages, history
from tests.web.web_process import WebProcess


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A socket's path may have 107 bytes; pytest's own directories may be longer."""
    with tempfile.TemporaryDirectory(prefix="web") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def daemon(directory: Path) -> Iterator[FakeDaemon]:
    """Answers every page with hostile texts."""
    fake = FakeDaemon(directory / "sleepd.sock")
    answer_pages(fake, cycles=history(60))
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def site(directory: Path, daemon: FakeDaemon) -> Iterator[WebProcess]:
    """The page on that daemon, with a login."""
    with WebProcess(directory, daemon.path) as process:
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One window for all tests of a file."""
    with Browser() as opened:
        yield opened
