"""``events``, ``reload`` and ``logs``: what is asked, what is shown, what is said where it cannot be had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sleepd import errors
from sleepd.protocol import control
from sleepd.protocol.control import Announcement
from sleepd.sleepctl.commands.watching.logs import Unit, is_journal, unit_of
from tests.agents import config_for, experiences, write_buffer, write_config
from tests.kept import kept
from tests.processes import LIMIT_SECONDS, DaemonProcess
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]

EVENTS = [
    Announcement(event="cycle_started", at=scenes.NOW, fields={"cycle": 9, "trained": 12, "parent": None}),
    Announcement(
        event="progress",
        at=scenes.NOW,
        fields={"cycle": 9, "type": "progress", "phase": "training", "step": 11, "steps": 24, "loss": 2.314},
    ),
    Announcement(event="candidate_rejected", at=scenes.NOW, fields={"cycle": 9, "text": "worse by 0.25"}),
    Announcement(event="paused", at=scenes.NOW, fields={}),
    Announcement(event="decision_changed", at=scenes.NOW, fields={"reason": "3 < 5", "should_sleep": False}),
    Announcement(event="thunder", at=scenes.NOW, fields={"text": scenes.HOSTILE}),
]


def streaming(daemon: FakeDaemon) -> subprocess.Popen[str]:
    """``sleepctl events`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "sleepd.sleepctl", "events", "--socket", str(daemon.path)],
        stdout=-1,
        stderr=-1,
        text=True,
    )


# --- events ---


def test_each_event_is_one_line(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The lines come as they happen; then it is said that the daemon went away, and where the rest is."""
    daemon.announcements = EVENTS[:5]
    with streaming(daemon) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in EVENTS[:5]]
        daemon.close()
        daemon.path.unlink()
        _, err = process.communicate(timeout=LIMIT_SECONDS)
    assert "".join(lines) == kept("events", "".join(lines))
    assert len(lines) == 5
    assert process.returncode == 3
    assert "the daemon stopped" in err
    assert "sleepctl logs" in err


def test_closed_stream_is_not_called_stopped(
    daemon: FakeDaemon, sleepctl: Sleepctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that was too slow is not told that the daemon is gone."""
    respond = daemon._respond
    monkeypatch.setattr(daemon, "_respond", lambda connection, text: respond(connection, text) and False)
    code, _, err = sleepctl("events")
    assert code == 1
    assert "closed the stream" in err


def test_json_events_are_ascii_lines(daemon: FakeDaemon, sleepctl: Sleepctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program reads line by line, and nothing hostile reaches a terminal."""
    daemon.announcements = EVENTS
    respond = daemon._respond
    monkeypatch.setattr(daemon, "_respond", lambda connection, text: respond(connection, text) and False)
    out = sleepctl("events", "--json").out.splitlines()[: len(EVENTS)]
    assert all(line.isascii() for line in out)
    assert [json.loads(line)["event"] for line in out] == [each.event for each in EVENTS]
    assert json.loads(out[1])["fields"]["step"] == 11


def test_ctrl_c_ends_events_with_130(daemon: FakeDaemon, environment: Path) -> None:
    """It is how a stream without an end is left."""
    daemon.announcements = EVENTS[:1]
    with streaming(daemon) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, err) == (130, "")


# --- reload ---


def test_reload_names_keys_needing_restart(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The owner sees what the edit did, and what it did not do yet."""
    daemon.replies[control.Reload] = {"schema": 1, "changed": ["log.level", "state.directory"]}
    code, out, err = sleepctl("reload")
    assert (code, out.split("\n")) == (0, ["changed: log.level", "changed: state.directory", ""])
    assert err.startswith("state.directory takes effect ")
    assert err.endswith(" restart sage-sleepd\n")
    daemon.replies[control.Reload] = {"schema": 1, "changed": []}
    assert sleepctl("reload").out == "nothing changed\n"


def test_a_refused_reload_ends_with_9(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """The daemon's refusal is the command's."""
    daemon.replies[control.Reload] = errors.ConfigError("c.toml: not TOML", hint="fix it")
    assert sleepctl("reload").code == 9


def test_real_daemon_takes_and_announces_edit(short_directory: Path, sleepctl: Sleepctl) -> None:
    """Through the real socket: an edit arrives with `reload`, and `pause` is seen by a subscriber."""
    config = config_for(short_directory, min_experiences=50)
    write_buffer(short_directory / "buffer.json", experiences(3))
    with DaemonProcess(short_directory, config) as real, real.client() as watch:
        socket = ("--socket", config.control.socket)
        seen = watch.subscribe()
        write_config(real.config_path, config_for(short_directory, min_experiences=40))
        assert sleepctl("reload", *socket).out == "changed: triggers.min_experiences\n"
        assert sleepctl("pause", *socket).code == 0
        assert next(each for each in seen if each.event == "paused").fields == {}


# --- logs ---


def fake_journalctl(directory: Path) -> None:
    """A journalctl that prints what it was asked for."""
    program = directory / "journalctl"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)


def logs(directory: Path, *arguments: str) -> Ran:
    """``sleepctl logs`` with nothing but ``directory`` in $PATH."""
    done = subprocess.run(
        [sys.executable, "-m", "sleepd.sleepctl", "logs", *arguments],
        env={**os.environ, "PATH": str(directory)},
        capture_output=True,
        text=True,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("--unit", "sage-sleepd"), ["--unit", "sage-sleepd", "--lines=50"]),
        (("--user",), ["--user-unit", "sage-sleepd", "--lines=50"]),
        (("--unit", "x", "-f", "-n", "3"), ["--unit", "x", "--follow", "--lines=3"]),
        (("--unit", "x", "--since=-2h", "--json"), ["--unit", "x", "--since=-2h", "--output=json"]),
        (("--unit", "x", "--cycle", "8"), ["--unit", "x", "SLEEPD_CYCLE=8"]),
        (("--unit", "x", "--event", "cycle_failed"), ["--unit", "x", "SLEEPD_EVENT=cycle_failed"]),
    ],
    ids=" ".join,
)
def test_logs_asks_journalctl_for_unit(environment: Path, arguments: tuple[str, ...], asked: list[str]) -> None:
    """The process becomes journalctl, with the unit and the fields that the daemon's log writes."""
    fake_journalctl(environment)
    ran = logs(environment, *arguments)
    assert (ran.code, ran.out.splitlines()) == (0, asked)


def test_missing_journalctl_is_explained(environment: Path) -> None:
    """A missing program is named, with what else there is to look at."""
    ran = logs(environment, "--unit", "sage-sleepd")
    assert (ran.code, ran.out) == (4, "")
    assert "journalctl is not installed" in ran.err
    assert "hint: " in ran.err


def test_logs_without_daemon_is_explained(environment: Path) -> None:
    """Neither a daemon nor systemd: there is no log to show."""
    fake_journalctl(environment)
    ran = logs(environment)
    assert ran.code == 4
    assert "systemd does not run here" in ran.err


def test_logs_outside_systemd_names_destination(short_directory: Path, environment: Path) -> None:
    """A real daemon that logs to a file: the file is named, with the command that shows it."""
    config = config_for(short_directory, min_experiences=50)
    with DaemonProcess(short_directory, config) as real:
        fake_journalctl(environment)
        ran = logs(environment, "--socket", config.control.socket)
        assert ran.code == 4
        assert f"it goes to {real.log_path}" in ran.err
        assert f"hint: tail -f {real.log_path}" in ran.err


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/sage-sleepd.service\n", Unit("sage-sleepd", is_users=False)),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/sleep.service\n",
            Unit("sleep", is_users=True),
        ),
        ("12:cpu:/x\n1:name=systemd:/system.slice/other.service\n", Unit("other", is_users=False)),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/user.slice/user-1000.slice/user@1000.service\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_unit_comes_from_control_group(cgroups: str, unit: Unit | None) -> None:
    """A service is told from a login session, and a user's from the system's."""
    assert unit_of(cgroups) == unit


@pytest.mark.parametrize(
    ("output", "leads_there"),
    [("socket:[8123]", True), ("", True), ("/srv/daemon.log", False), ("pipe:[4]", False), ("/dev/null", False)],
)
def test_foreign_log_is_not_in_journal(output: str, leads_there: bool) -> None:
    """A supervisor that is itself a service may send its children's words to a file."""
    assert is_journal(output) is leads_there
