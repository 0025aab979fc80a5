"""The second pair of eyes: `sleepctl check --apply` from the timer and from cron."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.system.layers import Layers, temporary
from tests.system.machine import Machine
from tests.system.scenes import begin_service, drop_in, fake_worker, write_buffer

STAMP = "/var/lib/systemd/timers/stamp-sage-sleep-check.timer"
AT_ONCE = "[Timer]\nRandomizedDelaySec=0\n"
DAY = 86400
SELDOM = {"min_hours_between_sleep": 0.004, "check_interval_seconds": 86400.0}
"""Due again 14 seconds after a sleep, which the daemon by itself would see a day later."""


def await_cycles(machine: Machine, number: int) -> None:
    """So many are over."""
    machine.await_true(lambda: machine.status()["total_cycles"] >= number, f"{number} cycles")


def about_to_be_due(machine: Machine) -> int:
    """Leave the machine with new experiences, seen while it was too early, so that nothing wakes the daemon when the
    time has come; returns how many cycles there were.
    """
    begin_service(machine, worker={"python": fake_worker(machine, "promote")}, triggers=SELDOM)
    write_buffer(machine, 16)
    await_cycles(machine, 1)
    for cycles, number in enumerate((24, 32, 40), start=1):
        write_buffer(machine, number)
        machine.await_true(lambda number=number: machine.status()["buffer"]["total"] == number, "it to be seen")
        if not machine.status()["decision"]["should_sleep"] and machine.status()["total_cycles"] == cycles:
            return cycles
        # This machine was so slow that the time had come before.
        await_cycles(machine, cycles + 1)
    pytest.fail(f"the new experiences were always seen too late\n{machine.log()}")


@pytest.fixture(scope="module", autouse=True)
def with_cron(layers: Layers, installed: Path) -> Iterator[Machine]:
    """A machine whose cron asks every minute; made first, so that the minute passes during the other tests."""
    with temporary() as directory, layers.machine([installed], directory) as machine:
        machine.write("/srv/cycles", str(about_to_be_due(machine)))
        machine.write("/etc/cron.d/sleep", "* * * * * root /usr/local/bin/sleepctl check --apply\n")
        yield machine


def test_timer_lets_it_sleep(machine: Machine) -> None:
    """Each time the timer elapses it is asked; too early is no failure, and when the sleep is due it comes."""
    cycles = about_to_be_due(machine)
    drop_in(machine, f"{AT_ONCE}OnCalendar=\nOnCalendar=*:*:0/3\nAccuracySec=100ms\n", "sage-sleep-check.timer")
    machine.run("systemctl", "enable", "--now", "sage-sleep-check.timer")
    await_cycles(machine, cycles + 1)
    assert runs(machine) > 0
    assert machine.property("Result", "sage-sleep-check.service") == "success"


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
    """Boot it again; the timer, which is to elapse at another hour than this one, ran last so long ago."""
    begin_service(machine)
    hour = (datetime.now(UTC).hour + 12) % 24
    drop_in(machine, f"{AT_ONCE}OnCalendar=\nOnCalendar=*-*-* {hour:02}:00:00\n", "sage-sleep-check.timer")
    machine.run("systemctl", "enable", "--now", "sage-sleep-check.timer")
    machine.run("systemctl", "stop", "sage-sleep-check.timer")
    moment = time.time() - days_ago * DAY
    machine.run("touch", f"--date=@{moment:.0f}", STAMP)
    machine.reboot()
    return machine


@pytest.mark.parametrize("days_ago", [2, 400], ids=["two-days", "a-year"])
def test_missed_run_is_repeated_once(machine: Machine, days_ago: int) -> None:
    """After a downtime, or a clock that jumped a year ahead, the timer's service runs once at boot, and not more."""
    stamped(machine, days_ago=days_ago)
    machine.await_true(lambda: runs(machine) > 0, "the missed run")
    # The next one has its place in the day; a storm would be at once.
    assert 0 < seconds_to_next(machine) <= DAY
    assert runs(machine) == 1


def seconds_to_next(machine: Machine) -> float:
    """Until the timer elapses."""
    shown = machine.property("NextElapseUSecRealtime", "sage-sleep-check.timer")
    return datetime.strptime(shown, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC).timestamp() - time.time()


def test_clock_set_back_keeps_the_timer(machine: Machine) -> None:
    """A last run dated a year in the future leaves the next one where it belongs, within a day."""
    stamped(machine, days_ago=-400)
    assert 0 < seconds_to_next(machine) <= DAY
    assert runs(machine) == 0


def test_cron_lets_it_sleep(with_cron: Machine) -> None:
    """`sleepctl check --apply` in a crontab lets the sleep come that is due."""
    before = int(with_cron.read("/srv/cycles"))
    await_cycles(with_cron, before + 1)
    assert with_cron.status()["total_cycles"] == before + 1
