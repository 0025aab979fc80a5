"""A daemon that answers what it was told to, on a real Unix socket."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from sleepd.errors import SleepdError
from sleepd.protocol.control import (
    Announcement,
    AnyRequest,
    Request,
    Subscribe,
    answer,
    answer_error,
    decode_request,
    encode,
)

Reply = Any | SleepdError | bytes | Callable[[AnyRequest], Any]


class FakeDaemon:
    """Listens until closed.

    ``replies`` maps a kind of request to a structure, an error, raw bytes, or a function of the request; ``None`` hangs
    up. A run that is waited for is answered once ``is_run_answered`` is set.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replies: dict[type[Request], Reply] = {}
        self.requests: list[AnyRequest] = []
        self.announcements: list[Announcement] = []
        self.has_run_arrived = Event()
        self.is_run_answered = Event()
        self.is_run_answered.set()
        self._has_announced = Event()
        self._connections: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen()
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self.is_run_answered.set()
        for end in (self._listening, *self._connections):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in (self._listening, *self._connections):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = Thread(target=self._converse, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as lines:
                for line in lines:
                    if not self._respond(connection, line):
                        break
        except OSError:
            pass  # the client hung up first
        finally:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _respond(self, connection: socket.socket, line: bytes) -> bool:
        try:
            request = decode_request(line)
        except SleepdError as error:
            connection.sendall(answer_error(error))
            return True
        self.requests.append(request)
        if isinstance(request, Subscribe):
            connection.sendall(answer({}) + b"".join(encode(each) for each in self.announcements))
            self._has_announced.set()
            return True
        if getattr(request, "wait", False):
            self.has_run_arrived.set()
            self._has_announced.wait(5)
            self.is_run_answered.wait(20)
        reply = self.replies[type(request)]
        if callable(reply):
            reply = reply(request)
        if reply is None:
            return False
        if isinstance(reply, bytes):
            connection.sendall(reply)
            return reply.endswith(b"\n")
        connection.sendall(answer_error(reply) if isinstance(reply, SleepdError) else answer(reply))
        return True
