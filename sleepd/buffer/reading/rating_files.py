"""The ratings beside the files of a buffer: read again when one of them changed.

What stands in a directory counts for the files in it and below it. Of two ratings of one reply the nearer one counts.
"""

from __future__ import annotations

import os
from collections import ChainMap, defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from sleepd.buffer.experience import id_hash
from sleepd.buffer.rating.ratings import read_ratings
from sleepd.files import open_regular

from .buffer_paths import rating_files


class RatingFiles:
    """Of all directories of one buffer.

    Args:
        warn: called with a file, or a directory of several, and what of its ratings is not used.
    """

    def __init__(self, warn: Callable[[Path, str], None]) -> None:
        self._warn = warn
        self._identities: dict[Path, dict[Path, tuple[int, ...]]] = {}
        """Of the files in each directory."""
        self._by_directory: dict[Path, dict[str, float]] = {}
        self._places: dict[Path, dict[str, str]] = {}
        """As ``Ratings.places``."""
        self._merged: dict[tuple[Path, ...], dict[str, float]] = {}
        self._of: dict[str, dict[str, float]] = {}
        """What was asked for since one of them changed."""

    def read(self, directories: Collection[Path]) -> None:
        """Read what changed. Blocks; call it in a thread."""
        for directory in directories:
            files = rating_files(directory)
            found = {path: _identity(path) for path in files}
            if found != self._identities.get(directory, {}):
                self._identities[directory] = found
                self._by_directory[directory] = self._ratings(directory, files)
                self._merged, self._of = {}, {}

    def of(self, file: Path) -> dict[str, float]:
        """As ``ReadSettings.ratings``, for one file of the buffer; the same object as long as nothing changed."""
        directory = os.path.dirname(file)
        if directory not in self._of:
            above = tuple(each for each in reversed(file.parents) if self._by_directory.get(each))
            self._of[directory] = self._merge(above)
        return self._of[directory]

    @property
    def all(self) -> dict[str, float]:
        """Those of all directories."""
        return self._merge(tuple(sorted(self._by_directory)))

    def without_reply(self, rated: Iterable[tuple[Path, Iterable[int]]]) -> list[str]:
        """Where the feedback stands that names no reply of the files that it counts for, the newest of a directory
        first. May take a moment.

        Args:
            rated: each file, and as ``Digest.rated`` of it.
        """
        found, known = list[str](), defaultdict[Path, set[int]](set)
        for file, names in rated:
            for above in file.parents if names else ():
                known[above].update(names)
        for directory, places in sorted(self._places.items()):
            here = known[directory]
            found += [str(directory / each) for key, each in reversed(places.items()) if id_hash(key) not in here]
        return found

    def _merge(self, directories: tuple[Path, ...]) -> dict[str, float]:
        if directories not in self._merged:
            self._merged[directories] = dict(ChainMap(*(self._by_directory[each] for each in reversed(directories))))
        return self._merged[directories]

    def _ratings(self, directory: Path, paths: Collection[Path]) -> dict[str, float]:
        opened: list[tuple[str, BinaryIO]] = []
        with ExitStack() as stack:
            for path in paths:
                try:
                    opened.append((path.name, stack.enter_context(open_regular(Path(os.path.realpath(path))))))
                except OSError as error:
                    self._warn(path, f"its ratings are not used: {error.strerror or error}")
            found = read_ratings(opened)
        if found.skipped:
            first, count = found.skipped[0], len(found.skipped)
            self._warn(directory, f"{count} lines of ratings are not used, the first: {first.position}: {first.reason}")
        self._places[directory] = found.places
        return found.by_key


def _identity(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
