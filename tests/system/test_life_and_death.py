"""What kills the service, and what it comes back from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.layers import Layers, temporary
from tests.system.machine import Machine
from tests.system.scenes import begin_service, configure, drop_in, fake_worker, write_buffer

BACK_SECONDS = 3.0
MOST_TRIES = 3
"""The machine that runs the tests may be busy with something else for a moment."""
BLOCKS_ON_SIGNAL = "import signal, time\nsignal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))\n"
SOCKETS_OF_JOURNAL = ("systemd-journald.socket", "systemd-journald-dev-log.socket")


def answers(machine: Machine) -> bool:
    """Whether the daemon does."""
    return machine.run("sleepctl", "version", "--json", check=False).returncode == 0


def seconds_since_boot(machine: Machine, message: str) -> float:
    """When systemd said something about the unit last, on the clock of `monotonic`."""
    found = [line for line in machine.journal("UNIT=sage-sleepd.service") if message in line["MESSAGE"]]
    assert found, f"{message}\n{machine.log()}"
    return int(found[-1]["__MONOTONIC_TIMESTAMP"]) / 1e6


# --- the watchdog ---


def test_blocked_loop_is_killed_in_time(machine: Machine) -> None:
    """A daemon whose loop is blocked is killed within WatchdogSec, and comes back."""
    machine.write("/srv/fault/sitecustomize.py", BLOCKS_ON_SIGNAL)
    deadline = 4
    drop_in(machine, f"[Service]\nEnvironment=PYTHONPATH=/srv/fault\nWatchdogSec={deadline}\n")
    begin_service(machine)
    blocked_at = time.clock_gettime(time.CLOCK_MONOTONIC)
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=USR1", "sage-sleepd")
    machine.await_true(lambda: machine.property("NRestarts") == "1", "a restart by the watchdog")
    machine.await_true(lambda: answers(machine), "the daemon to be back")
    # systemd looks at the time of the last sign of life, so that the block cannot outlast the deadline.
    assert seconds_since_boot(machine, "Watchdog timeout (limit 4s)!") - blocked_at < deadline + 1


def test_long_training_never_trips_the_watchdog(machine: Machine) -> None:
    """While a real worker trains for much longer than WatchdogSec, the daemon gives its signs of life."""
    drop_in(machine, "[Service]\nWatchdogSec=3\n")
    begin_service(machine)
    write_buffer(machine, 16)
    begun = machine.await_event("cycle_started")
    machine.await_true(lambda: machine.status()["total_cycles"] == 1, "the cycle to end")
    ended = machine.events()[-1]
    took = (int(ended["__MONOTONIC_TIMESTAMP"]) - int(begun["__MONOTONIC_TIMESTAMP"])) / 1e6
    assert took > 3
    assert machine.property("NRestarts") == "0"


def test_the_unit_has_a_watchdog(shared_service: Machine) -> None:
    """As installed, systemd kills a daemon that gives no sign of life for a minute."""
    assert shared_service.property("WatchdogUSec") == "1min"
    assert shared_service.property("Type") == "notify"


# --- kill and stop ---


def test_killed_daemon_is_back_at_once(machine: Machine) -> None:
    """After SIGKILL in mid-cycle the socket answers within three seconds, no worker is left, the cycle is recovered."""
    begin_service(machine, triggers={"cooldown_seconds": 0.0})
    write_buffer(machine, 16)
    machine.await_event("phase_started", phase="training")
    workers = machine.run("pgrep", "-f", "sleepd.worker").stdout.split()
    assert workers
    took = [killed_and_back(machine)]
    ps = machine.run("ps", "-o", "pid=", "-p", ",".join(workers), check=False).stdout.split()
    assert ps == [], machine.run("ps", "-ef").stdout
    assert machine.events("cycle_interrupted") or machine.events("cycle_suspended")
    machine.await_true(lambda: machine.status()["total_cycles"] == 1, "what it had to learn to be learned")
    while min(took) > BACK_SECONDS and len(took) < MOST_TRIES:
        took.append(killed_and_back(machine))
    assert min(took) <= BACK_SECONDS, took


def killed_and_back(machine: Machine) -> float:
    """Kill the main process; seconds from its end until another one has its socket open, as the journal has them."""
    starts = len(machine.events("started"))
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "sage-sleepd")
    machine.await_true(lambda: len(machine.events("started")) > starts, "the daemon to be back")
    assert answers(machine)
    opened = int(machine.events("started")[-1]["__MONOTONIC_TIMESTAMP"]) / 1e6
    return opened - seconds_since_boot(machine, "Main process exited")


def test_stop_in_cycle_is_resumable(machine: Machine) -> None:
    """`systemctl stop` while a cycle trains ends before systemd kills it; the next start goes on with the cycle."""
    begin_service(machine)
    write_buffer(machine, 16)
    machine.await_event("phase_started", phase="training")
    machine.run("systemctl", "stop", "sage-sleepd")
    assert machine.property("Result") == "success"
    assert machine.run("pgrep", "-f", "sleepd.worker", check=False).stdout == ""
    assert machine.events("cycle_suspended")
    offline = machine.run("sleepctl", "status", "--json", check=False)
    assert offline.returncode == 3
    machine.run("systemctl", "start", "sage-sleepd")
    machine.await_event("cycle_resumed", cycle="1")


def test_broken_installation_stays_visible(machine: Machine) -> None:
    """A daemon that cannot start is started five times in all, then stays failed; mended and reset, it starts."""
    begin_service(machine)
    packages = "/opt/sage-sleepd/current/daemon/lib/python3.11/site-packages"
    machine.run("mv", f"{packages}/msgspec", "/srv/msgspec")
    machine.run("systemctl", "restart", "sage-sleepd", check=False)
    machine.await_true(lambda: machine.property("ActiveState") == "failed", "systemd to give up")
    told = [line["MESSAGE"] for line in machine.journal("UNIT=sage-sleepd.service")]
    assert sum("Main process exited" in line for line in told) == 4
    assert any("repeated too quickly" in line for line in told)
    machine.run("mv", "/srv/msgspec", f"{packages}/msgspec")
    machine.run("systemctl", "reset-failed", "sage-sleepd")
    machine.run("systemctl", "start", "sage-sleepd")
    assert answers(machine)


def test_wrong_configuration_is_not_tried_again(machine: Machine) -> None:
    """A configuration that is wrong ends in one failed start, with the key and the way out in the journal."""
    begin_service(machine)
    configure(machine, triggers={"min_experiences": 0})
    machine.run("systemctl", "restart", "sage-sleepd", check=False)
    assert machine.property("ActiveState") == "failed"
    assert machine.property("ExecMainStatus") == "9"
    assert machine.property("NRestarts") == "0"
    told = [line["MESSAGE"] for line in machine.journal("_SYSTEMD_UNIT=sage-sleepd.service")]
    assert any("triggers.min_experiences" in line for line in told), told


def test_second_daemon_is_refused(shared_service: Machine) -> None:
    """A second daemon on the same state directory says who has it, and leaves the first one as it was."""
    machine, pid = shared_service, shared_service.property("MainPID")
    program = "/opt/sage-sleepd/current/daemon/bin/sleepd"
    second = machine.run(program, "--config", "/etc/sage-sleepd/config.toml", user="sage-sleepd", check=False)
    assert second.returncode == 7
    assert f"is in use by process {pid}" in second.stderr
    assert answers(machine)
    assert machine.property("MainPID") == pid


# --- who may speak to it ---


@pytest.fixture(scope="module")
def shared_service(layers: Layers, installed: Path) -> Iterator[Machine]:
    """A machine on which the service runs, with two users beside the agent."""
    with temporary() as directory, layers.machine([installed], directory) as machine:
        machine.run("useradd", "operator-of-it")
        machine.run("usermod", "-aG", "sage-sleepd", "operator-of-it")
        begin_service(machine)
        yield machine


def test_outsider_is_turned_away(shared_service: Machine) -> None:
    """A user outside the group can neither look nor change anything, and is told how to be let in."""
    for command in ("status", "pause"):
        done = shared_service.run("sleepctl", command, user="user", check=False)
        assert done.returncode == 8, done.stdout + done.stderr
        assert "usermod -aG sage-sleepd" in done.stderr


@pytest.mark.parametrize("user", ["operator-of-it", "root"])
def test_operator_may_look_and_change(shared_service: Machine, user: str) -> None:
    """A member of the group, and root, see the status and may pause and resume."""
    assert shared_service.run("sleepctl", "status", user=user).returncode == 0
    shared_service.run("sleepctl", "pause", user=user)
    assert shared_service.status()["state"] == "paused"
    shared_service.run("sleepctl", "resume", user=user)
    assert shared_service.status()["state"] == "idle"


def test_reader_may_look_only(machine: Machine) -> None:
    """Where the owner opens the socket to everybody, a user outside the group sees the status and changes nothing."""
    begin_service(machine, control={"socket_mode": "0666"})
    assert machine.run("sleepctl", "status", user="user").returncode == 0
    for command in (["pause"], ["run", "--force"], ["rollback", "0"], ["cancel"]):
        done = machine.run("sleepctl", *command, user="user", check=False)
        assert done.returncode == 8, done.stdout + done.stderr
    assert machine.status()["state"] == "idle"


def test_adapters_are_for_the_group_only(shared_service: Machine) -> None:
    """What was learned is read by members of the group, and by nobody else."""
    assert shared_service.run("ls", "/var/lib/sage-sleepd", user="operator-of-it", check=False).returncode == 0
    assert shared_service.run("ls", "/var/lib/sage-sleepd", user="user", check=False).returncode != 0


# --- what it stands on fails ---


def test_stopped_journal_costs_no_cycle(machine: Machine) -> None:
    """While journald is stopped the daemon goes on: a cycle is run and told in the status; later lines arrive again."""
    begin_service(machine, worker={"python": fake_worker(machine, "promote")})
    machine.run("systemctl", "stop", *SOCKETS_OF_JOURNAL, "systemd-journald.service")
    write_buffer(machine, 16)
    machine.await_true(lambda: machine.status()["total_cycles"] == 1, "a cycle without a journal")
    machine.run("systemctl", "start", *SOCKETS_OF_JOURNAL, "systemd-journald.service")
    assert machine.property("NRestarts") == "0"
    machine.run("sleepctl", "reload")
    machine.await_event("config_reloaded")
    assert machine.events("log_lines_lost")


@pytest.fixture
def small_disk(machine: Machine) -> Machine:
    """A machine whose state directory is a file system of 48 MB of its own."""
    user = machine.run("id", "-u", "sage-sleepd").stdout.strip()
    group = machine.run("id", "-g", "sage-sleepd").stdout.strip()
    options = f"size=48m,mode=0750,uid={user},gid={group}"
    machine.run("mkdir", "-p", "/var/lib/sage-sleepd")
    machine.run("mount", "-t", "tmpfs", "-o", options, "tmpfs", "/var/lib/sage-sleepd")
    begin_service(
        machine,
        worker={"python": fake_worker(machine, "promote")},
        state={"min_free_megabytes": 16},
        triggers={"check_interval_seconds": 1.0},
    )
    return machine


def alarms(machine: Machine) -> set[str]:
    """The names of those that stand."""
    return {alarm["name"] for alarm in machine.status()["alarms"]}


def test_full_state_directory_delays_cycle(small_disk: Machine) -> None:
    """With too little space no cycle begins, and the status says so; with space again it sleeps by itself."""
    machine = small_disk
    machine.run("fallocate", "--length", "40M", "/var/lib/sage-sleepd/of-somebody-else")
    write_buffer(machine, 16)
    machine.await_true(lambda: "disk_full" in alarms(machine), "the full disk to be told")
    assert machine.status()["total_cycles"] == 0
    assert "Too little disk space" in machine.run("sleepctl", "status").stdout
    machine.run("rm", "/var/lib/sage-sleepd/of-somebody-else")
    machine.await_true(lambda: machine.status()["total_cycles"] == 1, "the sleep to come")
    assert "disk_full" not in alarms(machine)


def test_read_only_state_directory_is_told(small_disk: Machine) -> None:
    """On a state directory that is read-only it does not start, and says which it is; writable again, it sleeps."""
    machine = small_disk
    machine.run("systemctl", "stop", "sage-sleepd")
    machine.run("mount", "-o", "remount,ro", "/var/lib/sage-sleepd")
    assert machine.run("systemctl", "start", "sage-sleepd", check=False).returncode != 0
    machine.await_true(lambda: machine.property("ActiveState") == "failed", "systemd to give up")
    told = [line["MESSAGE"] for line in machine.journal("UNIT=sage-sleepd.service", "+", "_COMM=sleepd")]
    assert any("/var/lib/sage-sleepd" in line and "Read-only file system" in line for line in told), told
    machine.run("mount", "-o", "remount,rw", "/var/lib/sage-sleepd")
    machine.run("systemctl", "reset-failed", "sage-sleepd")
    machine.run("systemctl", "start", "sage-sleepd")
    write_buffer(machine, 16)
    machine.await_true(lambda: machine.status()["total_cycles"] == 1, "the sleep to come")
