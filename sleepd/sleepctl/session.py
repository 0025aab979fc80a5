"""What a command has at hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from sleepd.client import ANSWER_SECONDS, Client
from sleepd.clock import Clock
from sleepd.errors import DaemonNotRunning
from sleepd.protocol.control import Request

from .console import Console
from .exit_codes import ExitCode
from .pages.wording import ago
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

    def note_offline(self, absent: DaemonNotRunning, written_at: datetime) -> ExitCode:
        """That what is shown comes from disk, how old it is, and how to start the daemon; returns the exit code."""
        age = ago(written_at, self.clock.now())
        self.console.note(f"the daemon is not running; this is what it last wrote, {age}")
        self.console.note(f"hint: {absent.hint}")
        return ExitCode.NOT_RUNNING


Command = Callable[[Session], ExitCode]
