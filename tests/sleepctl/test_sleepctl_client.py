"""The client tells apart every way in which the daemon cannot be reached or understood."""

from __future__ import annotations

import socket
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from sleepd import client as client_module
from sleepd.client import Client
from sleepd.errors import (
    Busy,
    DaemonNotRunning,
    PermissionDenied,
    ProtocolError,
    RequestFailed,
    UsageError,
    VersionMismatch,
)
from sleepd.protocol.control import Announcement, Answer, GetStatus, GetVersion, answer, encode
from sleepd.protocol.status import Status
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon


def test_answer_arrives_as_its_structure(daemon: FakeDaemon) -> None:
    """A status of the daemon equals the status that the client hands out, field for field."""
    daemon.replies[GetStatus] = scenes.TRAINING
    with Client(daemon.path) as client:
        assert client.call(GetStatus(), Status) == scenes.TRAINING


def test_one_connection_carries_several_calls(daemon: FakeDaemon) -> None:
    """The second call on a connection gets its own answer, not what is left of the first."""
    daemon.replies[GetStatus] = scenes.FRESH
    daemon.replies[GetVersion] = {"version": "9", "v": 1}
    with Client(daemon.path) as client:
        assert client.call(GetStatus(), Status) == scenes.FRESH
        assert client.call(GetVersion(), dict[str, Any])["version"] == "9"


def test_missing_socket_means_not_running(short_directory: Path) -> None:
    """Without a socket file the error says how to start the daemon."""
    with pytest.raises(DaemonNotRunning) as caught:
        Client(short_directory / "none.sock")
    assert "systemctl start sage-sleepd" in caught.value.hint


def test_unheard_socket_means_not_running(short_directory: Path) -> None:
    """The socket file that a crash leaves behind refuses connections, which is no other error than absence."""
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(short_directory / "s"))
    with pytest.raises(DaemonNotRunning):
        Client(short_directory / "s")


def test_socket_below_file_means_not_running(short_directory: Path) -> None:
    """A path through a regular file cannot have a daemon behind it."""
    (short_directory / "file").write_text("")
    with pytest.raises(DaemonNotRunning):
        Client(short_directory / "file" / "s")


def test_foreign_socket_means_no_permission(daemon: FakeDaemon, request: pytest.FixtureRequest) -> None:
    """A socket that may not be opened is not reported as a daemon that is down."""
    daemon.path.chmod(0)
    request.getfixturevalue("unprivileged")
    with pytest.raises(PermissionDenied) as caught:
        Client(daemon.path)
    assert "usermod -aG sage-sleepd" in caught.value.hint


def test_other_version_names_restart_command(daemon: FakeDaemon) -> None:
    """A daemon of another protocol version is told apart from one that talks nonsense."""
    daemon.replies[GetStatus] = encode(Answer(v=2))
    with Client(daemon.path) as client, pytest.raises(VersionMismatch) as caught:
        client.call(GetStatus(), Status)
    assert "speaks protocol version 2" in caught.value.message
    assert "systemctl restart sage-sleepd" in caught.value.hint


def test_daemon_error_keeps_class_and_hint(daemon: FakeDaemon) -> None:
    """What the daemon raised arrives with kind, message and hint."""
    daemon.replies[GetStatus] = Busy("cycle 9 is under way", hint="sleepctl cancel")
    with Client(daemon.path) as client, pytest.raises(Busy, match="cycle 9") as caught:
        client.call(GetStatus(), Status)
    assert caught.value.hint == "sleepctl cancel"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "not understood"),
        (b"\xff\xfe\n", "not understood"),
        (encode(Answer()), "not understood"),
        (b'{"v": 1, "da', "in mid-answer"),
        (None, "before it answered"),
    ],
    ids=["http", "bytes", "null", "half", "nothing"],
)
def test_no_answer_is_protocol_error(daemon: FakeDaemon, reply: bytes | None, said: str) -> None:
    """Garbage, half a line and a closed connection are told apart from an answer, in words."""
    daemon.replies[GetStatus] = reply
    with Client(daemon.path) as client, pytest.raises(ProtocolError, match=said):
        client.call(GetStatus(), Status)


def test_endless_answer_is_given_up(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that sends for ever without a line's end does not fill the memory."""
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1000)
    daemon.replies[GetStatus] = b"x" * 200_000
    with Client(daemon.path) as client, pytest.raises(ProtocolError, match="more than 1000 bytes"):
        client.call(GetStatus(), Status)


def test_hanging_daemon_is_given_up(short_directory: Path) -> None:
    """A connection that is accepted and never answered ends in an error that names the restart."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short_directory / "s"))
        silent.listen()
        with Client(short_directory / "s", timeout=0.05) as client, pytest.raises(RequestFailed) as caught:
            client.call(GetStatus(), Status)
    assert "did not answer within 0.05 s" in caught.value.message
    assert "restart" in caught.value.hint


def test_long_socket_path_is_callers_fault() -> None:
    """A path that the kernel cannot take is a usage error, not a traceback."""
    with pytest.raises(UsageError, match="too long"):
        Client("/tmp/" + "x" * 200)


def test_announcements_come_in_order(short_directory: Path) -> None:
    """A subscription yields each fact once and ends, without an error, when the daemon goes."""
    facts = [Announcement(event=f"e{number}", at=scenes.NOW, fields={"n": number}) for number in range(3)]
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(short_directory / "s"))
    listening.listen()

    def announce() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer({}) + b"".join(map(encode, facts)))

    thread = Thread(target=announce)
    thread.start()
    with listening, Client(short_directory / "s") as client:
        assert list(client.subscribe()) == facts
    thread.join()


def test_hanging_up_ends_waiting_subscription(daemon: FakeDaemon) -> None:
    """A thread that waits for the next fact returns once another one hangs up."""
    heard: list[Announcement] = []
    with Client(daemon.path, timeout=None) as client:
        announcements = client.subscribe()
        thread = Thread(target=lambda: heard.extend(announcements))
        thread.start()
        client.hang_up()
        thread.join(5)
        assert not thread.is_alive()
    assert heard == []
