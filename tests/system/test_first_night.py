"""From `systemctl enable --now` to the morning, on a booted machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.layers import Layers, temporary
from tests.system.machine import Machine
from tests.system.scenes import BUFFER, begin_service, drop_in, experiences, write_buffer


@pytest.fixture(scope="module")
def morning(layers: Layers, installed: Path) -> Iterator[Machine]:
    """A machine on which one cycle, with the real worker, is over."""
    with temporary() as directory, layers.machine([installed], directory) as machine:
        begin_service(machine)
        write_buffer(machine, 16)
        machine.await_event("decision_changed", should_sleep="True")
        machine.await_true(lambda: machine.status()["total_cycles"] == 1, "the first cycle to end")
        yield machine


def test_enable_now_waits_for_readiness(machine: Machine) -> None:
    """After `systemctl enable --now` the unit is active and enabled, and the socket answers at once."""
    begin_service(machine)
    assert machine.run("sleepctl", "version").returncode == 0
    assert machine.property("ActiveState") == "active"
    assert machine.run("systemctl", "is-enabled", "sage-sleepd").stdout.strip() == "enabled"
    told = machine.journal("-u", "sage-sleepd")
    started = next(i for i, line in enumerate(told) if line.get("SLEEPD_EVENT") == "started")
    active = next(
        i for i, line in enumerate(told) if line.get("JOB_TYPE") == "start" and line.get("JOB_RESULT") == "done"
    )
    assert started < active


def test_unit_is_active_after_ready(machine: Machine) -> None:
    """Systemd waits for READY: a daemon whose notifications do not arrive is not taken for one that is up."""
    daemon = "/opt/sage-sleepd/current/daemon/bin/sleepd --config /etc/sage-sleepd/config.toml"
    mute = f"/usr/bin/env -u NOTIFY_SOCKET {daemon}"
    drop_in(machine, f"[Service]\nExecStart=\nExecStart={mute}\nTimeoutStartSec=2\nRestart=no\n")
    with pytest.raises(AssertionError, match="timeout was exceeded"):
        begin_service(machine)
    assert machine.property("Result") == "timeout"


def test_systemctl_status_shows_our_sentence(morning: Machine) -> None:
    """`systemctl status` has the sentence that `sleepctl status` gives."""

    def is_shown() -> bool:
        sentence = morning.status()["sentence"]
        return f'Status: "{sentence}"' in morning.run("systemctl", "status", "sage-sleepd").stdout

    morning.await_true(is_shown, "systemd to have the sentence, which it is told once a second")
    assert "adapter" in morning.status()["sentence"] or "base model" in morning.status()["sentence"]


def test_journal_has_the_fields(morning: Machine) -> None:
    """`journalctl -u sage-sleepd -o json` has event, figures, priority and identifier of each line as fields."""
    told = morning.journal("-u", "sage-sleepd")
    (begun,) = [line for line in told if line.get("SLEEPD_EVENT") == "cycle_started"]
    assert begun["SLEEPD_CYCLE"] == "1"
    assert int(begun["SLEEPD_TRAINED"]) + int(begun["SLEEPD_HELD_OUT"]) == 16
    assert begun["PRIORITY"] == "6"
    assert begun["SYSLOG_IDENTIFIER"] == "sage-sleepd"
    assert begun["MESSAGE"].startswith("cycle started: cycle=1")
    assert begun["_SYSTEMD_UNIT"] == "sage-sleepd.service"
    ends = [line for line in told if line.get("SLEEPD_EVENT") in ("candidate_promoted", "candidate_rejected")]
    assert [line["SLEEPD_CYCLE"] for line in ends] == ["1"]
    assert [line for line in told if line.get("_COMM") == "sleepd" and "SLEEPD_EVENT" not in line] == []


def test_foreign_buffer_becomes_checkpoint(morning: Machine) -> None:
    """What a process of the agent's wrote in its closed home was trained, and the checkpoint says on what."""
    assert morning.run("stat", "-c", "%a %U", "/home/user").stdout.split() == ["700", "user"]
    assert morning.run("stat", "-c", "%U", BUFFER).stdout.strip() == "user"
    shown = morning.run("sleepctl", "show", "1", "--json").stdout
    detail = json.loads(shown)
    assert len(detail["trained_ids"]) + len(detail["held_out_ids"]) == len(experiences(16))
    assert detail["report"]["steps"] > 0
    files = {path.name for path in morning.path(detail["directory"]).iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "manifest.json", "lineage.json"} <= files


def test_rest_of_home_is_hidden(morning: Machine) -> None:
    """The drop-in of `setup-buffer` shows the buffer's directory to the daemon, and nothing else of the home."""
    morning.run("sh", "-c", "echo secret > /home/user/diary", user="user")
    pid = morning.property("MainPID")
    seen = morning.run("nsenter", "-t", pid, "-m", "find", "/home", "-type", "f").stdout.split()
    assert seen == [BUFFER]


def test_reboot_in_mid_cycle_is_resumed(machine: Machine) -> None:
    """A machine that is rebooted while a cycle trains goes on with that cycle after boot, and ends it."""
    begin_service(machine)
    write_buffer(machine, 40)
    machine.await_event("phase_started", phase="training")
    machine.reboot()
    machine.await_event("cycle_resumed", cycle="1")
    machine.await_true(lambda: machine.status()["total_cycles"] == 1, "the resumed cycle to end")
    assert machine.events("cycle_suspended")
    assert not machine.events("cycle_interrupted")
