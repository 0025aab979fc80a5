"""``sleepctl notify``: start the operator's command once for each event that is to be told.

What was told is written down before the command starts: it is told at most once, also after a restart or a power cut.
What happens while nobody follows is told at the next start, from the daemon's own history. At the very first start
nothing of the past is told.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from sleepd.client import Client
from sleepd.config.reporting_config import NotifyConfig
from sleepd.errors import DECODE_ERRORS, ConfigError, RequestFailed, SleepdError
from sleepd.files import read_document, replace_file
from sleepd.protocol.answers import Cycles
from sleepd.protocol.control import Announcement, GetStatus, History
from sleepd.protocol.status import Status
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.session import Session
from sleepd.sleepctl.told_events import TellableEvent, Told, new_events

_CYCLES: Final = 50
_HOUR: Final = 3600.0
_RETRY_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 120.0
"""An alarm is told at most so long after it began."""
_QUIET: Final = frozenset({"progress", "state", "phase_started"})
"""Announcements that bring nothing to tell."""


def follow_and_notify(session: Session) -> ExitCode:
    """Until Ctrl-C; with ``--once`` until what is pending is told.

    Raises:
        ConfigError: no command is configured.
    """
    config = session.places.load_config().config.notify
    if not config.command:
        raise ConfigError("notify.command is empty: nobody is to be told", hint="sudoedit /etc/sage-sleepd/config.toml")
    notifier = EventNotifier(config, _told_file(session), session.console.note)
    if session.arguments.once:
        notifier.tell(*_ask(session))
        return ExitCode.OK
    while True:
        try:
            with Client(session.places.socket, _TICK_SECONDS) as client:
                announcements = client.subscribe()
                notifier.tell(*_ask(session))
                while _is_something_heard(announcements):
                    notifier.tell(*_ask(session))
        except SleepdError as error:
            session.console.note(f"notify: {error.message}; it is asked again in {_RETRY_SECONDS:g} s")
            time.sleep(_RETRY_SECONDS)


def _is_something_heard(announcements: Iterator[Announcement]) -> bool:
    """Waits for an announcement that may bring something to tell; False: none came, and it is time to ask anew."""
    try:
        return any(each.event not in _QUIET for each in announcements)
    except RequestFailed:  # quiet for so long; an alarm is not announced
        return False


def _ask(session: Session) -> tuple[Status, Cycles]:
    return session.ask(GetStatus(), Status), session.ask(History(limit=_CYCLES), Cycles)


def _told_file(session: Session) -> Path:
    if session.arguments.told:
        return Path(session.arguments.told)
    directory = (
        os.environ.get("STATE_DIRECTORY") or os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    )
    return Path(directory) / "sage-sleep-notified.json"


class EventNotifier:
    """Starts the command for what is new, one event after the other.

    Args:
        config: the command and its bounds.
        path: where it is written down what was told.
        note: gets a sentence for the journal.
        monotonic: the clock of the rate.
    """

    def __init__(
        self,
        config: NotifyConfig,
        path: Path,
        note: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._path = path
        self._note = note
        self._monotonic = monotonic
        self._starts: deque[float] = deque()
        self._held_back = 0

    def tell(self, status: Status, known: Cycles) -> None:
        """Tell what is new in the daemon's answers and among the events that are chosen."""
        told = self._read()
        events, now_told = new_events(status, known.cycles, told)
        if now_told == told:
            return
        path = self._path
        try:
            replace_file(path, msgspec.json.encode(now_told), mode=0o600)
        except OSError as error:
            raise ConfigError(
                f"{path}: what was told cannot be written down, so nobody is told: {error.strerror}",
                hint="name a file that this user may write: sleepctl notify --told PATH",
            ) from error
        for event in events:
            if {event.event, event.name} & set(self._config.events):
                self._start_bounded(event)

    def _read(self) -> Told | None:
        """None: it never ran."""
        try:
            return msgspec.json.decode(read_document(self._path), type=Told)
        except FileNotFoundError:
            return None
        except (OSError, *DECODE_ERRORS) as error:
            self._note(f"{self._path}: not understood, and begun anew: {error}")
            return None

    def _start_bounded(self, event: TellableEvent) -> None:
        now = self._monotonic()
        while self._starts and now - self._starts[0] >= _HOUR:
            self._starts.popleft()
        if len(self._starts) >= self._config.most_per_hour:
            self._held_back += 1
            self._note(f"not told, for {len(self._starts)} were told within the hour: {event.text}")
            return
        if self._held_back:
            more = f" ({self._held_back} more were not told: sleepctl history)"
            event, self._held_back = msgspec.structs.replace(event, text=event.text + more), 0
        self._starts.append(now)
        self._start(event)

    def _start(self, event: TellableEvent) -> None:
        text = " ".join(event.text.split())
        given = text.encode() + b"\n" + msgspec.json.encode(event) + b"\n"
        command = shlex.split(self._config.command)
        try:
            done = subprocess.run(command, input=given, timeout=self._config.seconds, check=False)
        except subprocess.TimeoutExpired:
            self._note(f"{command[0]}: killed after {self._config.seconds:g} s; not told: {text}")
        except OSError as error:
            self._note(f"{command[0]}: cannot be started: {error.strerror}; not told: {text}")
        else:
            if done.returncode:
                self._note(f"{command[0]}: exit status {done.returncode}; perhaps not told: {text}")
