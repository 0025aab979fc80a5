"""The state directory before anything in it is read, written or removed: whose it is, and who may read it.

It holds the agent's conversations, so it is for its owner and the group. What stands in it under one of our names is a
file or a directory of its own: a link, to a larger disk perhaps, would have us empty or overwrite what it points to.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sleepd.errors import StateDirectoryUnusable
from sleepd.files import make_directory
from sleepd.log import get_logger

DIRECTORIES: Final = ("staging", "retired", "adopted", "models", "foreign")
_FILES: Final = re.compile(
    r"lock|secret|state\.db(?:[-.].+)?|(?:status|history|scheduler_state|quarantine|rated_down|tags|metrics|sync)\.json|\..+\.tmp"
)
_NEW_LINK: Final = re.compile(r"\.current\.\d+\.tmp")
_CYCLE: Final = re.compile(r"cycle_\d{3,9}")
_OTHERS: Final = 0o007


def prepare(directory: Path) -> None:
    """Make the directory, or see that what stands there may be used; take it away from the world.

    Raises:
        StateDirectoryUnusable: it cannot be made, or something in it is a link, is of another kind or another user's.
    """
    try:
        make_directory(directory)
        entries = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(directory)}
        top = directory.stat()
    except OSError as error:
        raise StateDirectoryUnusable(
            f"{directory}: cannot be used as state directory: {error.strerror}",
            hint="set [state] directory to one that this user may write",
        ) from error
    _move_link_away(directory / "staging", entries)
    owners = {os.geteuid(), top.st_uid, 0}
    for name, status in entries.items():
        _refuse(directory / name, status, owners)
    closed = [path for path, status in _open_to_all(directory, top, entries) if _close(path, status)]
    if closed:
        names = ", ".join(str(path) for path in closed[:3]) + (f" and {len(closed) - 3} more" if closed[3:] else "")
        text = f"every user could read {names}; from now on only the owner and the group can"
        get_logger().warning("state_directory_tightened", text=text)


def _move_link_away(staging: Path, entries: dict[str, os.stat_result]) -> None:
    """Staging is swept at each start and holds nothing that lasts: a link there gives way to a directory.

    Raises:
        StateDirectoryUnusable: it cannot be renamed.
    """
    status = entries.get(staging.name)
    if status is None or not stat.S_ISLNK(status.st_mode):
        return
    aside = staging.with_name("staging.link")
    try:
        staging.replace(aside)
    except OSError as error:
        raise StateDirectoryUnusable(
            f"{staging}: is a link, and cannot be renamed: {error.strerror}", hint="move it away"
        ) from error
    del entries[staging.name]
    text = f"{staging} was a link; it is {aside.name} now, and what it points to was not touched"
    get_logger().warning("staging_link_set_aside", text=text, hint="for more space, mount a larger disk there")


def _refuse(path: Path, status: os.stat_result, owners: set[int]) -> None:
    is_directory = path.name in DIRECTORIES
    if _NEW_LINK.fullmatch(path.name) and stat.S_ISLNK(status.st_mode):
        return  # left by a crash while ``current`` was replaced; it is removed, not followed
    if not is_directory and not _FILES.fullmatch(path.name):
        return  # a cycle is checked where it is used; ``current`` is a link; all else is not ours
    expected, is_right = ("directory", stat.S_ISDIR) if is_directory else ("file", stat.S_ISREG)
    if not is_right(status.st_mode):
        found = "a link" if stat.S_ISLNK(status.st_mode) else "something else"
        raise StateDirectoryUnusable(
            f"{path}: expected a {expected} of its own, found {found}; nothing was read or removed through it",
            hint="move it away; for more space, mount a larger disk there, or name another [state] directory",
        )
    if status.st_uid not in owners:
        raise StateDirectoryUnusable(
            f"{path}: expected a {expected} of user {os.geteuid()}, found one of user {status.st_uid}",
            hint="move it away, or give it to the user that sage-sleepd runs as",
        )


def _open_to_all(
    directory: Path, top: os.stat_result, entries: dict[str, os.stat_result]
) -> Iterator[tuple[Path, os.stat_result]]:
    """What is ours and can be entered or read by everybody.

    The directory itself only where nothing but ours stands in it: an older caller may have named a directory that holds
    more. An older trainer's checkpoints are never changed.
    """
    is_ours = "state.db" in entries and all(name == "current" or _is_known(name) for name in entries)
    if is_ours and not top.st_mode & stat.S_ISVTX:
        yield directory, top
    for name, status in entries.items():
        is_older = _CYCLE.fullmatch(name) and not (directory / name / "manifest.json").exists()
        if _is_known(name) and not is_older and not stat.S_ISLNK(status.st_mode):
            yield directory / name, status


def _is_known(name: str) -> bool:
    return name in (*DIRECTORIES, "staging.link") or bool(_FILES.fullmatch(name) or _CYCLE.fullmatch(name))


def _close(path: Path, status: os.stat_result) -> bool:
    """Take the world's permissions away; returns whether there were any that could be taken."""
    if not status.st_mode & _OTHERS or status.st_uid != os.geteuid():
        return False
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return False  # not even we may read it
    try:
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~_OTHERS)
    finally:
        os.close(descriptor)
    return True
