"""The experience buffer: one file or many, read and never written, as one view.

A poll looks at the times of all files and reads those that changed: a few of them each by itself, many of them in a
process (``reader_process``). Of an id that stands in several files the first one counts, with the salience that the
file changed last gives it. What a half-written, an
emptied and a missing file mean is decided for each file by itself (``source_file``, ``view``).
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sleepd.buffer.columns import IntArray
from sleepd.buffer.digest import MOST_SKIPPED, Skipped
from sleepd.buffer.experience import Experience, id_hash
from sleepd.buffer.learnables import READ_BY_DEFAULT, ReadSettings
from sleepd.clock import Clock
from sleepd.errors import BufferUnreadable
from sleepd.log import get_logger

from .buffer_paths import MOST_FILES, find_files, is_single, rated_directories
from .merging import merged_view
from .open_file import OPEN_SECONDS, BufferFile, identity_of
from .rating_files import RatingFiles
from .reader_client import ReaderProcess
from .screening_starts import FROM_THE_BEGINNING, Start
from .source_file import LARGE_BYTES, Due, Extract, SourceFile
from .stuck_calls import Caller, Stuck
from .view import View

AT_ONCE: Final = 64
"""Files that one process reads: each takes a descriptor."""
FEW: Final = 4
"""So many files that changed are read each by itself, as it is done where an agent appends to one of them."""


class Part(NamedTuple):
    """Some experiences of one file."""

    file: BufferFile
    keys: IntArray
    start: Start = FROM_THE_BEGINNING
    """None of them stands before it."""


class ExperienceBuffer:
    """Reads the files that ``paths`` name; see ``buffer_paths``.

    Args:
        paths: a file, a directory, a pattern, or several of these.
        patience_seconds: a file that stays half-written for longer is a problem.
        clock: where time comes from.
        settings: how they are read.
        python: the interpreter of the reader process, which reads what is more than ``large_bytes`` at once.
    """

    def __init__(
        self,
        paths: Path | Sequence[str],
        *,
        patience_seconds: float,
        clock: Clock,
        settings: ReadSettings = READ_BY_DEFAULT,
        python: str = sys.executable,
        large_bytes: int = LARGE_BYTES,
    ) -> None:
        self._paths = (str(paths),) if isinstance(paths, Path) else tuple(paths)
        self._clock = clock
        self.settings = settings
        """How they are read."""
        self._new_file: Callable[[Path], SourceFile] = partial(
            SourceFile,
            patience_seconds=patience_seconds,
            clock=clock,
            settings=settings,
            python=python,
            large_bytes=large_bytes,
        )
        self._name = ", ".join(self._paths)
        self._reader = ReaderProcess(self._name, python, clock)
        self._caller = Caller("buffer-look")
        self._files: dict[Path, SourceFile] = {}
        self._identities: dict[Path, tuple[int, ...]] = {}
        """Of each file when it was read last."""
        self._unreadable: dict[Path, BufferUnreadable] = {}
        self._views: tuple[View, ...] = ()
        """Of which ``view`` was made."""
        self._problems_before: list[Skipped] = []
        self._ratings = RatingFiles(_warn_of_ratings)
        self._reading = asyncio.Lock()
        self.view = View()
        """The last good view."""

    @property
    def ratings(self) -> Mapping[str, float]:
        """Those that stand beside its files; the same object as long as nothing changed."""
        return self._ratings.all

    def ratings_without_reply(self) -> list[str]:
        """As ``RatingFiles.without_reply``."""
        return self._ratings.without_reply([(path, source.view.rated) for path, source in self._files.items()])

    def files_with(self, wanted: IntArray) -> list[Part]:
        """Where these experiences stand, for whoever reads them in another process.

        What stands in a file that is half-written, or cannot be read, is left out: its view is of what it was before.

        Args:
            wanted: keys of the view, in its order.
        """
        parts, place = list[Part](), 0
        for source in self._files.values():
            here, first, number = array("Q"), None, 0
            while place < len(wanted):
                try:
                    number = source.view.keys.index(wanted[place], number)
                except ValueError:
                    break
                here.append(wanted[place])
                first = number if first is None else first
                place += 1
            start = source.screening_start(first)
            if here and not source.view.is_settling and not source.view.problem:
                parts.append(Part(source.file, here, start))
        return parts

    async def read(self) -> View:
        """Poll the files; the same object is returned as long as nothing changed.

        Raises:
            BufferUnreadable: none of them can be read.
        """
        async with self._reading:
            if is_single(self._paths):
                path = Path(self._paths[0])
                rotated = await self._look()
                if list(rotated) in ([path], []):
                    if list(self._files) != [path]:
                        self._files, self._identities = {path: self._files.get(path) or self._new_file(path)}, {}
                    self._files[path].rate(self._ratings.of(path))
                    self.view = await self._files[path].read()
                    return self.view
            else:
                rotated = await self._look()
            return await self._read_changed(rotated)

    async def extract(self, wanted: Collection[int], *, characters: int | None = None) -> list[Experience]:
        """The texts of the wanted experiences that are still there, in file order; see ``SourceFile.extract``.

        Of several files those that cannot be read are left out.

        Raises:
            BufferUnreadable: the only file is gone, unreadable, or stays half-written.
        """
        return (await self.extract_with_answers(wanted, characters=characters)).texts

    async def extract_with_answers(
        self, wanted: Collection[int], *, characters: int | None = None, answers_of: Collection[int] = ()
    ) -> Extract:
        """As ``extract``, and the hashes of other replies; see ``SourceFile.extract``.

        Raises:
            BufferUnreadable: as ``extract``.
        """
        if not self._files:
            await self.read()
        if len(self._files) == 1:
            only = next(iter(self._files.values()))
            return await only.extract(wanted, characters=characters, answers_of=answers_of)
        asked = frozenset(wanted)
        left, hashed, found, answers = set(asked), set(answers_of), list[Experience](), array("Q")
        for source in list(self._files.values()):
            here, hashed_here = left.intersection(source.view.keys), hashed.intersection(source.view.keys)
            left -= here
            hashed -= hashed_here
            # Of a file that is not what it was the texts cannot be had; what stands in the others can.
            if (here or hashed_here) and not source.view.problem:
                with suppress(BufferUnreadable):
                    texts, said = await source.extract(here, characters=characters, answers_of=hashed_here)
                    found += texts
                    answers += said
        saliences = {key: each for key, _, each in self.view.rows() if key in asked}
        texts = [_with_salience(one, saliences.get(id_hash(one.id), one.salience)) for one in found]
        return Extract(texts, answers)

    # --- one poll ---

    async def _look(self) -> dict[Path, tuple[int, ...]]:
        """Each file with its times. A path that is no regular file, or cannot be reached, has none.

        Raises:
            BufferUnreadable: the file system does not answer, or there are too many files.
        """
        try:
            found = await self._caller.call(self._look_now, seconds=OPEN_SECONDS, undo=lambda _: None)
        except Stuck:
            raise BufferUnreadable(
                f"{self._name}: the file system has not answered for more than {OPEN_SECONDS:g} s",
                hint="check the share or disk that holds it: journalctl -k; the daemon reads it once that answers",
            ) from None
        if len(found) > MOST_FILES:
            raise BufferUnreadable(
                f"{self._name}: expected at most {MOST_FILES} files, found more",
                hint="name a directory or a pattern with fewer files in [buffer] path",
            )
        return found

    def _look_now(self) -> dict[Path, tuple[int, ...]]:
        found = _looked(self._paths)
        self._ratings.read(rated_directories(self._paths, found))
        return found

    async def _read_changed(self, looked: dict[Path, tuple[int, ...]]) -> View:
        for path in looked:
            if path not in self._files:
                self._files[path] = self._new_file(path)
        for path, source in self._files.items():
            if source.rate(self._ratings.of(path)):
                self._identities.pop(path, None)
        changed = [
            path
            for path, source in self._files.items()
            if looked.get(path, ()) != self._identities.get(path) or not looked.get(path) or source.is_waiting
        ]
        await self._read_each(changed) if len(changed) <= FEW else await self._read_together(changed)
        self._identities = looked
        for path in [path for path in self._files if path not in looked and not self._files[path].view.keys]:
            del self._files[path]
        # In the order of the paths, whenever they were found.
        self._files = {path: self._files[path] for path in [*looked, *(self._files.keys() - looked.keys())]}
        if self._unreadable and len(self._unreadable) == len(self._files):
            raise next(iter(self._unreadable.values()))
        return await self._merge()

    async def _read_each(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._unreadable.pop(path, None)
            try:
                await self._files[path].read()
            except BufferUnreadable as error:
                self._unreadable[path] = error

    async def _read_together(self, paths: Sequence[Path]) -> None:
        """In a process for some at a time. Where it fails, each file is read by itself: one of them is the cause."""
        for start in range(0, len(paths), AT_ONCE):
            due: dict[Path, Due] = {}
            try:
                for path in paths[start : start + AT_ONCE]:
                    self._unreadable.pop(path, None)
                    try:
                        one = await self._files[path].due()
                    except BufferUnreadable as error:
                        self._unreadable[path] = error
                        continue
                    if one is not None:
                        due[path] = one
                await self._read_due(due)
            finally:
                for one in due.values():
                    os.close(one.descriptor)

    async def _read_due(self, due: dict[Path, Due]) -> None:
        if not due:
            return
        try:
            readings = await self._reader.read_all(
                [one.descriptor for one in due.values()], [one.request for one in due.values()]
            )
        except BufferUnreadable:
            await self._read_each(due)
            return
        for (path, one), reading in zip(due.items(), readings, strict=True):
            self._files[path].take(one, reading)

    async def _merge(self) -> View:
        """One view of all files; the same object where each has its view of before.

        A file that cannot be read is counted as skipped: the others are used. Only where nothing can be read it is a
        problem of the buffer.
        """
        views, problems = tuple(source.view for source in self._files.values()), self._problems()
        is_same = len(views) == len(self._views) and all(a is b for a, b in zip(views, self._views, strict=True))
        if not is_same or problems != self._problems_before or self.view.read_at is None:
            times = [self._identities.get(path, ())[3:4] for path in self._files]
            merged = await asyncio.to_thread(merged_view, views, _short_names(self._files), times)
            merged.read_at = self._clock.now()
            merged.skipped[:0] = problems[:MOST_SKIPPED]
            merged.skipped_total += len(problems)
            if problems and not merged.keys:
                merged.problem = f"{problems[0].position}: {problems[0].reason}"
            self.view, self._views, self._problems_before = merged, views, problems
        self.view.is_settling = any(view.is_settling for view in views)
        return self.view

    def _problems(self) -> list[Skipped]:
        """Each file that cannot be read, and why."""
        found = {path: self._unreadable[path].message for path in self._files if path in self._unreadable}
        found |= {path: source.view.problem for path, source in self._files.items() if source.view.problem}
        if not found:
            return []
        names = dict(zip(self._files, _short_names(self._files), strict=True))
        return [Skipped(position=names[path], reason=why.removeprefix(f"{path}: ")) for path, why in found.items()]


def _warn_of_ratings(path: Path, text: str) -> None:
    get_logger().warning("ratings_skipped", text=f"{path}: {text}")


def _looked(paths: Sequence[str]) -> dict[Path, tuple[int, ...]]:
    found: dict[Path, tuple[int, ...]] = {}
    for path in find_files(paths):
        try:
            status = os.stat(path)
        except OSError:
            if len(paths) == 1 and is_single(paths):
                continue
            found[path] = ()
        else:
            found[path] = identity_of(status) if stat.S_ISREG(status.st_mode) else ()
    return found


def _short_names(paths: Collection[Path]) -> list[str]:
    """Each file's name for the place of a record: as short as it can be."""
    counts = Counter(path.name for path in paths)
    names = [path.name if counts[path.name] == 1 else str(path) for path in paths]
    return [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]


def _with_salience(experience: Experience, salience: float) -> Experience:
    return experience if experience.salience == salience else msgspec.structs.replace(experience, salience=salience)
