"""The control socket: who may connect, how much, how long. What requests mean is not known here.

Rule 1: who is at the other end is what the kernel says (SO_PEERCRED), never what a client says.
Rule 2: no client is waited for without a deadline, or without noticing that it hung up; nothing is held without bound.
Rule 3: a client gets one answer for one line, also where the daemon fails on it.
Rule 4: only the daemon that made the socket file removes it.

Theory of operation. A connection is refused or served. A served one sends a line, gets a line, and so on; after
``subscribe`` it gets announcements until one side closes. A request that waits for a cycle's end has no deadline, and
is given up when its client hangs up. A subscriber that is ``MAX_WAITING_ANNOUNCEMENTS`` behind is dropped.

Order of the start, and why:

    1. ``flock`` on ``NAME.lock``, held for life: of two daemons that start at once, one gets the name.
    2. A socket file is tried. Nobody answers: it is a crash's, and is removed. Somebody does: ``SocketTaken``.
    3. ``bind`` under umask 0177, then group and mode: between ``bind`` and ``chmod`` nobody but the owner may connect.
    4. The file's identity is noted, then ``listen``. Until then every connect is refused, as by a crash's leftover:
       only the lock of step 1 keeps another daemon from removing the file in its own step 2.

Order of the end: listening stops, connections are cancelled and waited for, the file is removed if it is still the one
that was made here, the lock is let go last. A crash leaves the socket file, which the next start removes in step 2, and
the lock file, which is never removed: a lock on a removed file keeps nobody out.

Covered: slow and silent clients, long lines, garbage, too many connections of one process or one user, clients that
vanish in the middle, a socket file left by a crash, one that another daemon answers on. Not covered: a peer with root
or our own user id, which may do everything anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sleepd.errors import Busy, ProtocolError, RequestFailed, SleepdError, SocketTaken, StateDirectoryUnusable
from sleepd.files import open_lock
from sleepd.log import get_logger
from sleepd.protocol.control import (
    MAX_REQUEST_BYTES,
    Announcement,
    AnyRequest,
    Run,
    Subscribe,
    answer,
    answer_error,
    decode_request,
    encode,
)

MAX_CONNECTIONS = 64
BACKLOG = 32
"""So many may wait to be accepted. Few, for the last one waits for all of them; clients try again by themselves."""
RESERVED_CONNECTIONS = 16
"""Of these, for root and the daemon's own user: whoever else connects cannot keep them out."""
MAX_CONNECTIONS_OF_PROCESS = 16
"""So that one process alone cannot keep everybody else out. All of another PID namespace count as one (pid 0)."""
MAX_CONNECTIONS_OF_USER = 24
"""The same for a user with any number of processes."""
REQUEST_SECONDS = 30.0
"""A client that is connected must ask something within so long."""
SEND_SECONDS = 10.0
"""A client must take an answer within so long."""
MAX_WAITING_ANNOUNCEMENTS = 256
"""A subscriber that is further behind is dropped."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end, as the kernel says (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


Responder = Callable[[AnyRequest, Peer], Awaitable[Any]]


class ControlSocket:
    """Listens on a Unix socket and hands each request to ``respond``."""

    def __init__(self, path: Path, *, mode: int, group: int | None, respond: Responder) -> None:
        self._path = path
        self._mode = mode
        self._group = group
        self._respond = respond
        self._connections: dict[asyncio.Task[None], Peer | None] = {}
        """And who is at the other end of each; None: it is being refused."""
        self._subscribers: set[asyncio.Queue[Announcement]] = set()
        self._server: asyncio.AbstractServer | None = None
        self._lock = -1
        self._bound: os.stat_result | None = None

    async def start(self) -> None:
        """Listen. A socket file that nobody answers on is replaced.

        Raises:
            StateDirectoryUnusable: the socket cannot be made.
            SocketTaken: another daemon has it.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock_beside(self._path)
            _remove_left_over(self._path)
            # Nobody may connect before the mode is right.
            mask = os.umask(0o177)
            try:
                listening.bind(str(self._path))
            finally:
                os.umask(mask)
            if self._group is not None:
                with contextlib.suppress(PermissionError):
                    os.chown(self._path, -1, self._group)
            self._path.chmod(self._mode)
            self._bound = self._path.lstat()
        except SocketTaken:
            listening.close()
            self._unlock()
            raise
        except OSError as error:
            listening.close()
            self._unlock()
            raise StateDirectoryUnusable(
                f"{self._path}: the control socket cannot be made: {error.strerror or error}",
                hint="set [control] socket to a path that this user may create",
            ) from error
        listening.setblocking(False)
        self._server = await asyncio.start_unix_server(
            self._accept, sock=listening, limit=MAX_REQUEST_BYTES, backlog=BACKLOG
        )

    async def close(self) -> None:
        """Stop listening, end every connection, remove the socket file if it still is the one that was made here."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        with contextlib.suppress(OSError):
            if self._bound is not None and os.path.samestat(self._path.lstat(), self._bound):
                self._path.unlink()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def announce(self, announcement: Announcement) -> None:
        """Tell every subscriber; one that is too far behind loses its connection."""
        for queue in list(self._subscribers):
            try:
                queue.put_nowait(announcement)
            except asyncio.QueueFull:
                self._subscribers.discard(queue)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = _peer(writer)
        # Those that are being refused take nobody's place, however many they are.
        taken = [each for each in self._connections.values() if each is not None]
        refusal = refusal_of(peer, taken)
        self._connections[task] = None if refusal else peer
        try:
            if refusal:
                busy = Busy(refusal, hint="try again in a moment")
                await self._send(writer, answer_error(busy))
            else:
                await self._converse(reader, writer)
        except (TimeoutError, ConnectionError):
            pass  # The client is slow or gone; there is nobody to tell.
        except asyncio.CancelledError:
            pass  # We are shutting down; asyncio's server would log a cancelled handler as an error.
        finally:
            writer.close()
            try:
                # A client that does not take what was sent to it would hold the connection open for ever.
                async with asyncio.timeout(SEND_SECONDS):
                    await writer.wait_closed()
            except (ConnectionError, TimeoutError, asyncio.CancelledError):
                writer.transport.abort()
            del self._connections[task]

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _peer(writer)
        while True:
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    line = await reader.readline()
            except ValueError:
                await self._send(writer, answer_error(_TOO_LONG))
                return
            if not line:
                return
            try:
                request = decode_request(line)
                if isinstance(request, Subscribe):
                    await self._stream(reader, writer)
                    return
                response = self._respond(request, peer)
                is_long = isinstance(request, Run) and request.wait
                reply = answer(await (self._while_connected(reader, response) if is_long else response))
            except SleepdError as error:
                reply = answer_error(error)
            await self._send(writer, reply)

    async def _while_connected(self, reader: asyncio.StreamReader, response: Awaitable[Any]) -> Any:
        """The response; given up when the client hangs up first, so that a waiting request holds nothing for ever."""
        task = asyncio.ensure_future(response)
        gone = asyncio.create_task(_hung_up(reader))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ConnectionResetError("the client hung up")
            return task.result()
        finally:
            gone.cancel()
            if not task.done():
                task.cancel()
            await asyncio.wait({gone})  # until it has ended nobody else can read

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[Announcement] = asyncio.Queue(MAX_WAITING_ANNOUNCEMENTS)
        self._subscribers.add(queue)
        gone = asyncio.create_task(_hung_up(reader))
        try:
            await self._send(writer, answer({}))
            async for announcement in _until(gone, queue):
                await self._send(writer, encode(announcement))
                if queue not in self._subscribers and queue.empty():
                    return
        finally:
            gone.cancel()
            self._subscribers.discard(queue)

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        async with asyncio.timeout(SEND_SECONDS):
            await writer.drain()


async def _until(gone: asyncio.Task[None], queue: asyncio.Queue[Announcement]) -> AsyncIterator[Announcement]:
    """Announcements from the queue until the client hangs up."""
    while True:
        item = asyncio.create_task(queue.get())
        await asyncio.wait({item, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not item.done():
            item.cancel()
            return
        yield item.result()


async def _hung_up(reader: asyncio.StreamReader) -> None:
    """Returns when the client has closed its end. What it sends meanwhile is out of turn and dropped."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(MAX_REQUEST_BYTES):
            pass


def refusal_of(peer: Peer, taken: Sequence[Peer]) -> str:
    """Why the peer gets no connection beside those that are taken; empty: it gets one."""
    is_privileged = peer.uid in (0, os.getuid())
    room = MAX_CONNECTIONS if is_privileged else MAX_CONNECTIONS - RESERVED_CONNECTIONS
    of_user = [each for each in taken if each.uid == peer.uid]
    if sum(each.pid == peer.pid for each in of_user) >= MAX_CONNECTIONS_OF_PROCESS:
        return f"process {peer.pid} has {MAX_CONNECTIONS_OF_PROCESS} connections already"
    if not is_privileged and len(of_user) >= MAX_CONNECTIONS_OF_USER:
        return f"user {peer.uid} has {MAX_CONNECTIONS_OF_USER} connections already"
    return f"{len(taken)} clients are connected already" if len(taken) >= room else ""


def _lock_beside(path: Path) -> int:
    """The lock of a socket's name, held as long as the descriptor is open: of two daemons one gets the name.

    Raises:
        SocketTaken: another daemon holds it.
        OSError: the lock file cannot be made.
    """
    descriptor = open_lock(path.with_name(f"{path.name}.lock"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _taken(path) from None
    return descriptor


def _remove_left_over(path: Path) -> None:
    """Remove a socket file that nobody answers on.

    Raises:
        SocketTaken: somebody does, be it a daemon that knows no lock.
        OSError: something else stands there, or it cannot be removed.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "something else stands there, which is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as trying:
        trying.setblocking(False)
        try:
            trying.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # so many wait for it that there is no room
    raise _taken(path)


def _taken(path: Path) -> SocketTaken:
    return SocketTaken(
        f"{path}: another daemon answers on this socket",
        hint="give each daemon a [control] socket of its own, or stop the other one",
    )


def _peer(writer: asyncio.StreamWriter) -> Peer:
    connection: socket.socket = writer.get_extra_info("socket")
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return Peer(pid=pid, uid=uid, gid=gid)


_TOO_LONG = ProtocolError(f"a request may have {MAX_REQUEST_BYTES} bytes", hint="send one JSON object a line")


def unexpected(error: Exception) -> RequestFailed:
    """What a client hears of an error that nobody foresaw; the journal has the traceback."""
    get_logger().error("request_failed", exc_info=error)
    return RequestFailed(f"{type(error).__name__}: {error}", hint="journalctl -u sage-sleepd has the traceback")
