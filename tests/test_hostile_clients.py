"""Hostile clients of a real daemon: a sample of what ``tests/faults/hostile_clients.py`` does for longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agents import config_for, experiences, write_buffer
from tests.faults.hostile_clients import KINDS, attack
from tests.processes import DaemonProcess


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon meets all of them."""
    directory = tmp_path_factory.mktemp("clients")
    write_buffer(directory / "buffer.json", experiences(3))
    with DaemonProcess(directory, config_for(directory, min_experiences=1000)) as daemon:
        daemon.await_true(lambda: daemon.counts(3), "all that it holds open for good")
        yield daemon


@pytest.mark.parametrize("kind", KINDS)
def test_other_clients_are_answered_meanwhile(daemon: DaemonProcess, kind: str) -> None:
    """Status is answered each time, the descriptors are back afterwards, memory stays bounded, no traceback."""
    result = attack(daemon, kind, seconds=1.5, scale=0.5)
    assert result.asked > 0
    assert result.refused == 0
    assert result.left_descriptors <= 0
    assert result.grown_bytes < 64 * 2**20
    assert "Traceback" not in daemon.log()
