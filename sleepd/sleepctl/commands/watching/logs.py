"""``sleepctl logs``: the daemon's log, by way of ``journalctl``.

A daemon that runs outside systemd logs to where its standard error goes; then that place is reported instead. What the
journal has of ours: SLEEPD_EVENT, and SLEEPD_<FIELD> for each figure (``sleepd/log.py``).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

from sleepd.errors import NotFound, SleepdError
from sleepd.protocol.control import GetStatus
from sleepd.protocol.status import Status
from sleepd.sleepctl.session import STATUS_SECONDS, Session
from sleepd.sleepctl.subprocesses import answer_of, properties
from sleepd.text.shell import command_line

UNIT = "sage-sleepd"
_USUAL_LINES = 50
_USERS_OWN = re.compile(r"/user@\d+\.service/")


class Unit(NamedTuple):
    """A unit, and whose systemd runs it."""

    name: str
    is_users: bool


def show_journal(session: Session) -> NoReturn:
    """Become ``journalctl``.

    Raises:
        NotFound: there is no journalctl, no such unit, or the daemon's log is elsewhere.
    """
    given = session.arguments
    program = shutil.which("journalctl")
    unit = Unit(given.unit or UNIT, is_users=given.user) if given.unit or given.user else _find_unit(session)
    if program is None:
        raise NotFound(
            "journalctl is not installed, and the daemon logs to the journal",
            hint="install systemd's journalctl; or see the state: sleepctl status, sleepctl why",
        )
    command = [program, *journal_arguments(unit, given)]
    sys.stdout.flush()
    os.execv(program, command)  # noqa: S606 (a found program, no shell)


def journal_arguments(unit: Unit, given: argparse.Namespace) -> list[str]:
    """What ``journalctl`` is asked for.

    Args:
        unit: whose log.
        given: with ``lines``, ``since``, ``cycle``, ``event``, ``follow`` and ``json`` as parsed.
    """
    lines = given.lines
    arguments = ["--user-unit" if unit.is_users else "--unit", unit.name]
    if given.follow:
        arguments.append("--follow")
    if lines is None and all(each is None for each in (given.since, given.cycle, given.event)):
        lines = _USUAL_LINES
    if lines is not None:
        arguments.append(f"--lines={lines}")
    if given.since is not None:
        arguments.append(f"--since={given.since}")
    if given.json:
        arguments.append("--output=json")
    if given.cycle is not None:
        arguments.append(f"SLEEPD_CYCLE={given.cycle}")
    if given.event is not None:
        arguments.append(f"SLEEPD_EVENT={given.event}")
    return arguments


def _find_unit(session: Session) -> Unit:
    """The unit that the running daemon belongs to; with the daemon down, the one that is installed."""
    try:
        status: Status = session.ask(GetStatus(), Status, timeout=STATUS_SECONDS)
    except SleepdError:
        return _installed_unit()
    process = Path("/proc") / str(status.pid)
    try:
        unit = unit_of((process / "cgroup").read_text())
    except OSError:
        return _installed_unit()  # in another container: its processes are not seen from here
    try:
        output = str((process / "fd" / "2").readlink())
    except OSError:
        output = ""  # another user's
    if unit is not None and is_journal(output):
        return unit
    raise NotFound(
        f"the daemon (pid {status.pid}) runs outside systemd, so the journal does not have its log; {_where(output)}",
        hint=_fix(status.pid, output),
    )


def is_journal(output: str) -> bool:
    """Whether a service's standard error, as ``/proc/PID/fd/2`` names it, leads to the journal. Unseen: yes."""
    return not output or output.startswith("socket:")


def unit_of(cgroups: str) -> Unit | None:
    """The service that a process belongs to, from its ``/proc/PID/cgroup``; None: it belongs to none."""
    for entry in cgroups.splitlines():
        path = entry.split(":", 2)[-1]
        # A daemon in a terminal ends in a scope; one that a user's systemd runs lies below user@UID.service.
        name = path.rstrip("/").rpartition("/")[2]
        if name.endswith(".service") and not name.startswith("user@"):
            return Unit(name.removesuffix(".service"), is_users=bool(_USERS_OWN.search(path)))
    return None


def _where(output: str) -> str:
    if not output:
        return "this user may not see where its standard error goes"
    if output == "/dev/null":
        return "its standard error goes to /dev/null, so nothing is kept"
    return f"it goes to {output}"


def _fix(pid: int, output: str) -> str:
    if not output:
        return f"sudo readlink /proc/{pid}/fd/2"
    if output.startswith("/") and not output.startswith("/dev/"):
        return command_line("tail", "-f", output)
    return "read the log there, or start the daemon with systemd: sudo systemctl start sage-sleepd"


def _installed_unit() -> Unit:
    is_systemd_there = False
    for is_users in (False, True):
        state = answer_of("systemctl", *(["--user"] if is_users else []), "show", "--property=LoadState", UNIT)
        is_systemd_there |= state is not None
        if state is not None and properties(state).get("LoadState") not in (None, "not-found"):
            return Unit(UNIT, is_users)
    why = f"systemd knows no unit {UNIT}" if is_systemd_there else "systemd does not run here"
    raise NotFound(
        f"the daemon is not running, and {why}",
        hint="if its unit has another name: sleepctl logs --unit NAME; to install: sudo ./install.sh",
    )
