"""Notices that the lines before a cursor are other lines now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Final

WHOLE_BYTES: Final = 8 * 2**20
"""So much is compared byte by byte, in ten milliseconds."""
PIECE_BYTES: Final = 2**18
SAMPLES: Final = 64
SAMPLE_BYTES: Final = 4096


def prefix_hash(descriptor: int, length: int) -> bytes:
    """Of the first ``length`` bytes of a file.

    Of more than ``WHOLE_BYTES`` it is that of samples: the beginning, the end and parts between, at even distances.
    Whoever changes the length of one line moves all that follows, and is noticed. A change of the same length that
    falls between the samples, and comes together with new lines, is not.
    """
    digest = hashlib.blake2b(digest_size=16)
    for start, size in _parts(length):
        digest.update(os.pread(descriptor, size, start))
    return digest.digest()


def _parts(length: int) -> Iterator[tuple[int, int]]:
    if length <= WHOLE_BYTES:
        yield from ((start, min(PIECE_BYTES, length - start)) for start in range(0, length, PIECE_BYTES))
        return
    last = length - SAMPLE_BYTES
    for number in range(SAMPLES):
        yield number * last // (SAMPLES - 1), SAMPLE_BYTES
