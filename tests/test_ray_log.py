"""Bytes as lines of a job's log, among whatever else a job prints."""

from __future__ import annotations

import io
import random

import pytest

from sleepd.cycles.remote.ray_log import LogReader, LogWriter
from sleepd.errors import ProtocolError


def written(*contents: bytes) -> str:
    log = io.StringIO()
    writer = LogWriter(log)
    for content in contents:
        writer.write(content)
        log.write("a line of a library\n")
    writer.end()
    return log.getvalue()


def test_bytes_come_back_whole() -> None:
    """Any bytes come back as they were, in whatever pieces the log is read, and the end is seen."""
    chance = random.Random(1)
    contents = [chance.randbytes(size) for size in (0, 1, 9000, 9001, 100_000)]
    text, reader, found = written(*contents), LogReader(), b""
    while text:
        size = chance.randrange(1, 30_000)
        found += reader.feed(text[:size])
        text = text[size:]
    assert found == b"".join(contents)
    assert (reader.is_ended, reader.last_line) == (True, "a line of a library")


def test_no_line_is_too_long_for_ray() -> None:
    """Ray cuts lines of more than 20,000 characters."""
    assert max(map(len, written(b"x" * 100_000).splitlines())) < 20_000


@pytest.mark.parametrize("spoil", [lambda lines: lines[1:], lambda lines: [lines[0][:-3] + "\n"]], ids=["lost", "cut"])
def test_spoiled_log_is_refused(spoil: object) -> None:
    """A line that is missing or damaged is no content."""
    lines = written(b"x" * 20_000).splitlines(keepends=True)
    with pytest.raises(ProtocolError, match="log"):
        LogReader().feed("".join(spoil(lines)))


def test_endless_line_is_dropped() -> None:
    """A line without end is not held."""
    reader = LogReader()
    assert reader.feed("x" * 3_000_000) == b""
    assert len(reader._rest) == 0
