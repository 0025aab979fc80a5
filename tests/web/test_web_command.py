"""``sleepctl web``: the address, the token, and the page itself where nobody serves it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sleepd.errors import NotFound, PermissionDenied, UsageError
from sleepd.sleepctl.commands.watching.web_command import read_token, shown_socket
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.web.web_process import LIMIT_SECONDS, WebProcess

COMMAND = [sys.executable, "-m", "sleepd.sleepctl"]


def sleepctl(socket_path: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command of a user with that home."""
    environment = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    command = [*COMMAND, "--socket", str(socket_path), "web", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment)


def test_address_is_printed(site: WebProcess, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Where the page answers its address is printed, with how to get its token; as JSON too."""
    address = f"127.0.0.1:{site.port}"
    done = sleepctl(daemon.path, tmp_path, "--address", address)
    assert (done.returncode, done.stdout) == (0, f"http://{address}/\n")
    assert "--token" in done.stderr
    command = [*COMMAND, "--socket", str(daemon.path), "--json", "web", "--address", address]
    said = subprocess.run(command, capture_output=True, timeout=LIMIT_SECONDS).stdout
    assert json.loads(said) == {"schema": 1, "address": f"http://{address}/", "token": None}


def test_page_of_another_daemon_is_refused(site: WebProcess, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Where the page of another daemon answers, nobody is sent there; the error names both sockets."""
    address = f"127.0.0.1:{site.port}"
    assert shown_socket(address) == str(daemon.path)
    done = sleepctl(Path("/run/sage-sleepd-blue/sleepd.sock"), tmp_path, "--address", address)
    assert done.returncode == 2
    assert str(daemon.path) in done.stderr
    assert "/run/sage-sleepd-blue/sleepd.sock" in done.stderr
    assert "--address 127.0.0.1:7534" in done.stderr


@pytest.mark.parametrize("address", ["here", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x"])
def test_wrong_address_is_refused(address: str) -> None:
    """What is no address is a wrong use, which names the option."""
    with pytest.raises(UsageError, match="--address"):
        shown_socket(address)


def test_token_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first file that is there has the token; one that may not be read says who may; none says how to begin."""
    file = tmp_path / "token"
    file.write_text("the token\n")
    assert read_token([tmp_path / "absent", file]) == "the token"
    with pytest.raises(NotFound, match="never started"):
        read_token([tmp_path / "absent"])

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(PermissionDenied, match="only root"):
        read_token([file])


def test_page_is_served_in_the_foreground(directory: Path, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Where nobody answers, the command serves the page until Ctrl-C, and says which token it asks for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    command = [*COMMAND, "--socket", str(daemon.path), "web", "--address", address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        token = said.rpartition(": ")[2].strip()
        assert said.startswith(f"http://{address}/")
        assert token == (tmp_path / "sage-sleep-web" / "token").read_text().strip()
        while shown_socket(address) is None:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_SECONDS) in (0, 130)
    assert (tmp_path / "sage-sleep-web" / "token").stat().st_mode & 0o077 == 0
