"""Where bundles lie between machines: here a directory; ``remote_shelf`` has a remote of rclone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from sleepd.files import is_regular, open_regular

from .archive import BundleReader, Front

MOST_FILES: Final = 1000
"""Entries of a shelf that are looked at."""


class ShelfFile(NamedTuple):
    """A file on a shelf. Its name decides nothing."""

    name: str
    size: int
    """-1: not known."""
    stamp: tuple[int | str, ...]
    """Changes with the content."""


class Shelf(Protocol):
    """What both can do. A hidden file is none of theirs."""

    def place(self, name: str) -> str:
        """The whole name of a file, for messages."""

    def entries(self) -> list[ShelfFile]:
        """The first files by name.

        Raises:
            OSError, RemoteFailed: they cannot be listed.
        """

    def identify(self, entry: ShelfFile) -> str:
        """The id of the bundle that the file begins as.

        Raises:
            BundleInvalid: it begins as none.
            OSError, RemoteFailed: it cannot be read.
        """

    def fetched(self, entry: ShelfFile, accept: Callable[[Front], object]) -> AbstractContextManager[Path]:
        """The whole file on this machine, in the context.

        Args:
            entry: the file.
            accept: raises where the bundle is refused by its front; the rest is not fetched then.

        Raises:
            BundleInvalid: it is no whole bundle.
            OSError, RemoteFailed: it cannot be read.
        """

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """Put what ``write`` writes into a new file under ``name``; it appears whole, or not at all.

        Raises:
            OSError, RemoteFailed: it cannot be written.
        """

    def abandon(self, name: str) -> None:
        """Remove what a ``put`` under ``name`` left that was cut.

        Raises:
            RemoteFailed: it cannot be removed.
        """

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone is no error.

        Raises:
            OSError, RemoteFailed: it cannot be removed.
        """


class DirectoryShelf:
    """A directory that Syncthing, NFS or a like program shows to several machines.

    Args:
        directory: there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def place(self, name: str) -> str:
        """As ``Shelf``."""
        return str(self._directory / name)

    def entries(self) -> list[ShelfFile]:
        """As ``Shelf``; a link or a pipe is none."""
        found = []
        for name in sorted(os.listdir(self._directory))[:MOST_FILES]:
            path = self._directory / name
            if not name.startswith(".") and is_regular(path):
                status = path.lstat()
                found.append(ShelfFile(name, status.st_size, (status.st_ino, status.st_size, status.st_mtime_ns)))
        return found

    def identify(self, entry: ShelfFile) -> str:
        """As ``Shelf``."""
        with open_regular(self._directory / entry.name) as file:
            return BundleReader(file, self.place(entry.name)).front().id

    @contextmanager
    def fetched(self, entry: ShelfFile, accept: Callable[[Front], object]) -> Iterator[Path]:
        """As ``Shelf``: the file itself."""
        path = self._directory / entry.name
        with open_regular(path) as file:
            accept(BundleReader(file, str(path)).front())
        yield path

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """As ``Shelf``."""
        write(self._directory / name)

    def abandon(self, name: str) -> None:
        """As ``Shelf``: what is written there removes its own temporary file."""

    def remove(self, name: str) -> None:
        """As ``Shelf``."""
        (self._directory / name).unlink(missing_ok=True)
