"""The short-lived process that reads a large buffer, so that the daemon neither blocks nor grows.

``python -m sleepd.reader FD digest [LINE]`` or ``python -m sleepd.reader FD texts``. The buffer is the inherited
descriptor FD, opened by the daemon and at the place to read from: the beginning, or LINE of JSON lines. For ``texts``
the wanted keys are standard input, as an array of 64-bit integers. The answer is one MessagePack value on standard
output.

A half-written buffer is an answer too, not a failure.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from .digest import (
    MAX_LINE_BYTES,
    Digest,
    HalfWritten,
    decoded_line,
    digest_lines,
    digest_whole,
    form_of,
    pick,
    texts,
)
from .experience import Experience
from .status import SetAside

HEAD_BYTES = 2**20


class Reading(msgspec.Struct, kw_only=True):
    """What came of reading: figures, or texts, or why it is half-written."""

    form: str = "empty"
    keys: bytes = b""
    groups: bytes = b""
    saliences: bytes = b""
    set_aside: list[SetAside] = []
    set_aside_total: int = 0
    consumed: int = 0
    """JSON lines: bytes up to the end of the last complete line."""
    lines: int = 0
    """JSON lines: how many line ends there are up to there."""
    texts: list[Experience] = []
    half_written: str = ""


def read_digest(file: BinaryIO, *, first_line: int | None) -> Reading:
    """The figures of a buffer; with ``first_line`` those of the lines that were appended to it from that one on."""
    head = file.read(HEAD_BYTES)
    try:
        form = "lines" if first_line else form_of(head)
        if form != "lines":
            return _reading(digest_whole(head + file.read()))
        digest = Digest("lines").indexed()
        counter = _Counter()
        digest_lines(counter.complete_lines(head, file), digest, first=first_line or 1)
    except HalfWritten as error:
        return Reading(half_written=str(error))
    reading = _reading(digest)
    reading.consumed, reading.lines = counter.consumed, counter.line_ends
    return reading


def read_texts(file: BinaryIO, wanted: set[int]) -> Reading:
    """The texts of the wanted experiences."""
    head = file.read(HEAD_BYTES)
    try:
        if form_of(head) == "lines":
            lines = _Counter().complete_lines(head, file)
            return Reading(texts=pick((decoded_line(line) for line in lines), wanted))
        return Reading(texts=texts(head + file.read(), wanted))
    except HalfWritten as error:
        return Reading(half_written=str(error))


class _Counter:
    """Cuts a stream into complete lines and counts them; a torn last line is left for the next read.

    A last line without its end is complete where it is an object already.
    """

    def __init__(self) -> None:
        self.consumed = 0
        self.line_ends = 0

    def complete_lines(self, head: bytes, file: BinaryIO) -> Iterator[bytes]:
        rest, skipped = head, 0
        while True:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                self.consumed += len(line) + 1 + skipped
                self.line_ends += 1
                # What is too long is not held: its beginning went already, and it is set aside by its length.
                yield line if not skipped else b"x" * (MAX_LINE_BYTES + 1)
                skipped = 0
            if len(rest) > MAX_LINE_BYTES:
                skipped += len(rest)
                rest = b""
            chunk = file.read(HEAD_BYTES)
            if not chunk:
                if rest and not skipped and isinstance(decoded_line(rest), dict):
                    self.consumed += len(rest)
                    yield rest
                return
            rest += chunk


def _reading(digest: Digest) -> Reading:
    return Reading(
        form=digest.form,
        keys=digest.keys.tobytes(),
        groups=digest.groups.tobytes(),
        saliences=digest.saliences.tobytes(),
        set_aside=digest.set_aside,
        set_aside_total=digest.set_aside_total,
    )


def main() -> None:
    """Read standard input, answer on standard output."""
    descriptor, what, *first_line = sys.argv[1:]
    with open(int(descriptor), "rb") as file:
        if what == "digest":
            reading = read_digest(file, first_line=int(first_line[0]) if first_line else None)
        else:
            wanted = array("Q")
            wanted.frombytes(sys.stdin.buffer.read())
            reading = read_texts(file, set(wanted))
    sys.stdout.buffer.write(msgspec.msgpack.encode(reading))


if __name__ == "__main__":
    main()
