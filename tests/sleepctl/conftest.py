"""A fake daemon on a short socket path, and ``sleepctl`` called in this process, with nothing else in reach."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sleepd.sleepctl.__main__ import main
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A socket's path may have 107 bytes; pytest's own directories may be longer."""
    with tempfile.TemporaryDirectory(prefix="ctl") as name:
        yield Path(name)


@pytest.fixture
def environment(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which no daemon and no configuration is found; returns the home directory."""
    for name in ("SLEEPD_CONFIG", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_CONFIG_HOME", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(short_directory))
    monkeypatch.setenv("SLEEPD_SOCKET", str(short_directory / "sleepd.sock"))
    monkeypatch.setenv("TZ", "UTC")
    return short_directory


@pytest.fixture
def daemon(environment: Path) -> Iterator[FakeDaemon]:
    """A fake daemon where ``$SLEEPD_SOCKET`` points."""
    fake = FakeDaemon(environment / "sleepd.sock")
    yield fake
    fake.close()


@pytest.fixture
def sleepctl(environment: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Calls the command line with these arguments."""

    def call(*arguments: str) -> Ran:
        try:
            code = main(list(arguments))
        except SystemExit as left:  # argparse leaves this way
            code = left.code if isinstance(left.code, int) else 1
        out, err = capsys.readouterr()
        return Ran(int(code), out, err)

    return call


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Permissions bind: root gives up its own for the test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
