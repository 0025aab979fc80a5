"""What a command has at hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from sleepd.client import ANSWER_SECONDS, Client
from sleepd.clock import Clock
from sleepd.protocol import Request

from .console import Console
from .exit_codes import ExitCode
from .places import Places

STATUS_SECONDS = 5.0
"""The daemon never blocks for longer than a tenth of a second; one that takes this long hangs."""


class Session(NamedTuple):
    """What a command has at hand."""

    arguments: argparse.Namespace
    console: Console
    places: Places
    clock: Clock

    def ask(self, request: Request, kind: type[Any], *, timeout: float = ANSWER_SECONDS) -> Any:
        """One request on a connection of its own."""
        with Client(self.places.socket, timeout) as client:
            return client.call(request, kind)


Command = Callable[[Session], ExitCode]
