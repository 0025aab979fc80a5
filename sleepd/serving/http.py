"""One HTTP request to an engine, and its whole answer: bounded in time and bytes, no redirects, no proxies.

An engine's answer is hostile input. The bounds hold for all of it, headers included: a server that sends a byte every
second, or headers without end, meets them too.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from sleepd.errors import DECODE_ERRORS, EngineFailed, EngineUnreachable, UsageError

_T = TypeVar("_T")

_SHOWN = 300
"""Characters of an engine's own message that an error quotes."""
_BUSY = (429, 503)
"""Too many requests, and a model that is being loaded."""


@dataclass(frozen=True)
class HttpLimits:
    """What one answer may take."""

    seconds: float = 60.0
    """From the connection to the last byte. A first answer may wait for the engine to load its model."""
    most_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True)
class HttpAnswer:
    """Status and body of an answer."""

    status: int
    body: bytes


@dataclass(frozen=True)
class HttpServer:
    """An engine's address, with the key that it wants.

    Raises:
        UsageError: the URL is none of an engine.
    """

    url: str
    key: str = field(default="", repr=False)
    limits: HttpLimits = field(default_factory=HttpLimits)

    def __post_init__(self) -> None:
        parse_url(self.url)
        if not all(32 < ord(each) < 127 for each in self.key):
            raise UsageError("the key for the engine has blanks or control characters", hint="check the key file")

    def request(self, method: str, path: str, body: Any = None) -> HttpAnswer:
        """Ask once; any status is an answer, except a redirect.

        Raises:
            EngineUnreachable: nobody answers, or the connection breaks.
            EngineFailed: it took too long, sent too much, sent what is no HTTP, or redirects.
        """
        parts = parse_url(self.url)
        deadline = time.monotonic() + self.limits.seconds
        content = None if body is None else msgspec.json.encode(body)
        connection = _Connection(parts, deadline, self.limits)
        try:
            connection.request(method, parts.path.rstrip("/") + path, content, self._headers(content))
            response = connection.getresponse()
            body = response.read(self.limits.most_bytes + 1)
            if response.length:
                raise http.client.IncompleteRead(body, response.length)
        except TimeoutError as error:
            raise self._failed(f"no whole answer within {self.limits.seconds:g} s") from error
        except _TooMuch as error:
            raise self._failed(f"an answer of more than {self.limits.most_bytes} bytes") from error
        except (http.client.HTTPException, UnicodeError, ValueError) as error:
            raise self._failed(f"what it sends is no HTTP ({type(error).__name__})") from error
        except OSError as error:
            why = error.strerror or type(error).__name__
            hint = "is the engine running, and is this its address?"
            raise EngineUnreachable(f"the engine at {self.url} cannot be reached: {why}", hint=hint) from error
        finally:
            connection.close()
            connection.hang_up()
        if 300 <= response.status < 400:
            raise self._failed(f"it redirects (status {response.status}), which is not followed")
        return HttpAnswer(response.status, body)

    def json(self, method: str, path: str, kind: type[_T], body: Any = None, *, pauses: Iterable[float] = ()) -> _T:
        """Ask, and read the answer as a ``kind``; an engine that is busy is asked again after each of the ``pauses``.

        Raises:
            EngineUnreachable: as :meth:`request`.
            EngineFailed: as :meth:`request`; or it answered with an error, or with something else.
        """
        answer = self.request(method, path, body)
        for pause in pauses:
            if answer.status not in _BUSY:
                break
            time.sleep(pause)
            answer = self.request(method, path, body)
        if not 200 <= answer.status < 300:
            raise self._failed(f"{method} {path} is answered with status {answer.status}: {quoted(answer.body)}")
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (*DECODE_ERRORS, ValueError) as error:
            raise self._failed(f"{method} {path} is answered with something else: {error}") from error

    def _headers(self, content: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return headers

    def _failed(self, what: str) -> EngineFailed:
        return EngineFailed(f"the engine at {self.url}: {what}", hint="its own log says more")


def parse_url(url: str) -> SplitResult:
    """The parts of an engine's URL.

    Raises:
        UsageError: it is no URL of an engine.
    """
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not all(32 < ord(each) < 127 for each in url):
        raise UsageError("this is no URL of an engine", hint="such as http://127.0.0.1:8080")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "the URL of the engine holds a name or a password", hint="put the key into a file of mode 0600"
        )
    if parts.query or parts.fragment:
        raise UsageError(f"{url}: the URL of an engine has no ? and no #", hint="such as http://127.0.0.1:8080")
    return parts


def quoted(body: bytes) -> str:
    """The beginning of an engine's message, without what a terminal would obey."""
    text = body[: 4 * _SHOWN].decode(errors="replace")
    return "".join(each if each.isprintable() else " " for each in text)[:_SHOWN].strip() or "nothing"


class _TooMuch(Exception):
    """More bytes came than the limits allow."""


class _BoundedReader(io.RawIOBase):
    """Reads a socket until a moment, and so many bytes."""

    def __init__(self, connected: socket.socket, deadline: float, most_bytes: int) -> None:
        self._socket = connected
        self._deadline = deadline
        self._left = most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        _await(self._socket, self._deadline)
        number = self._socket.recv_into(buffer)
        self._left -= number
        if self._left < 0:
            raise _TooMuch
        return number


class _BoundedSocket:
    """As much of a socket as ``http.client`` uses."""

    def __init__(self, connected: socket.socket, deadline: float, most_bytes: int) -> None:
        self._socket = connected
        self._deadline = deadline
        self._most_bytes = most_bytes

    def sendall(self, content: bytes) -> None:
        """As of a socket."""
        _await(self._socket, self._deadline)
        self._socket.sendall(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What is read of it, within the bounds."""
        return io.BufferedReader(_BoundedReader(self._socket, self._deadline, self._most_bytes))

    def close(self) -> None:
        """Nothing yet: ``http.client`` closes before it has read, as real sockets with an open file allow."""

    def hang_up(self) -> None:
        """Close it."""
        self._socket.close()


def _await(connected: socket.socket, deadline: float) -> None:
    """Let the next call on the socket last until then and no longer."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connected.settimeout(left)


class _Connection(http.client.HTTPConnection):
    """A connection within the bounds; it connects when it is used."""

    def __init__(self, parts: SplitResult, deadline: float, limits: HttpLimits) -> None:
        self._is_secure = parts.scheme == "https"
        super().__init__(str(parts.hostname), parts.port or (443 if self._is_secure else 80))
        self._deadline = deadline
        self._limits = limits
        self._bounded: Any = None
        self.sock: Any = None

    def connect(self) -> None:
        connected = socket.create_connection((self.host, self.port), timeout=self._limits.seconds)
        if self._is_secure:
            connected = ssl.create_default_context().wrap_socket(connected, server_hostname=self.host)
        self._bounded = self.sock = _BoundedSocket(connected, self._deadline, self._limits.most_bytes)

    def hang_up(self) -> None:
        """Close the socket, if there is one."""
        if self._bounded is not None:
            self._bounded.hang_up()
