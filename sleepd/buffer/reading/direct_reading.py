"""A buffer read at once and as a whole, for a command of the operator: without a daemon, a cursor or a process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from sleepd.buffer.learnables import HalfWritten, Learnable, ReadSettings
from sleepd.files import open_regular

from .buffer_paths import find_files, rated_directories
from .rating_files import RatingFiles
from .reader_process import read_learnables

LARGEST_BYTES: Final = 64 * 2**20
"""Of one file: a larger one would take more memory than a command should use."""


RATINGS: Final = "ratings"
"""The position of what is wrong with ratings."""


class Piece(NamedTuple):
    """What was found at one place."""

    file: Path
    position: str
    found: Learnable | str
    """What can be learned, or why the record, the file or its ratings cannot be read."""


def read_directly(
    paths: Sequence[str], settings: ReadSettings, *, largest_bytes: int | None = LARGEST_BYTES
) -> Iterator[Piece]:
    """What can be learned of all files, in their order, with the ratings beside them.

    A file of more than ``largest_bytes`` is not read.

    Raises:
        OSError: a file is there and cannot be opened.
    """
    warnings: list[Piece] = []
    found, ratings = find_files(paths), RatingFiles(lambda path, text: warnings.append(Piece(path, RATINGS, text)))
    ratings.read(rated_directories(paths, found))
    yield from warnings
    for path in found:
        try:
            file = open_regular(Path(os.path.realpath(path)))
        except FileNotFoundError:
            continue
        with file:
            rated = msgspec.structs.replace(settings, ratings=ratings.of(path))
            yield from _read(path, file, rated, largest_bytes)


def _read(path: Path, file: BinaryIO, settings: ReadSettings, largest_bytes: int | None) -> Iterator[Piece]:
    if largest_bytes is not None and os.fstat(file.fileno()).st_size > largest_bytes:
        yield Piece(path, "", f"larger than {largest_bytes // 2**20} MiB, which is left to the daemon")
        return
    try:
        for position, found in read_learnables(file, settings)[1]:
            yield Piece(path, position, found)
    except HalfWritten as error:
        yield Piece(path, "", str(error))
