"""What the service can reach, measured from inside it; what it costs when it needs too much."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sleepd.log import MESSAGE_IDS
from tests.system.layers import Layers, temporary
from tests.system.machine import Machine
from tests.system.scenes import (
    BUFFER,
    WORKER_PYTHON,
    begin_service,
    drop_in,
    install,
    write_buffer,
)

MOST_EXPOSED = 1.2
GOAL = 0.8
DAEMON_PYTHON = "/opt/sage-sleepd/current/daemon/bin/python"


def probe(machine: Machine, *program: str, name: str = "probe") -> dict[str, Any]:
    """What a program finds that is run under the unit in the service's place, with all its other settings."""
    place = f"/etc/systemd/system/sage-sleepd.service.d/99-{name}.conf"
    command = " ".join(program or (DAEMON_PYTHON, "/tests/system/probe.py"))
    machine.write(place, f"[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart={command}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "sage-sleepd")
    machine.path(place).unlink()
    machine.run("systemctl", "daemon-reload")
    found: dict[str, Any] = json.loads(machine.read(f"/var/lib/sage-sleepd/{name}.json"))
    return found


def make_nodes(machine: Machine) -> None:
    """The device nodes of an NVIDIA card, of the memory and of a disk; the kernel here may have none of them."""
    for name, kind, major, minor in (
        ("nvidiactl", "c", "195", "255"),
        ("probe-raw-memory", "c", "1", "1"),
        ("probe-disk", "b", "254", "0"),
    ):
        machine.run("sh", "-c", f"test -e /dev/{name} || mknod -m 0666 /dev/{name} {kind} {major} {minor}")


def show_driver(machine: Machine) -> None:
    """Let the machine's kernel list the driver, by whose names DeviceAllow= finds its devices."""
    title, _, rest = machine.read("/proc/devices").partition("\n")
    machine.write("/run/devices", f"{title}\n195 nvidia\n195 nvidiactl\n510 nvidia-uvm\n{rest}")
    machine.run("mount", "--bind", "/run/devices", "/proc/devices")


@pytest.fixture(scope="module")
def inside(layers: Layers, installed: Path) -> Iterator[dict[str, Any]]:
    """What the service finds on a machine without a GPU driver."""
    with temporary() as directory, layers.machine([installed], directory) as machine:
        make_nodes(machine)
        machine.run(
            "sh", "-c", "echo mine > /tmp/of-somebody; echo mine > /home/user/diary; cd /root; echo mine > diary"
        )
        machine.run("mkdir", "-p", "/home/user/buffers", user="user")
        machine.run("sleepctl", "setup-buffer", BUFFER)
        write_buffer(machine, 4)
        yield probe(machine)


def test_homes_are_empty_except_buffer(inside: dict[str, Any]) -> None:
    """Of all homes the service sees the buffer's directory and nothing else, and no file of anybody's in /tmp."""
    assert inside["home"] == [BUFFER]
    assert inside["tmp"] == []


def test_there_is_no_network(inside: dict[str, Any]) -> None:
    """The service can make no internet, netlink or packet socket, and has no interface but its own loopback."""
    assert inside["internet"] != "ok"
    assert inside["netlink"] != "ok"
    assert inside["raw"] != "ok"
    assert inside["interfaces"] == ["lo"]


def test_raw_devices_do_not_open(inside: dict[str, Any]) -> None:
    """Neither memory nor a disk opens, none can be made, and a GPU's node is not there without the drop-in."""
    assert inside["nodes"].pop("/dev/null") == "ok"
    assert set(inside["nodes"].values()) <= {"ENOENT", "EPERM", "EACCES"}
    assert inside["make_node"] in ("EPERM", "EACCES")


def test_only_its_own_directories_are_writable(inside: dict[str, Any]) -> None:
    """The service writes its state and neither the system nor its own configuration; it can become nobody else."""
    assert inside["write_state"] == "ok"
    assert inside["write_usr"] == "EROFS"
    assert inside["write_etc"] == "EROFS"
    assert inside["become_root"] == "EPERM"
    assert inside["others"] == []


@pytest.fixture(scope="module")
def with_gpu(layers: Layers, installed: Path) -> Iterator[Machine]:
    """A machine on which install.sh found the device nodes of an NVIDIA card."""
    with temporary() as directory, layers.machine([installed], directory) as machine:
        make_nodes(machine)
        show_driver(machine)
        install(machine)
        yield machine


def test_gpu_opens_with_the_drop_in(with_gpu: Machine) -> None:
    """With the drop-in that the installer put in place the card's node may be opened, and no other device."""
    assert with_gpu.path("/usr/lib/systemd/system/sage-sleepd.service.d/20-cuda.conf").exists()
    nodes = probe(with_gpu)["nodes"]
    # No driver stands behind the node here: may be opened, and is not there.
    if nodes["/dev/nvidiactl"] == "EPERM" and not limits_hold(with_gpu):
        pytest.skip("NOT RUN: device policies are not enforced on this machine")
    assert nodes["/dev/nvidiactl"] == "ENXIO"
    assert nodes["/dev/probe-raw-memory"] in ("EPERM", "EACCES")
    assert nodes["/dev/probe-disk"] in ("EPERM", "EACCES")


def test_gpu_needs_its_lines(with_gpu: Machine) -> None:
    """It is the drop-in's lines that open the card: with the policy alone it stays closed."""
    place = "/etc/systemd/system/sage-sleepd.service.d/30-none.conf"
    with_gpu.write(place, "[Service]\nDeviceAllow=\n")
    try:
        assert probe(with_gpu)["nodes"]["/dev/nvidiactl"] == "EPERM"
    finally:
        with_gpu.path(place).unlink()


def test_exposure_with_a_gpu(with_gpu: Machine, record_property: Callable[[str, object], None]) -> None:
    """`systemd-analyze security` rates the unit with the GPU's devices allowed at most 1.2, the goal being 0.8."""
    command = ["systemd-analyze", "security", "--no-pager", "sage-sleepd.service"]
    said = with_gpu.run(*command, f"--threshold={MOST_EXPOSED * 10:.0f}", check=False)
    assert said.returncode == 0, said.stdout
    (figure,) = re.findall(r"Overall exposure level for sage-sleepd.service: ([0-9.]+)", said.stdout)
    record_property("exposure", figure)
    assert float(figure) <= GOAL, said.stdout


def test_unusable_gpu_is_explained(with_gpu: Machine) -> None:
    """A card that torch cannot use is said aloud in the journal, with what to do; the training goes on, on the CPU."""
    begin_service(with_gpu)
    write_buffer(with_gpu, 16)
    told = with_gpu.await_event("gpu_unusable")
    assert told["MESSAGE_ID"] == MESSAGE_IDS["gpu_unusable"]
    assert "built without CUDA" in told["SLEEPD_TEXT"]
    said = with_gpu.run("journalctl", "-x", "--no-pager", f"MESSAGE_ID={MESSAGE_IDS['gpu_unusable']}").stdout
    assert "nvidia-modprobe -u" in said
    assert with_gpu.status()["running_cycle"] == 1


def test_jetson_drop_in_starts(machine: Machine) -> None:
    """With the drop-in for a Jetson the unit starts, in the groups of its devices, and keeps within the gate."""
    source = "/opt/sage-sleepd/current/source/systemd/20-jetson.conf"
    machine.run("install", "-D", "-t", "/usr/lib/systemd/system/sage-sleepd.service.d", source)
    machine.run("systemctl", "daemon-reload")
    begin_service(machine)
    groups = machine.run("ps", "-o", "supgrp=", "-p", machine.property("MainPID")).stdout.strip().split(",")
    assert {"video", "render"} <= set(groups)
    command = ["systemd-analyze", "security", "--no-pager", f"--threshold={MOST_EXPOSED * 10:.0f}"]
    assert machine.run(*command, "sage-sleepd.service", check=False).returncode == 0


def test_training_works_in_both_number_types(machine: Machine) -> None:
    """Inside the unit a CPU trains in bfloat16 and in float32."""
    assert probe(machine, WORKER_PYTHON, "/tests/system/training_probe.py", "training", name="training") == {
        "bfloat16": "ok",
        "float32": "ok",
    }


# --- memory ---


def limits_hold(machine: Machine) -> bool:
    """The canary: whether 200 MB under MemoryMax=50M die here."""
    allocate = "x = bytearray(200_000_000)\nfor i in range(0, len(x), 4096): x[i] = 1"
    done = machine.confined("python3", "-c", allocate, MemoryMax="50M", MemorySwapMax="0")
    return done.returncode != 0


def test_worker_out_of_memory_dies_alone(machine: Machine) -> None:
    """A worker that the kernel kills for want of memory takes nobody along: the daemon answers, and says why."""
    if not limits_hold(machine):
        pytest.skip("NOT RUN: memory limits are not enforced on this machine")
    drop_in(machine, "[Service]\nMemoryMax=160M\nMemorySwapMax=0\n")
    begin_service(machine)
    pid = machine.property("MainPID")
    write_buffer(machine, 16)
    failed = machine.await_event("cycle_failed")
    assert "memory" in failed["SLEEPD_TEXT"]
    assert failed["SLEEPD_HINT"]
    status = machine.status()
    assert failed["SLEEPD_TEXT"] in status["last_error"]["message"]
    assert (machine.property("MainPID"), machine.property("NRestarts")) == (pid, "0")
    assert status["total_cycles"] == 0


# --- the model ---


def test_named_model_cache_is_read(machine: Machine) -> None:
    """A hub model in the cache directory that the owner names is found by its id, inside the unit."""
    cache = "/srv/hub/models--owner--tiny"
    machine.run("mkdir", "-p", f"{cache}/snapshots", f"{cache}/refs")
    machine.run("cp", "-r", "/srv/tiny", f"{cache}/snapshots/0123456789abcdef")
    machine.write(f"{cache}/refs/main", "0123456789abcdef")
    machine.run("chmod", "-R", "a+rX", "/srv/hub")
    begin_service(machine, model={"base": "owner/tiny", "cache_directory": "/srv/hub"})
    write_buffer(machine, 16)
    machine.await_event("phase_started", phase="measuring")
    assert machine.events("cycle_failed") == []
