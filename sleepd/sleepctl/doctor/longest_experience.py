"""The longest experience of a buffer, for the memory that ``doctor`` expects a cycle to take."""

from __future__ import annotations

import msgspec

from sleepd.buffer.experience import Experience
from sleepd.buffer.learnables import read_settings
from sleepd.buffer.reading.direct_reading import read_directly
from sleepd.config.schema import Config
from sleepd.protocol.capability import ShownText


def longest_experience(config: Config) -> bytes:
    """As a JSON object, a ``ShownText``; empty: there is none, or the caller cannot read the buffer."""
    longest: Experience | None = None
    try:
        for piece in read_directly(config.buffer.paths, read_settings(config.buffer)):
            if not isinstance(piece.found, str) and piece.found.salience >= config.training.min_salience:
                one = piece.found.experience()
                longest = max(longest or one, one, key=lambda each: each.characters)
    except OSError:
        return b""
    return msgspec.json.encode(ShownText(**longest.parts())) if longest else b""
