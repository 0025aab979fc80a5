"""The key that an engine wants, from a file that nobody else may read. It goes into no message."""

from __future__ import annotations

import os
from pathlib import Path

from sleepd.errors import ConfigError
from sleepd.files import open_regular
from sleepd.text.shell import quoted

_MOST_BYTES = 4096


def read_key(name: str) -> str:
    """The key in the file of that name; empty where none is named.

    Raises:
        ConfigError: it cannot be read, others may read it too, or it holds no key.
    """
    if not name:
        return ""
    try:
        with open_regular(Path(name), follows_links=True) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{name}: the key file cannot be read: {why}", hint="serve.key_file names it") from error
    if mode & 0o077:
        text = f"{name}: expected a key file that only its owner may read, found mode {mode & 0o777:o}"
        raise ConfigError(text, hint=f"chmod 600 {quoted(name)}")
    key = content.decode("ascii", errors="replace").strip()
    if not key or len(content) > _MOST_BYTES or not all(32 < ord(each) < 127 for each in key):
        text = f"{name}: expected one key of at most {_MOST_BYTES} printable ASCII characters"
        raise ConfigError(text, hint="write the key alone into it")
    return key
