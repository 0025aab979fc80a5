"""The longest experience of a buffer, for the memory that ``doctor`` expects a cycle to take."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sleepd.buffer.experience import Experience
from sleepd.buffer.learnables import HalfWritten
from sleepd.buffer.reader_process import read_learnables
from sleepd.config.schema import Config
from sleepd.files import open_regular
from sleepd.protocol.capability import ShownText
from sleepd.sleepctl.offline_cycle import LARGEST_BYTES


def longest_experience(config: Config) -> bytes:
    """As a JSON object, a ``ShownText``; empty: there is none, or the caller cannot read the buffer."""
    longest: Experience | None = None
    try:
        with open_regular(Path(os.path.realpath(config.buffer.path))) as file:
            if os.fstat(file.fileno()).st_size > LARGEST_BYTES:
                return b""
            for _, found in read_learnables(file)[1]:
                if not isinstance(found, str) and found.salience >= config.training.min_salience:
                    one = found.experience()
                    longest = max(longest or one, one, key=lambda each: each.characters)
    except (OSError, HalfWritten):
        return b""
    if longest is None:
        return b""
    return msgspec.json.encode(ShownText(**longest.parts()))
