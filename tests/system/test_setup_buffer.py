"""`sleepctl setup-buffer`: what it writes for which buffer, and what it refuses."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.system.machine import Machine

DROP_IN = "/etc/systemd/system/sage-sleepd.service.d/50-buffer.conf"
CONFIG = "/etc/sage-sleepd/conf.d/50-buffer.toml"


def set_up(machine: Machine, path: str, user: str = "") -> tuple[int, str]:
    """The exit status, and what was said."""
    done = machine.run("sleepctl", "setup-buffer", path, user=user, check=False)
    return done.returncode, done.stdout + done.stderr


def test_buffer_outside_homes_is_simple(shared: Machine) -> None:
    """A buffer below /srv is named in the configuration, and the unit is left as it is."""
    shared.run("mkdir", "-p", "/srv/buffers")
    assert set_up(shared, "/srv/buffers/b.json")[0] == 0
    assert 'path = "/srv/buffers/b.json"' in shared.read(CONFIG)
    assert not shared.path(DROP_IN).exists()


@pytest.mark.parametrize("name", ["plain", "with blank", 'a"quote', "percent%h", "co:lon", "back\\slash", "ümlaut"])
def test_any_directory_can_be_shown(shared: Machine, name: str) -> None:
    """Whatever is in the name of a buffer's directory, the daemon sees that directory and reads the buffer in it."""
    directory = f"/home/user/{name}"
    shared.run("mkdir", "-p", directory, user="user")
    shared.run("sh", "-c", f"echo '[]' > {shlex.quote(directory)}/b.json", user="user")
    assert set_up(shared, f"{directory}/b.json")[0] == 0
    shared.run("systemctl", "reset-failed", "sage-sleepd", check=False)  # so many starts are too many otherwise
    shared.run("systemctl", "restart", "sage-sleepd")
    try:
        shared.await_true(lambda: shared.status()["buffer"]["read_at"] is not None, "the buffer to be read")
        assert shared.status()["buffer"]["form"] == "array", shared.status()["buffer"]
    finally:
        shared.run("systemctl", "stop", "sage-sleepd")
        shared.path(DROP_IN).unlink()


def test_whole_directory_can_be_shown(shared: Machine) -> None:
    """A directory of session files in a home is shown as a whole, and the daemon reads all of them."""
    directory = "/home/user/sessions"
    shared.run("mkdir", "-p", f"{directory}/2026", user="user")
    for number, path in enumerate(("a.jsonl", "2026/b.jsonl")):
        line = json.dumps({"prompt": f"Who is {number}?", "response": f"Number {number}."})
        shared.run("sh", "-c", f"echo {shlex.quote(line)} > {directory}/{path}", user="user")
    assert set_up(shared, directory)[0] == 0
    shared.run("systemctl", "reset-failed", "sage-sleepd", check=False)
    shared.run("systemctl", "restart", "sage-sleepd")
    try:
        shared.await_true(lambda: shared.status()["buffer"]["total"] == 2, "both files to be read")
    finally:
        shared.run("systemctl", "stop", "sage-sleepd")
        shared.path(DROP_IN).unlink()


@pytest.mark.parametrize("directory", ["/tmp", "/var/tmp/buffers"])
def test_buffer_in_tmp_is_refused(shared: Machine, directory: str) -> None:
    """The service has a /tmp of its own, so that a buffer there is refused, with a place that is seen."""
    status, said = set_up(shared, f"{directory}/b.json")
    assert status == 2
    assert "has its own /tmp" in said


def test_unreadable_buffer_is_refused(shared: Machine) -> None:
    """A buffer that the service's user could not read, however it is shown, is refused, with what to change."""
    shared.run("mkdir", "-p", "/home/user/closed", user="user")
    shared.run("sh", "-c", "echo '[]' > /home/user/closed/b.json; chmod 0600 /home/user/closed/b.json", user="user")
    status, said = set_up(shared, "/home/user/closed/b.json")
    assert status == 8
    assert "chmod" in said
    assert not shared.path(DROP_IN).exists()


def test_absent_directory_is_refused(shared: Machine) -> None:
    """A directory that is not there is refused, with the command that makes it."""
    status, said = set_up(shared, "/home/user/nowhere/b.json")
    assert status == 4
    assert "mkdir -p /home/user/nowhere" in said


def test_it_takes_root(shared: Machine) -> None:
    """Anybody else is told to use sudo, and nothing is written."""
    status, said = set_up(shared, "/srv/buffers/b.json", user="user")
    assert status == 8
    assert "sudo sleepctl setup-buffer /srv/buffers/b.json" in said
