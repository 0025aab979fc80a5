"""Keeps in ``rated_down.json`` which learned replies were rated down, so that none of them is repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from sleepd.buffer.rating.rated_down import FILE_NAME, encode_rated_down, rated_down, read_rated_down
from sleepd.buffer.rating.rating_names import REJECTED
from sleepd.buffer.reading.view import View
from sleepd.files import replace_file
from sleepd.log import get_logger
from sleepd.policy.selecting.selection import HashSet
from sleepd.store.reservoir import read_reservoir

from .history import PastCycles


class RatedDownKeeper:
    """Of one state directory.

    Raises:
        CheckpointInvalid: the file is there and cannot be understood.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self.keys = read_rated_down(directory)
        """Of the replies that are not repeated."""
        self._basis: tuple[object, ...] = (None, None, None)

    async def follow(self, view: View, ratings: Mapping[str, float], history: PastCycles) -> None:
        """Take in what the buffer and its ratings say now.

        Raises:
            OSError: the disk did not take it; the next call tries again.
            CheckpointInvalid: the champion's reservoir is damaged.
        """
        known, champion = history.known(), history.champion_directory()
        basis = (view, ratings, known)
        if all(one is other for one, other in zip(basis, self._basis, strict=True)):
            return
        found = await asyncio.to_thread(self._found, view, ratings, known.learned, champion)
        if found != self.keys:
            replace_file(self._path, encode_rated_down(found))
            if new := len(found - self.keys):
                text = f"{new} learned replies were rated down: they are not repeated"
                get_logger().info("replies_rated_down", count=new, text=text)
            self.keys = found
        self._basis = basis

    def _found(
        self, view: View, ratings: Mapping[str, float], learned: HashSet, champion: Path | None
    ) -> frozenset[int]:
        if not self.keys and not ratings and REJECTED not in view.saliences:
            return self.keys
        kept = read_reservoir(champion) if champion and ratings else []
        return rated_down(self.keys, buffer=view, is_learned=learned.__contains__, kept=kept, ratings=ratings)
