"""Logging: journald-native fields under systemd, readable lines on a terminal, JSON lines elsewhere.

One line an event, never one a step. An event's name is a past fact (``cycle_started``), its figures are fields.
Text in it may come from a buffer: no such text reaches a terminal or starts a line (``text.display``).
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NoReturn

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from .text.display import clean, clean_lines

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
MESSAGE_IDS: Final = {
    "cycle_failed": "5bdcdd8b8b1c4403a250edbfea879176",
    "candidate_rejected": "a1786004a57e455ca5954737c09be00a",
    "disk_full": "7ce7bcffe62f4568a340119a03ca0108",
    "state_not_recorded": "890db522d9714b919893da77ad30b064",
    "gpu_unusable": "3c51149c818e4c28945d12377a73f949",
    "buffer_unreadable": "348bfbf1804f4014af3a9ed9933f632c",
    "champion_damaged": "7a357151af514ed7aec9500e8ac4c2d8",
    "champion_rolled_back": "3bb9dc6e568f4cc58b996abe1d02febd",
    "config_refused": "778ec5f59ca049fb92861597cd6bc84e",
    "serving_failed": "080c8a8995bf4f769c1ff249b4fba272",
}
"""What ``journalctl -x`` explains: systemd/sage-sleepd.catalog has the words."""
_LOST: Final = "log lines lost: {} could not be written while journald was away"
_PRIORITY: Final = {"critical": 2, "error": 3, "exception": 3, "warning": 4, "info": 6, "debug": 7}


def configure(level: str, *, stream: Any = None) -> None:
    """Send the log where this process's standard error goes: to the journal, a terminal, or a file.

    Args:
        level: the least severe kept: debug, info, warning or error.
        stream: instead of standard error, in tests.
    """
    stream = stream or sys.stderr
    kept = logging.getLevelNamesMapping()[level.upper()]
    last: Processor
    if stream is sys.stderr and is_journal(stream.fileno(), os.environ.get("JOURNAL_STREAM", "")):
        last = _journal()
    elif stream.isatty():
        last = _readable
    else:
        last = structlog.processors.JSONRenderer(default=str)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(kept),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def get_logger() -> Any:
    """The log. Its methods take an event's name and its figures as keywords."""
    return structlog.get_logger()


def is_journal(descriptor: int, journal_stream: str) -> bool:
    """Whether the descriptor is the stream that $JOURNAL_STREAM says leads to the journal (systemd.exec(5))."""
    device, _, inode = journal_stream.partition(":")
    status = os.fstat(descriptor)
    return stat.S_ISSOCK(status.st_mode) and (device, inode) == (str(status.st_dev), str(status.st_ino))


@cache
def _journal() -> JournalRenderer:
    """The one of this process: what it has lost is still known after a reload."""
    return JournalRenderer()


class JournalRenderer:
    """Sends each event to journald with its fields, and drops the line.

    Fields: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, SLEEPD_EVENT, SLEEPD_<FIELD> for each keyword
    (``SLEEPD_CYCLE``), and MESSAGE_ID where ``journalctl -x`` has an explanation.
    Protocol: systemd's "Native Journal Protocol". Where the datagram is refused, the line goes to standard error, with
    systemd's priority prefix. Where that leads nowhere either, because journald is stopped, the line is lost, and how
    many were is logged first when it is back. A missing log never stops a cycle.

    Args:
        address: where journald listens.
        descriptor: of standard error.
    """

    def __init__(self, address: str = JOURNAL_SOCKET, *, descriptor: int = 2) -> None:
        self._address = address
        self._descriptor = descriptor
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> NoReturn:
        """Send it; raises DropEvent, because nobody else is to print it."""
        if self._lost and self._send(_LOST.format(self._lost), 4, {"SLEEPD_EVENT": "log_lines_lost"}):
            self._lost = 0
        message, fields = _sentence(event), dict(event)
        name = str(fields.pop("event"))
        priority = _PRIORITY.get(str(fields.pop("level", method)), 6)
        fields.pop("timestamp", None)
        known = {"MESSAGE_ID": MESSAGE_IDS[name]} if name in MESSAGE_IDS else {}
        own = {f"SLEEPD_{key.upper()}": value for key, value in fields.items()}
        if not self._send(message, priority, {"SLEEPD_EVENT": name, **known, **own}) and not self._print(
            # Each line has its own prefix: systemd would take one from the text.
            "".join(f"<{priority}>{line}\n" for line in message.split("\n"))
        ):
            self._lost += 1
        raise structlog.DropEvent

    def _send(self, message: str, priority: int, fields: Mapping[str, object]) -> bool:
        sent = {"MESSAGE": message, "PRIORITY": priority, "SYSLOG_IDENTIFIER": "sage-sleepd", **fields}
        try:
            data = b"".join(_field(key, "\n".join(clean_lines(str(value)))) for key, value in sent.items())
            self._socket.sendto(data, self._address)
        except OSError:
            return False
        return True

    def _print(self, line: str) -> bool:
        try:
            os.write(self._descriptor, line.encode("utf-8", "replace"))
        except OSError:
            return False
        return True


def _field(key: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" not in data:
        return key.encode() + b"=" + data + b"\n"
    return key.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"


def _sentence(event: EventDict) -> str:
    """``cycle started: cycle=7, trained=12``; a field called ``text`` comes first. A traceback follows, indented."""
    fields = {
        key: value for key, value in event.items() if key not in ("event", "level", "timestamp", "exception", "text")
    }
    figures = ", ".join(f"{key}={_short(value)}" for key, value in fields.items() if value not in (None, ""))
    parts = [str(event["event"]).replace("_", " ")]
    if event.get("text"):
        parts.append(str(event["text"]))
    if figures:
        parts.append(figures)
    line = ": ".join(parts[:2]) + (f" ({parts[2]})" if len(parts) > 2 else "")
    return "\n    ".join([clean(line), *clean_lines(str(event.get("exception") or ""))])


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _readable(_logger: WrappedLogger, method: str, event: EventDict) -> str:
    """One line for a person at a terminal."""
    moment = str(event.get("timestamp", ""))[11:19]
    mark = {"error": "ERROR ", "warning": "warning: ", "exception": "ERROR "}.get(str(event.get("level", method)), "")
    return f"{moment}  {mark}{_sentence(event)}"
