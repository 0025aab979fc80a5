"""Bundles through a remote of rclone.

Rule 1: what a file is, its first 81 KiB say: they hold the signed header and the signature. The rest is fetched only
where the header is signed by an allowed signer, the size is that of the whole bundle, and there is room for it.
Rule 2: what has come of a bundle stays below ``sync/`` in the state directory. After a cut the rest is asked for, not
all of it. Whether the pieces belong together the hashes of the bundle decide.
Rule 3: what goes up gets a hidden name, and its own name once it is whole. An upload that was cut begins anew; pieces
of it are retried by rclone itself.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sleepd.errors import BundleInvalid, RemoteFailed
from sleepd.files import FILE_MODE, make_directory

from .archive import MAX_FRONT_BYTES, BundleReader, Front
from .rclone import Rclone
from .shelf import MOST_FILES, ShelfFile

DIRECTORY: Final = "sync"
_TRIES: Final = 3
"""For one bundle in one round, as long as each brings more of it."""
_NO_BUNDLE: Final = ""
_PART: Final = ".part"


class RemoteShelf:
    """One folder of one remote, as ``Shelf``.

    Args:
        rclone: reaches the folder.
        state: the state directory.
    """

    def __init__(self, rclone: Rclone, state: Path) -> None:
        self._rclone = rclone
        self._directory = state / DIRECTORY
        self._ids: dict[ShelfFile, str] = {}
        """Of each file that was looked at, which bundle it begins as; empty: none."""

    def place(self, name: str) -> str:
        """As ``Shelf``."""
        return self._rclone.place(name)

    def entries(self) -> list[ShelfFile]:
        """As ``Shelf``; a file whose name could be a path is none."""
        listed = sorted(self._rclone.listed(), key=lambda each: each.name)
        found = [
            ShelfFile(each.name, each.size, (each.size, each.changed))
            for each in listed
            if each.name and not each.name.startswith(".") and each.name.isprintable() and "/" not in each.name
        ][:MOST_FILES]
        self._ids = {entry: self._ids[entry] for entry in found if entry in self._ids}
        return found

    def identify(self, entry: ShelfFile) -> str:
        """As ``Shelf``; a file that did not change is not read again."""
        if entry not in self._ids:
            self._ids[entry] = _NO_BUNDLE
            try:
                self._ids[entry] = self._front(entry).id
            except RemoteFailed:
                del self._ids[entry]
                raise
        if self._ids[entry] == _NO_BUNDLE:
            raise BundleInvalid(f"{self.place(entry.name)}: it does not begin as a bundle", hint="look at the file")
        return self._ids[entry]

    def _front(self, entry: ShelfFile) -> Front:
        beginning = self._rclone.beginning(entry.name, MAX_FRONT_BYTES)
        return BundleReader(io.BytesIO(beginning), self.place(entry.name)).front()

    @contextmanager
    def fetched(self, entry: ShelfFile, accept: Callable[[Front], object]) -> Iterator[Path]:
        """As ``Shelf``."""
        front, place = self._front(entry), self.place(entry.name)
        accept(front)
        if entry.size not in (-1, front.whole_bytes):
            text = f"{place}: {entry.size} bytes are there, the whole bundle has {front.whole_bytes}"
            raise BundleInvalid(text, hint="wait until all of it has come")
        make_directory(self._directory)
        self._sweep({_part_of(each) for each in self._ids})
        part = self._directory / _part_of(entry)
        self._bring(entry, part, front.whole_bytes)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def _bring(self, entry: ShelfFile, part: Path, whole: int) -> None:
        """All bytes of a bundle, from where an earlier try was cut."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(part, flags, FILE_MODE), "ab") as file:
            have = os.fstat(file.fileno()).st_size
            for _ in range(_TRIES):
                if have >= whole:
                    return
                before, why = have, "the line was cut"
                try:
                    self._rclone.append(entry.name, file, offset=have, most=whole - have)
                except RemoteFailed as error:
                    why = error.message
                have = os.fstat(file.fileno()).st_size
                if have == before:
                    break
        if have < whole:
            text = f"{self.place(entry.name)}: {have} of {whole} bytes have come: {why}"
            raise RemoteFailed(text, hint="the next round goes on from there")

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """As ``Shelf``."""
        make_directory(self._directory)
        self._sweep({path.name for path in self._directory.glob(f"*{_PART}")})
        file = self._directory / name
        try:
            write(file)
            self._rclone.upload(file, _hidden(name))
        finally:
            file.unlink(missing_ok=True)
        self._rclone.rename(_hidden(name), name)

    def abandon(self, name: str) -> None:
        """As ``Shelf``."""
        self._rclone.delete(_hidden(name))

    def remove(self, name: str) -> None:
        """As ``Shelf``."""
        self._rclone.delete(name)

    def _sweep(self, kept: set[str]) -> None:
        """Remove what a killed process left, and parts of what is not offered any more."""
        for path in self._directory.iterdir():
            if path.name not in kept:
                path.unlink()


def _part_of(entry: ShelfFile) -> str:
    """Where what has come of it stands: of a file that changed, another one."""
    return hashlib.sha256(repr(entry).encode()).hexdigest() + _PART


def _hidden(name: str) -> str:
    return f".{name}.tmp"
