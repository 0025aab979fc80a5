"""Writing so that a reader, a crash or a power cut finds the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from pathlib import Path
from typing import Final

MAX_DOCUMENT_BYTES: Final = 256 * 1024 * 1024
"""The lineage of a buffer of a million experiences is a tenth of it."""
_BLOCK_BYTES: Final = 2**20

MAX_LOCK_BYTES: Final = 4096
DIRECTORY_MODE: Final = 0o750
FILE_MODE: Final = 0o640
"""For the owner and the group: what is written here contains the agent's conversations."""


def fsync_path(path: Path) -> None:
    """Wait until a file's content, or a directory's entries, are on the disk.

    Raises:
        OSError: the disk did not take it. What was written must then be given up, not synced again: the kernel may have
            dropped the dirty pages and report success the second time.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def regular_descriptor(path: Path, *, follows_links: bool = False) -> int:
    """A descriptor of a regular file for reading; a pipe or a device in its place is refused without waiting for it.

    Args:
        path: the file.
        follows_links: whether a symbolic link may stand there: the operator's files may be links, ours never are.

    Raises:
        OSError: it is not there, cannot be read, or is no regular file.
        ValueError: the path holds a zero byte.
    """
    no_follow = 0 if follows_links else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | no_follow)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "expected a regular file")
    return descriptor


def open_regular(path: Path, *, follows_links: bool = False) -> io.BufferedReader:
    """As ``regular_descriptor``, as a file to read from.

    Raises:
        OSError: as there.
        ValueError: as there.
    """
    return open(regular_descriptor(path, follows_links=follows_links), "rb")


def open_lock(path: Path, mode: int = 0o600) -> int:
    """A descriptor of the lock file at ``path``, made where there is none.

    Raises:
        OSError: it cannot be opened, or a link, a pipe or a file that is no lock stands in its place.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, mode)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_LOCK_BYTES:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "expected a regular file as small as a lock is")


def make_private(path: Path) -> None:
    """Make an empty file for the owner and the group, for a library that would make one for all; one there stays.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE))


def read_document(path: Path, most_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """The content of a JSON file of ours, none of which is large.

    Raises:
        OSError: as ``open_regular``, or it is larger than any document.
    """
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes} bytes")
    return content


def hashed(path: Path, *, most: int | None = None) -> tuple[str, int]:
    """SHA-256 and size of a file of ours, as long as it is when it is opened; no hash where it is larger than ``most``.

    Blocks while it is read.

    Raises:
        OSError: as ``open_regular``.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        size = left = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            return "", size
        while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest(), size - left


def is_regular(path: Path) -> bool:
    """Whether a regular file stands there itself, and no link to one.

    Raises:
        OSError: it cannot be determined.
    """
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def is_own_directory(path: Path) -> bool:
    """Whether a directory stands there itself, and no link to one elsewhere."""
    return path.is_dir() and not path.is_symlink()


def make_directory(path: Path) -> None:
    """A directory of ours, for the owner and the group; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)


def write_durably(path: Path, content: bytes, *, mode: int = FILE_MODE) -> None:
    """Write a file anew and sync it; its directory is the caller's to sync.

    What stands there is removed first, and never written to: it may be a link.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes, *, mode: int = FILE_MODE) -> None:
    """Replace ``path`` by ``content`` atomically and durably.

    Raises:
        OSError: nothing was replaced; the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_durably(temporary, content, mode=mode & FILE_MODE)
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def replace_link(path: Path, target: str) -> None:
    """Point the symbolic link ``path`` at ``target`` atomically and durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
    fsync_path(path.parent)
