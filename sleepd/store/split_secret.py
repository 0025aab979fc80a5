"""The secret of a state directory that decides which experiences are held out.

Whoever writes into the buffer knows the texts, and a hash of them alone would let him choose what the verdict is
measured on. The secret is made once and never leaves the daemon; the worker gets a number for each experience. Groups
that a cycle has recorded keep their split whatever the secret is, so a lost one costs nothing but a new draw.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sleepd.errors import StateDirectoryUnusable
from sleepd.files import read_document, replace_file
from sleepd.text.shell import quoted

FILE_NAME: Final = "secret"
BYTES: Final = 32


def split_secret(directory: Path) -> bytes:
    """The secret of a state directory, made where there is none; the caller holds the directory's lock.

    Raises:
        StateDirectoryUnusable: it cannot be read, is not what was written, or the disk did not take a new one.
    """
    path = directory / FILE_NAME
    try:
        secret = read_document(path, BYTES)
    except FileNotFoundError:
        secret = _new_secret(path)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if len(secret) != BYTES:
        raise _unusable(path, f"expected {BYTES} bytes, found {len(secret)}")
    return secret


def _new_secret(path: Path) -> bytes:
    secret = os.urandom(BYTES)
    try:
        # For nobody else: the group may read what the directory holds, and may write into the buffer.
        replace_file(path, secret, mode=0o600)
    except OSError as error:
        raise StateDirectoryUnusable(
            f"{path}: cannot be written: {error.strerror or error}",
            hint=f"make space: df -h {quoted(path.parent)}",
        ) from error
    return secret


def _unusable(path: Path, why: str) -> StateDirectoryUnusable:
    return StateDirectoryUnusable(
        f"{path}: {why}", hint="remove it: a new one is drawn, and every split that a cycle has recorded stays"
    )
