"""`journalctl -x` explains what an owner acts on, with the command to type next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sleepd.log import MESSAGE_IDS
from tests.system.layers import Layers, temporary
from tests.system.machine import Machine
from tests.system.scenes import BUFFER, begin_service, configure, fake_worker, write_buffer


@pytest.fixture(scope="module")
def machine_with_trouble(layers: Layers, installed: Path) -> Iterator[Machine]:
    """A machine on which a cycle failed, one was rejected, the disk was full and the buffer unreadable."""
    with temporary() as directory, layers.machine([installed], directory) as machine:
        begin_service(machine, worker={"python": fake_worker(machine, "fail")})
        write_buffer(machine, 16)
        machine.await_event("cycle_failed")
        start_again(machine, worker={"python": fake_worker(machine, "reject")}, triggers={"cooldown_seconds": 0.0})
        machine.await_event("candidate_rejected")
        start_again(machine, state={"min_free_megabytes": 10**9})
        machine.await_event("disk_full")
        machine.run("chmod", "0600", BUFFER, user="user")
        start_again(machine)
        machine.await_event("buffer_unreadable")
        yield machine


def start_again(machine: Machine, **sections: dict[str, object]) -> None:
    """With another configuration."""
    configure(machine, **sections)
    machine.run("systemctl", "restart", "sage-sleepd")


NEXT = {
    "cycle_failed": "sleepctl doctor",
    "candidate_rejected": "sleepctl show 2",
    "disk_full": "sleepctl prune --dry-run",
    "buffer_unreadable": "sleepctl setup-buffer",
}


@pytest.mark.parametrize("event", NEXT)
def test_journalctl_x_explains(machine_with_trouble: Machine, event: str) -> None:
    """The journal's line has an explanation under it, with the next command, and its own words filled in."""
    machine = machine_with_trouble
    (line, *_) = machine.events(event)
    assert line["MESSAGE_ID"] == MESSAGE_IDS[event]
    said = machine.run("journalctl", "-x", "--no-pager", f"MESSAGE_ID={MESSAGE_IDS[event]}").stdout
    assert "Subject: " in said
    assert NEXT[event] in said
    assert line["SLEEPD_TEXT"].split(";")[0] in said
    assert "@SLEEPD" not in said
