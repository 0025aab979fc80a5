"""Logging: journald-native fields under systemd, readable lines on a terminal, JSON lines elsewhere.

One line an event, never one a step. An event's name is a past fact (``cycle_started``), its figures are fields.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import sys
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

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
}
"""What ``journalctl -x`` explains: systemd/sage-sleepd.catalog has the words."""
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
        last = JournalRenderer()
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


class JournalRenderer:
    """Sends each event to journald with its fields, and drops the line.

    Fields: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, SLEEPD_EVENT, SLEEPD_<FIELD> for each keyword
    (``SLEEPD_CYCLE``), and MESSAGE_ID where ``journalctl -x`` has an explanation.
    Protocol: systemd's "Native Journal Protocol". Where the datagram is refused, the line goes to standard error, with
    systemd's priority prefix.
    """

    def __init__(self, address: str = JOURNAL_SOCKET) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> str:
        """Send it; raises DropEvent once sent."""
        message, fields = _sentence(event), dict(event)
        name = str(fields.pop("event"))
        priority = _PRIORITY.get(str(fields.pop("level", method)), 6)
        fields.pop("timestamp", None)
        sent: dict[str, object] = {
            "MESSAGE": message,
            "PRIORITY": priority,
            "SYSLOG_IDENTIFIER": "sage-sleepd",
            "SLEEPD_EVENT": name,
        }
        if name in MESSAGE_IDS:
            sent["MESSAGE_ID"] = MESSAGE_IDS[name]
        sent.update({f"SLEEPD_{key.upper()}": value for key, value in fields.items()})
        try:
            self._socket.sendto(b"".join(_field(key, str(value)) for key, value in sent.items()), self._address)
        except OSError:
            return f"<{priority}>{message}"
        raise structlog.DropEvent


def _field(key: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" not in data:
        return key.encode() + b"=" + data + b"\n"
    return key.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"


def _sentence(event: EventDict) -> str:
    """``cycle started: cycle=7, trained=12``; a field called ``text`` comes first, as it is."""
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
    return f"{line}\n{event['exception']}" if event.get("exception") else line


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _readable(_logger: WrappedLogger, method: str, event: EventDict) -> str:
    """One line for a person at a terminal."""
    moment = str(event.get("timestamp", ""))[11:19]
    mark = {"error": "ERROR ", "warning": "warning: ", "exception": "ERROR "}.get(str(event.get("level", method)), "")
    return f"{moment}  {mark}{_sentence(event)}"
