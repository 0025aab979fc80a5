"""Bytes as lines of a Ray job's log, which is the one way that the Ray Jobs API has from a job to who submitted it.

``sage-sleepd NUMBER BASE64`` is one line, ``sage-sleepd end`` the last one. Whatever else stands in the log is left
out. A log can be read again from its beginning, so that a broken connection loses nothing.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, TextIO

from sleepd.errors import ProtocolError
from sleepd.protocol.remote_job import SAME_VERSION

_MARK: Final = "sage-sleepd "
_END: Final = "end"
_PIECE: Final = 9000
"""Bytes of a line; Ray cuts lines of more than 20,000 characters."""
_MOST_PENDING: Final = 2**20


class LogWriter:
    """Writes to the log of the job that this process is."""

    def __init__(self, log: TextIO) -> None:
        self._log = log
        self._number = 0

    def write(self, content: bytes) -> None:
        """Append these bytes."""
        for start in range(0, len(content), _PIECE):
            piece = base64.b64encode(content[start : start + _PIECE]).decode()
            self._log.write(f"{_MARK}{self._number} {piece}\n")
            self._number += 1
        self._log.flush()

    def end(self) -> None:
        """Nothing more comes."""
        self._log.write(f"{_MARK}{_END}\n")
        self._log.flush()


class LogReader:
    """Reads a log from its beginning."""

    def __init__(self) -> None:
        self._rest = ""
        self._number = 0
        self.is_ended = False
        self.last_line = ""
        """Of the others, for the story of a job that failed."""

    def feed(self, text: str) -> bytes:
        """What more of the log holds.

        Raises:
            ProtocolError: a line is missing or damaged.
        """
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > _MOST_PENDING:
            self._rest = ""  # no line of ours is so long
        return b"".join(map(self._content, lines))

    def _content(self, line: str) -> bytes:
        if not line.startswith(_MARK):
            self.last_line = line.strip()[:300] or self.last_line
            return b""
        number, _, content = line.removeprefix(_MARK).partition(" ")
        if number == _END:
            self.is_ended = True
            return b""
        if number != str(self._number):
            raise ProtocolError(
                f"expected line {self._number} of the job's log, found {number!r:.40}", hint=SAME_VERSION
            )
        self._number += 1
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError(f"line {number} of the job's log is damaged: {error}", hint=SAME_VERSION) from error
