"""What a user may read and write, asked of the kernel: access lists, groups and read-only mounts count.

Mode bits read by hand would be wrong about all of these. Root lets a child of its own become the user and ask; anybody
else can only ask for themselves.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .doctor_facts import PathFacts


def access_as(user: pwd.struct_passwd | None, paths: Sequence[str]) -> list[PathFacts]:
    """Each path as ``user`` finds it.

    Args:
        user: None, or one whom the caller cannot become: only what the caller sees, without the permissions.
        paths: absolute.
    """
    if user is not None and user.pw_uid == os.geteuid():
        return [access_of(path) for path in paths]
    if user is None or os.geteuid() != 0:
        return [PathFacts(path=path, kind=access_of(path).kind) for path in paths]
    return _as_another(user, paths, None) or [PathFacts(path=path) for path in paths]


def access_within(user: pwd.struct_passwd, directory: Path, name: str) -> PathFacts:
    """``directory/name`` as ``user`` finds it who is shown that directory alone. Only root may ask."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        (found,) = _as_another(user, [name], descriptor) or [PathFacts(path=name)]
    finally:
        os.close(descriptor)
    return found


def _as_another(user: pwd.struct_passwd, paths: Sequence[str], start: int | None) -> list[PathFacts]:
    """As ``reach`` has it, in a child that became ``user``; empty: there was no answer.

    Args:
        user: who asks.
        paths: what is asked about.
        start: a directory to which relative paths refer.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing of the parent's is cleaned up here, and nothing goes on: one answer, then the end.
        try:
            if start is not None:
                os.fchdir(start)
            os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.write(writing, msgspec.json.encode([access_of(path) for path in paths]))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        text = answers.read()
    os.waitpid(child, 0)
    return msgspec.json.decode(text, type=list[PathFacts]) if text else []


def access_of(path: str) -> PathFacts:
    """The path as this process finds it."""
    for directory in reversed(Path(path).parents):
        if directory.is_dir() and not os.access(directory, os.X_OK, effective_ids=_EFFECTIVE):
            return PathFacts(path=path, blocked_at=str(directory), may_read=False, may_write=False)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return PathFacts(path=path, kind="absent", may_read=False, may_write=False)
    except OSError:
        return PathFacts(path=path, may_read=False, may_write=False)
    kind = "file" if stat.S_ISREG(mode) else "directory" if stat.S_ISDIR(mode) else "other"
    search = os.X_OK if kind == "directory" else 0
    return PathFacts(
        path=path,
        kind=kind,
        may_read=os.access(path, os.R_OK, effective_ids=_EFFECTIVE),
        may_write=os.access(path, os.W_OK | search, effective_ids=_EFFECTIVE),
    )


_EFFECTIVE = os.access in os.supports_effective_ids
