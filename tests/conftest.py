"""What tests of several folders share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from sleepd.quarantine import keeper

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
"""The same examples in every run, however slow the machine; ``--hypothesis-profile default`` looks for new ones."""

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts."""

keeper.PATIENCE_SECONDS = 50.0
"""A look in the tests' own process waits for a loaded machine's screening; the daemons they start wait as shipped."""


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    """Who sends the log elsewhere, as ``SleepScheduler`` does, does so for one test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny random Llama."""
    pytest.importorskip("torch")
    from sleepd.worker.programs.tiny_model import make_tiny_model

    directory = tmp_path_factory.mktemp("tiny")
    make_tiny_model(directory)
    return directory
