"""The second pair of eyes: `sleepctl check --apply` from the timer and from cron."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.layers import Layers, temporary
from tests.system.machine import Machine
from tests.system.scenes import begin_service, drop_in, fake_worker, write_buffer

STAMP = "/var/lib/systemd/timers/stamp-sage-sleep-check.timer"
AT_ONCE = "[Timer]\nRandomizedDelaySec=0\n"
DAY = 86400
SELDOM = {"min_hours_between_sleep": 0.0006, "check_interval_seconds": 86400.0}
"""Due again two seconds after a sleep, which the daemon by itself would see a day later."""


def await_cycles(machine: Machine, number: int) -> None:
    """So many are over."""
    machine.await_true(lambda: machine.status()["total_cycles"] >= number, f"{number} cycles", seconds=180)


def one_is_due(machine: Machine) -> None:
    """A machine on which a second sleep is due, and nobody has looked since it is."""
    begin_service(machine, worker={"python": fake_worker(machine, "promote")}, triggers=SELDOM)
    write_buffer(machine, 16)
    await_cycles(machine, 1)
    write_buffer(machine, 24)
    # Seen while it was too early: nothing wakes the daemon when the time has come.
    machine.await_true(lambda: machine.status()["buffer"]["total"] == 24, "the new experiences to be seen")


@pytest.fixture(scope="module", autouse=True)
def with_cron(layers: Layers, installed: Path) -> Iterator[Machine]:
    """A machine whose cron asks every minute; made first, so that the minute passes during the other tests."""
    with temporary() as directory, layers.machine([installed], directory) as machine:
        one_is_due(machine)
        machine.write("/etc/cron.d/sleep", "* * * * * root /usr/local/bin/sleepctl check --apply\n")
        yield machine


def test_timer_lets_it_sleep(machine: Machine) -> None:
    """The timer's service asks, and the sleep that is due comes; asked again, nothing to do is no failure."""
    one_is_due(machine)
    machine.run("systemctl", "enable", "--now", "sage-sleep-check.timer")
    due = machine.run("systemctl", "list-timers", "--no-legend", "sage-sleep-check.timer").stdout
    assert "sage-sleep-check.service" in due
    time_is_up = machine.status
    machine.await_true(lambda: bool(time_is_up()), "the daemon to answer")
    machine.await_true(lambda: asked(machine) and machine.status()["total_cycles"] == 2, "the sleep to come")
    machine.run("systemctl", "start", "sage-sleep-check.service")
    assert machine.property("Result", "sage-sleep-check.service") == "success"


def asked(machine: Machine) -> bool:
    """Let the service ask once more; true."""
    machine.run("systemctl", "start", "sage-sleep-check.service")
    return True


def test_check_starts_no_stopped_daemon(machine: Machine) -> None:
    """The timer's service leaves a daemon alone that the owner stopped."""
    begin_service(machine)
    machine.run("systemctl", "stop", "sage-sleepd")
    machine.run("systemctl", "start", "sage-sleep-check.service", check=False)
    assert machine.property("ActiveState") == "inactive"


def runs(machine: Machine) -> int:
    """How often the timer's service ran since boot."""
    told = machine.journal("UNIT=sage-sleep-check.service", "-b")
    return sum(line["MESSAGE"].startswith("Finished ") for line in told)


def stamped(machine: Machine, *, days_ago: float) -> Machine:
    """Boot it again; the timer ran last so long ago."""
    begin_service(machine)
    drop_in(machine, AT_ONCE, "sage-sleep-check.timer")
    machine.run("systemctl", "enable", "--now", "sage-sleep-check.timer")
    machine.run("systemctl", "stop", "sage-sleep-check.timer")
    moment = time.time() - days_ago * DAY
    machine.run("touch", f"--date=@{moment:.0f}", STAMP)
    machine.reboot()
    return machine


@pytest.mark.parametrize("days_ago", [1, 400], ids=["a-day", "a-year"])
def test_missed_run_is_made_up_for_once(machine: Machine, days_ago: int) -> None:
    """After a downtime, or a clock that jumped a year ahead, the timer's service runs once at boot, and not more."""
    stamped(machine, days_ago=days_ago)
    machine.await_true(lambda: runs(machine) > 0, "the missed run")
    # The next one is hours away; a storm would be at once.
    until = int(machine.property("NextElapseUSecRealtime", "sage-sleep-check.timer") != "")
    assert until == 1
    assert seconds_to_next(machine) > 0
    assert runs(machine) == 1


def seconds_to_next(machine: Machine) -> float:
    """Until the timer elapses."""
    shown = machine.run(
        "systemctl",
        "show",
        "--timestamp=unix",
        "--property=NextElapseUSecRealtime",
        "--value",
        "sage-sleep-check.timer",
    ).stdout.strip()
    return int(shown.removeprefix("@")) - time.time()


def test_clock_set_back_does_not_silence_the_timer(machine: Machine) -> None:
    """A last run dated a year in the future leaves the next one where it belongs, within six hours."""
    stamped(machine, days_ago=-400)
    assert 0 < seconds_to_next(machine) <= 6 * 3600
    assert runs(machine) == 0


def test_cron_lets_it_sleep(with_cron: Machine) -> None:
    """`sleepctl check --apply` in a crontab lets the sleep come that is due."""
    await_cycles(with_cron, 2)
