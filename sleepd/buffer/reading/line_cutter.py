"""A file of lines, cut into complete ones while its writer is at work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from sleepd.buffer.parsing import decoded_line
from sleepd.protocol.experience_record import MAX_LINE_BYTES

HEAD_BYTES = 2**20


class FirstBytes:
    """A file as long as it was at the poll: what is appended while it is read is left for the next poll."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def seek(self, place: int) -> None:
        """Read from there on."""
        self._file.seek(place)

    def read(self, most: int = -1) -> bytes:
        """As a file's."""
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if most < 0 else min(most, left))

    def fileno(self) -> int:
        """As a file's."""
        return self._file.fileno()


Source = BinaryIO | FirstBytes


class LineCutter:
    """Cuts a stream into complete lines and counts them; a torn last line is left for the next read.

    A last line without its end is complete where it is an object already.
    """

    def __init__(self) -> None:
        self.consumed = 0
        self.line_ends = 0
        self.unfinished = 0

    def complete_lines(self, head: bytes, file: Source) -> Iterator[bytes]:
        """The lines of what begins with ``head`` and goes on in the file."""
        rest, skipped_bytes = head, 0
        while True:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                self.consumed += len(line) + 1 + skipped_bytes
                self.line_ends += 1
                # What is too long is not held: its beginning went already, and it is skipped by its length.
                yield line if not skipped_bytes else b"x" * (MAX_LINE_BYTES + 1)
                skipped_bytes = 0
            if len(rest) > MAX_LINE_BYTES:
                skipped_bytes += len(rest)
                rest = b""
            chunk = file.read(HEAD_BYTES)
            if not chunk:
                if rest and not skipped_bytes and isinstance(decoded_line(rest), dict):
                    self.consumed += len(rest)
                    yield rest
                elif rest.strip() or skipped_bytes:
                    self.unfinished = len(rest) + skipped_bytes
                return
            rest += chunk
