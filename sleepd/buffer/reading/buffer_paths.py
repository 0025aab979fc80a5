"""Which files a buffer consists of: a file, a directory, a pattern, or a list of these.

- A file stands for itself, and for what a rotation left beside it: ``path.1``, ``path.2``, …
- A directory stands for all ``.json``, ``.jsonl``, ``.ndjson`` and ``.txt`` files in it and below it.
- A pattern has ``*``, ``?`` or ``[…]``; ``**`` stands for any number of directories.

Ratings (``ratings``) stand beside the files and are none of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson", ".txt"})
RATING_PATTERNS: Final = ("feedback.jsonl", "*scores*.jsonl")
MOST_FILES: Final = 10_000
MOST_ROTATED: Final = 99
_ROTATED: Final = re.compile(r"\.([1-9][0-9]?)")
_WILD: Final = re.compile(r"[*?[]")


def rating_files(directory: Path) -> list[Path]:
    """The files of ratings in a directory, by their names."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [directory / name for name in names if is_rating(name)]


def rated_directories(paths: Iterable[str], files: Iterable[Path]) -> set[Path]:
    """Where ratings are looked for: beside each file, and above it up to where its part of the buffer begins."""
    tops = {Path(first_place(path)) if is_pattern(path) or os.path.isdir(path) else Path(path).parent for path in paths}
    found = set(tops)
    for directory in {file.parent for file in files}:
        above = [directory, *directory.parents]
        last = next((place for place, each in enumerate(above) if each in tops), 0)
        found.update(above[: last + 1])
    return found


class Root(NamedTuple):
    """What must be watched for a part of the buffer."""

    directory: Path
    names: frozenset[str]
    """In that directory alone; empty: whatever is in it and below it."""


def is_single(paths: Sequence[str]) -> bool:
    """Whether the buffer is one file, there or not."""
    return len(paths) == 1 and not is_pattern(paths[0]) and not os.path.isdir(paths[0])


def is_pattern(path: str) -> bool:
    """Whether a path is a pattern. What exists under exactly that name is none."""
    return bool(_WILD.search(path)) and not os.path.lexists(path)


def find_files(paths: Iterable[str]) -> list[Path]:
    """The files, each once; those of one directory or pattern by their names. A single file need not exist.

    At most ``MOST_FILES`` and one: more are too many.
    """
    found: dict[Path, None] = {}
    for path in paths:
        for each in _files_of(path):
            found[each] = None
            if len(found) > MOST_FILES:
                return list(found)
    return list(found)


def _files_of(path: str) -> Iterator[Path]:
    if is_pattern(path):
        # Not glob.glob, whose ** follows links to directories, also to one above.
        start = first_place(path)
        pattern = os.path.relpath(path, start)
        pattern += "/*" if pattern.endswith("**") else ""  # else directories alone, before Python 3.13
        found = islice(Path(start).glob(pattern), MOST_FILES + 1)
        yield from (each for each in sorted(found) if each.is_file() and not is_rating(each.name))
    elif os.path.isdir(path):
        for directory, directories, names in os.walk(path):
            directories.sort()
            wanted = sorted(name for name in names if is_source(name))
            yield from (_path(os.path.join(directory, name)) for name in wanted)
    else:
        yield from _rotated(Path(path))
        yield Path(path)


@lru_cache(maxsize=MOST_FILES)
def _path(path: str) -> Path:
    """One object for each path: it is made once, and compares fast with itself at each poll."""
    return Path(path)


def _rotated(path: Path) -> list[Path]:
    """What a rotation left beside a file, the oldest first."""
    found = []
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    for name in names:
        number = _ROTATED.fullmatch(name[len(path.name) :]) if name.startswith(path.name) else None
        if number:
            found.append((-int(number[1]), path.with_name(name)))
    return [rotated for _, rotated in sorted(found)]


def first_place(path: str) -> str:
    """What must be accessible for a part of the buffer: the path, or the directory in which a pattern begins."""
    return str(roots(path)[0].directory) if is_pattern(path) else path


def is_source(name: str) -> bool:
    """Whether a file of that name in a directory is read."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not is_rating(name)


def is_rating(name: str) -> bool:
    """Whether a file of that name holds ratings."""
    return any(fnmatch(os.path.basename(name), pattern) for pattern in RATING_PATTERNS)


def roots(path: str) -> list[Root]:
    """What must be watched so that no change of that part goes unnoticed.

    Of a file: its directory, and that of its target where it is a symbolic link.
    """
    if is_pattern(path):
        parts = Path(path).parts
        fixed = next(number for number, part in enumerate(parts) if _WILD.search(part))
        return [Root(Path(os.path.realpath(Path(*parts[:fixed]))), frozenset())]
    if os.path.isdir(path):
        return [Root(Path(os.path.realpath(path)), frozenset())]
    given, target = Path(path), Path(os.path.realpath(path))
    link = Path(os.path.realpath(given.parent), given.name)
    names = frozenset({link.name, target.name})
    return [Root(directory, names) for directory in dict.fromkeys((link.parent, target.parent))]
