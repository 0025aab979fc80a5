"""Tests of the control socket, with real clients on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sleepd.daemon import control_socket
from sleepd.daemon.control_socket import ControlSocket, Peer
from sleepd.errors import NotFound, SocketTaken, StateDirectoryUnusable
from sleepd.protocol.control import MAX_REQUEST_BYTES, Announcement, AnyRequest, GetVersion, Run, Show, encode

NOW = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)
Test = Callable[[ControlSocket, Path], Awaitable[None]]


async def respond(request: AnyRequest, peer: Peer) -> Any:
    if isinstance(request, Show):
        raise NotFound(f"there is no cycle {request.cycle}", hint="look")
    if isinstance(request, Run):
        await asyncio.Event().wait()
    return {"uid": peer.uid, "pid": peer.pid}


def with_socket(tmp_path: Path, test: Test) -> None:
    async def life() -> None:
        path = tmp_path / "run" / "sleepd.sock"
        sock = ControlSocket(path, mode=0o660, group=None, respond=respond)
        await sock.start()
        try:
            await asyncio.wait_for(test(sock, path), 30)
        finally:
            await sock.close()
        assert not path.exists()

    asyncio.run(life())


async def ask(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines, close our half, read all answers."""
    reader, writer = await asyncio.open_unix_connection(path, limit=2**20)
    writer.writelines(lines)
    writer.write_eof()
    answers = [json.loads(line) async for line in reader]
    writer.close()
    return answers


def test_each_line_gets_one_answer(tmp_path: Path) -> None:
    """Two requests in one packet get two answers in order, with our own credentials."""

    async def test(_: ControlSocket, path: Path) -> None:
        answers = await ask(path, encode(GetVersion()) + encode(GetVersion()))
        assert [answer["data"] for answer in answers] == [{"uid": os.getuid(), "pid": os.getpid()}] * 2

    with_socket(tmp_path, test)


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (b"hello\n", "ProtocolError", "malformed"),
        (b"\xff\xfe\n", "ProtocolError", "not understood"),
        (b'{"op": "show"}\n', "VersionMismatch", "version 0"),
        (b'{"v": 2, "op": "show", "cycle": 1}\n', "VersionMismatch", "version 2"),
        (b'{"v": 1, "op": "show"}\n', "ProtocolError", "cycle"),
        (b'{"v": 1, "op": "dance"}\n', "ProtocolError", "dance"),
        (b'{"v": 1, "op": "show", "cycle": "7"}\n', "ProtocolError", "cycle"),
        (b"[" * 60_000 + b"\n", "ProtocolError", "not understood"),
        (b'{"v": 1, "op": "show", "cycle": 3}\n', "NotFound", "cycle 3"),
        (b"x" * (MAX_REQUEST_BYTES + 10) + b"\n", "ProtocolError", "65536 bytes"),
    ],
)
def test_senseless_request_names_the_fault(tmp_path: Path, line: bytes, kind: str, words: str) -> None:
    """Garbage is answered with a kind, a message and a hint, never with silence or a traceback."""

    async def test(_: ControlSocket, path: Path) -> None:
        (answer,) = await ask(path, line)
        assert answer["error"]["kind"] == kind
        assert words in answer["error"]["message"]
        assert answer["error"]["hint"]

    with_socket(tmp_path, test)


def test_subscriber_hears_until_it_leaves(tmp_path: Path) -> None:
    """Announcements arrive in order; a subscriber that is gone is forgotten."""

    async def test(sock: ControlSocket, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"v": 1, "op": "subscribe"}\n')
        assert json.loads(await reader.readline())["data"] == {}
        for number in (1, 2):
            sock.announce(Announcement(event="progress", at=NOW, fields={"step": number}))
        assert [json.loads(await reader.readline())["fields"]["step"] for _ in range(2)] == [1, 2]
        writer.close()
        while sock._subscribers:
            await asyncio.sleep(0)

    with_socket(tmp_path, test)


def test_slow_subscriber_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever falls too far behind loses the connection; the daemon holds a bounded queue for it."""
    monkeypatch.setattr(control_socket, "MAX_WAITING_ANNOUNCEMENTS", 4)

    async def test(sock: ControlSocket, path: Path) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"v": 1, "op": "subscribe"}\n')
        while not sock._subscribers:
            await asyncio.sleep(0)
        for number in range(6):
            sock.announce(Announcement(event="progress", at=NOW, fields={"step": number}))
        assert not sock._subscribers
        writer.close()

    with_socket(tmp_path, test)


def test_surplus_client_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the cap a client is answered busy, and those before it go on."""
    monkeypatch.setattr(control_socket, "MAX_CONNECTIONS", 2)

    async def test(_: ControlSocket, path: Path) -> None:
        held = [await asyncio.open_unix_connection(path) for _ in range(2)]
        for reader, writer in held:
            writer.write(encode(GetVersion()))
            await reader.readline()
        reader, writer = await asyncio.open_unix_connection(path)
        assert json.loads(await reader.readline())["error"]["kind"] == "Busy"
        writer.close()
        held[0][1].write(encode(GetVersion()))
        assert json.loads(await held[0][0].readline())["data"]["uid"] == os.getuid()
        for _reader, connection in held:
            connection.close()

    with_socket(tmp_path, test)


def test_silent_client_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a request ends at the deadline."""
    monkeypatch.setattr(control_socket, "REQUEST_SECONDS", 0.05)

    async def test(_: ControlSocket, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        writer.close()

    with_socket(tmp_path, test)


def test_client_leaving_while_waiting_is_released(tmp_path: Path) -> None:
    """A run that is waited for is let go when its client goes."""

    async def test(sock: ControlSocket, path: Path) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(encode(Run(wait=True)))
        await writer.drain()
        while not sock._connections:
            await asyncio.sleep(0)
        writer.close()
        while sock._connections:
            await asyncio.sleep(0)
        assert path.exists()
        assert not sock._connections

    with_socket(tmp_path, test)


def test_request_behind_waiting_one_is_answered(tmp_path: Path) -> None:
    """A connection on which a run was waited for takes the next request."""

    async def ended(request: AnyRequest, _: Peer) -> Any:
        return {"op": type(request).__name__}

    async def test(sock: ControlSocket, path: Path) -> None:
        sock._respond = ended
        reader, writer = await asyncio.open_unix_connection(path)
        for request in (Run(wait=True), GetVersion()):
            writer.write(encode(request))
            assert json.loads(await reader.readline())["data"]["op"] == type(request).__name__
        writer.close()

    with_socket(tmp_path, test)


def test_socket_has_its_mode(tmp_path: Path) -> None:
    """A socket file of a crashed daemon is no obstacle; the mode is as configured."""
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(tmp_path / "run" / "sleepd.sock"))

    async def test(_: ControlSocket, path: Path) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert (await ask(path, encode(GetVersion())))[0]["data"]["pid"] == os.getpid()

    with_socket(tmp_path, test)


@pytest.mark.parametrize("is_lock_gone", [False, True])
def test_live_socket_is_not_taken(tmp_path: Path, is_lock_gone: bool) -> None:
    """A second daemon is refused in words, also beside one that knows no lock, and the first one's socket stays."""

    async def test(_: ControlSocket, path: Path) -> None:
        if is_lock_gone:
            path.with_name("sleepd.sock.lock").unlink()
        again = ControlSocket(path, mode=0o600, group=None, respond=respond)
        with pytest.raises(SocketTaken, match="another daemon answers"):
            await again.start()
        await again.close()
        assert (await ask(path, encode(GetVersion())))[0]["data"]["pid"] == os.getpid()

    with_socket(tmp_path, test)


def test_foreign_socket_is_not_removed(tmp_path: Path) -> None:
    """At its end a daemon removes the socket file that it made, and none that stands in its place since."""

    async def life() -> None:
        path = tmp_path / "sleepd.sock"
        ours = ControlSocket(path, mode=0o660, group=None, respond=respond)
        await ours.start()
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            await ours.close()
            assert path.exists()

    asyncio.run(life())


@pytest.mark.parametrize("name", ["sleepd.sock", "sleepd.sock.lock"])
def test_link_beside_socket_is_not_followed(tmp_path: Path, name: str) -> None:
    """A link in the place of the socket or of its lock is refused, and what it points to stays as it is."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / name).symlink_to(tmp_path / "precious")
    with pytest.raises(StateDirectoryUnusable, match=r"sleepd\.sock"):
        asyncio.run(ControlSocket(tmp_path / "sleepd.sock", mode=0o600, group=None, respond=respond).start())
    assert (tmp_path / "precious").read_text() == "mine"


def peers(count: int, *, uid: int, pid: int | None = None) -> list[Peer]:
    """So many connections of one user, each of a process of its own or all of one."""
    return [Peer(pid=number + 2 if pid is None else pid, uid=uid, gid=uid) for number in range(count)]


@pytest.mark.parametrize(
    ("taken", "peer", "words"),
    [
        (peers(15, uid=1000, pid=7), Peer(pid=7, uid=1000, gid=1), ""),
        (peers(16, uid=1000, pid=7), Peer(pid=7, uid=1000, gid=1), "process 7 has 16"),
        (peers(16, uid=1000, pid=0), Peer(pid=0, uid=1000, gid=1), "process 0 has 16"),
        (peers(16, uid=1000, pid=0), Peer(pid=0, uid=1001, gid=1), ""),
        (peers(24, uid=1000), Peer(pid=99, uid=1000, gid=1), "user 1000 has 24"),
        (peers(24, uid=1000), Peer(pid=99, uid=1001, gid=1), ""),
        (peers(24, uid=1) + peers(24, uid=2), Peer(pid=99, uid=3, gid=1), "48 clients are connected"),
        (peers(24, uid=1) + peers(24, uid=2), Peer(pid=99, uid=0, gid=0), ""),
        (peers(24, uid=1) + peers(24, uid=2), Peer(pid=99, uid=os.getuid(), gid=1), ""),
        (peers(64, uid=0), Peer(pid=99, uid=0, gid=0), "64 clients are connected"),
    ],
)
def test_connections_are_shared_out(taken: list[Peer], peer: Peer, words: str) -> None:
    """A process, a user and all other users together have a limit; a part is for root and the daemon's own user."""
    refusal = control_socket.refusal_of(peer, taken)
    assert refusal.startswith(words)
    assert bool(refusal) is bool(words)


_HOLDER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
held = []
for _ in range(16):
    each = socket.socket(socket.AF_UNIX)
    try:
        each.connect(sys.argv[1]); each.sendall(b'{"v":1,"op":"subscribe"}\\n'); each.recv(99)
    except OSError:
        pass
    held.append(each)
print("held", flush=True); sys.stdin.read()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_other_users_cannot_lock_root_out() -> None:
    """Eight processes of another user hold what they can get with subscribe, for ever; root is still answered."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)

    async def test(_: ControlSocket, path: Path) -> None:
        path.parent.chmod(0o755)
        path.chmod(0o666)
        command = [sys.executable, "-S", "-c", _HOLDER, str(path)]
        pipe = asyncio.subprocess.PIPE
        holders = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(8)]
        for each in holders:
            assert each.stdout is not None
            assert await each.stdout.readline() == b"held\n"
        answers = await ask(path, encode(GetVersion()))
        for each in holders:
            each.kill()
            await each.wait()
        assert answers[0]["data"]["uid"] == 0

    try:
        with_socket(root, test)
    finally:
        shutil.rmtree(root)


def test_file_in_socket_place_stays(tmp_path: Path) -> None:
    """What is no socket is not ours to remove: the error names it."""
    path = tmp_path / "sleepd.sock"
    path.write_text("precious")
    with pytest.raises(StateDirectoryUnusable, match=r"sleepd\.sock"):
        asyncio.run(ControlSocket(path, mode=0o600, group=None, respond=respond).start())
    assert path.read_text() == "precious"
