"""Which instance of an engine listens, seen without asking it: the sockets on which it takes connections.

The kernel numbers each listening socket, and ``/proc/net/tcp`` shows the numbers. A program that was restarted listens
on another one, whatever engine it is and however fast it came back. So a restart costs the engine no request. Where the
socket is none of this machine's (another host, a container's own network), only a connection tells that somebody is
there: then a restart is seen where it lasts into one of the looks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .http import parse_url

NEAR_SECONDS: Final = 3.0
"""Between two looks at this machine's sockets."""
FAR_SECONDS: Final = 30.0
"""Between two connections to an engine whose socket is not seen."""
CONNECT_SECONDS: Final = 3.0
_TABLES: Final = ("tcp", "tcp6")
_LISTENING: Final = "0A"
_SOMEBODY: Final = "somebody"
"""Answers there, and it cannot be told which instance it is."""


class ListeningEngine:
    """An engine's address.

    Args:
        url: of the engine.
        tables: where the kernel shows this machine's sockets.
    """

    def __init__(self, url: str, tables: Path = Path("/proc/net")) -> None:
        parts = parse_url(url)
        self._host = str(parts.hostname)
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tables = tables
        self._is_near = _is_of_this_machine(self._host)

    def instance(self) -> str:
        """A name for what listens there now; another one after a restart; empty: nobody does."""
        if self._is_near and (sockets := _listening(self._port, self._tables)):
            return "socket " + " ".join(sockets)
        try:
            socket.create_connection((self._host, self._port), timeout=CONNECT_SECONDS).close()
        except (OSError, UnicodeError):
            return ""
        return _SOMEBODY


def watch(instance: str, seconds: float, *, look: Callable[[], str], wait: Callable[[float], bool]) -> str:
    """Look again and again until another instance listens; which one does at the end.

    Args:
        instance: the one that was proved; empty: nobody listened.
        seconds: how long to look, at most.
        look: which one listens now.
        wait: waits so many seconds; True: nobody wants to know any more.
    """
    passed, now = 0.0, instance
    while passed < seconds:
        pause = min(seconds - passed, FAR_SECONDS if now == _SOMEBODY else NEAR_SECONDS)
        if wait(pause):
            break
        passed += pause
        now = look()
        if now != instance:
            return now
    return now


def _is_of_this_machine(host: str) -> bool:
    """Whether a socket can be bound to it."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, _, _, address in found:
        with socket.socket(family, kind) as own:
            try:
                own.bind(address)
            except OSError:
                return False
    return True


def _listening(port: int, tables: Path) -> list[str]:
    """The numbers of the sockets that listen on that port, on whichever address."""
    found, ending = list[str](), f":{port:04X}"
    for name in _TABLES:
        try:
            lines = (tables / name).read_text().splitlines()[1:]
        except OSError:  # a kernel without IPv6
            continue
        own = (fields for fields in map(str.split, lines) if fields[1].endswith(ending))
        found += [fields[9] for fields in own if fields[3] == _LISTENING]
    return sorted(found)
