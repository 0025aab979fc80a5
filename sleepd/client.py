"""The client's end of the control socket: one request out, one answer in, blocking, on the standard library alone.

Every way in which the daemon cannot be reached has an error of its own here, with the command to type.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from .errors import DECODE_ERRORS, Busy, DaemonNotRunning, PermissionDenied, ProtocolError, RequestFailed, UsageError
from .protocol.control import Announcement, Request, Subscribe, decode_answer, encode

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""No answer of the daemon is as long; something else on the socket may never end its line."""

ANSWER_SECONDS = 60.0
"""Longer than the daemon takes to read a large buffer or to stop a worker."""

CONNECT_SECONDS = 5.0
_SEE_JOURNAL = "its last messages: journalctl -u sage-sleepd -n 50"

_T = TypeVar("_T")


class Client:
    """A connection to the daemon. Not for several threads at once, save for :meth:`hang_up`.

    Args:
        socket_path: where the daemon listens.
        timeout: seconds that an answer may take; None: for ever.

    Raises:
        DaemonNotRunning: there is no socket, or nobody listens on it.
        PermissionDenied: the socket may not be opened by this user.
        Busy: more clients wait than the daemon can accept.
    """

    def __init__(self, socket_path: str | os.PathLike[str], timeout: float | None = ANSWER_SECONDS) -> None:
        self._path = os.fspath(socket_path)
        self._timeout = timeout
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, request: Request, kind: type[_T]) -> _T:
        """The daemon's answer to ``request``.

        Raises:
            SleepdError: the one that the daemon answered with.
            ProtocolError: what came is no answer, or ended in the middle.
            RequestFailed: no answer came in time.
        """
        self._send(request)
        line = self._line()
        if line is None:
            raise ProtocolError("the daemon closed the connection before it answered", hint=_SEE_JOURNAL)
        return decode_answer(line, kind)

    def subscribe(self) -> Iterator[Announcement]:
        """What happens from now on, as it happens, until one side closes.

        The subscription stands when this returns: nothing that happens after it is missed.
        """
        self.call(Subscribe(), dict[str, Any])
        return self._announcements()

    def hang_up(self) -> None:
        """From another thread: end a :meth:`subscribe` that waits, once it has read what came before."""
        with suppress(OSError):  # the daemon hung up first
            # close() would not wake a thread that sits in recv().
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection back."""
        self._socket.close()

    def _announcements(self) -> Iterator[Announcement]:
        while (line := self._line()) is not None:
            try:
                yield msgspec.json.decode(line, type=Announcement)
            except DECODE_ERRORS as error:
                raise ProtocolError(
                    f"not understood: announcement: {error}", hint="is something else on that socket?"
                ) from error

    def _connect_in_turn(self) -> None:
        """Others may be waiting to be accepted, more than the system lets wait: then it is tried again."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                self._socket.connect(self._path)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    busy = f"{self._path}: more clients than the daemon can accept"
                    raise Busy(busy, hint="sleepctl events shows whether it is alive; try again in a moment") from None
                time.sleep(0.005)
            else:
                return

    def _connect(self) -> None:
        self._socket.settimeout(self._timeout)
        try:
            self._connect_in_turn()
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise DaemonNotRunning(
                f"the daemon is not running: nobody answers on {self._path}",
                hint="sudo systemctl start sage-sleepd (without systemd: sleepd --config FILE)",
            ) from None
        except PermissionError:
            raise PermissionDenied(
                f"no permission to speak to the daemon on {self._path}",
                hint="sudo usermod -aG sage-sleepd $USER, then log in again (or once: sudo sleepctl …)",
            ) from None
        except TimeoutError:
            raise self._too_slow() from None
        except OSError as error:
            # "AF_UNIX path too long" comes without an errno.
            if error.errno is None:
                raise UsageError(f"{self._path}: no path of a socket: {error}", hint="--socket PATH") from None
            raise RequestFailed(f"{self._path}: cannot connect: {error.strerror}", hint=_SEE_JOURNAL) from error

    def _send(self, request: Request) -> None:
        try:
            self._socket.sendall(encode(request))
        except TimeoutError:
            raise self._too_slow() from None
        except OSError as error:
            raise ProtocolError(
                f"the daemon closed the connection before it was asked: {error.strerror}", hint=_SEE_JOURNAL
            ) from error

    def _line(self) -> bytes | None:
        """The next line without its end; None when the daemon hung up between two lines."""
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > MAX_ANSWER_BYTES:
                raise ProtocolError(
                    f"not understood: an answer of more than {MAX_ANSWER_BYTES} bytes",
                    hint="is something else on that socket?",
                )
            received = self._receive()
            if not received:
                if self._received:
                    raise ProtocolError("the daemon closed the connection in mid-answer", hint=_SEE_JOURNAL)
                return None
            self._received += received
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except TimeoutError:
            raise self._too_slow() from None
        except ConnectionResetError:
            return b""
        except OSError as error:
            raise ProtocolError(f"the connection to the daemon broke: {error.strerror}", hint=_SEE_JOURNAL) from error

    def _too_slow(self) -> RequestFailed:
        return RequestFailed(
            f"the daemon did not answer within {self._timeout:g} s",
            hint="it may hang; see: journalctl -u sage-sleepd -n 50; then: sudo systemctl restart sage-sleepd",
        )
