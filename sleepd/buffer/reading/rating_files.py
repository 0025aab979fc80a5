"""The ratings beside the files of a buffer: read again when one of them changed."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from sleepd.buffer.ratings import read_ratings
from sleepd.files import open_regular
from sleepd.log import get_logger

from .buffer_paths import rating_files


class RatingFiles:
    """Of all directories of one buffer."""

    def __init__(self) -> None:
        self._identities: dict[Path, tuple[int, ...]] = {}
        self._by_directory: dict[Path, dict[str, float]] = {}

    def read(self, directories: Collection[Path]) -> None:
        """Read what changed. Blocks; call it in a thread."""
        for directory in directories:
            files = rating_files(directory)
            found = {path: _identity(path) for path in files}
            known = {path: one for path, one in self._identities.items() if path.parent == directory}
            if found == known:
                continue
            self._identities = {path: one for path, one in self._identities.items() if path.parent != directory} | found
            self._by_directory[directory] = _ratings(files)

    def of(self, directory: Path) -> dict[str, float]:
        """As ``ReadSettings.ratings``, for the files in a directory."""
        return self._by_directory.get(directory, {})


def _identity(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _ratings(paths: Collection[Path]) -> dict[str, float]:
    opened: list[tuple[str, BinaryIO]] = []
    with ExitStack() as stack:
        for path in paths:
            try:
                opened.append((path.name, stack.enter_context(open_regular(Path(os.path.realpath(path))))))
            except OSError as error:
                get_logger().warning("ratings_unreadable", text=f"{path}: {error.strerror or error}")
        found = read_ratings(opened)
    if found.skipped:
        first = found.skipped[0]
        text = f"{len(found.skipped)} lines of ratings are not used, the first: {first.position}: {first.reason}"
        get_logger().warning("ratings_skipped", text=text)
    return found.by_key
