"""Questions to the daemon, from several requests of browsers at once."""

from __future__ import annotations

import threading
from typing import TypeVar

from sleepd.client import Client
from sleepd.errors import Busy
from sleepd.protocol.control import Request

QUESTIONS = 8
"""Connections at a time. The daemon allows a process 16; one more is taken by the live events."""
PATIENCE_SECONDS = 20.0
"""A page that waits longer would be closed by whoever waits."""

_T = TypeVar("_T")


class DaemonAccess:
    """The daemon on one control socket."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self._places = threading.BoundedSemaphore(QUESTIONS)

    def ask(self, request: Request, kind: type[_T]) -> _T:
        """The answer to one request, on a connection of its own.

        Raises:
            SleepdError: the daemon cannot be reached, refuses, or failed.
        """
        if not self._places.acquire(timeout=PATIENCE_SECONDS):
            raise Busy("too many pages are being made at once", hint="load the page again in a moment")
        try:
            with Client(self.socket_path, PATIENCE_SECONDS) as client:
                return client.call(request, kind)
        finally:
            self._places.release()
