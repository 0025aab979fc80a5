"""``sleepd``: the daemon, in the foreground."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Sequence
from typing import Final

from . import log
from .config.checks import discover
from .config.layers import load, require_buffer
from .daemon.service import live
from .daemon_arguments import build_parser
from .errors import ConfigError, SleepdError
from .text.display import clean

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""Parameters of mallopt(3)."""
_BLOCK_BYTES: Final = 128 * 1024


def give_memory_back() -> None:
    """Have glibc give large blocks back as soon as they are free, and keep one heap for all threads.

    By itself it keeps blocks as large as any that was freed before: ten megabytes after a large buffer was read.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another C library has none
        mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until a signal stops it; returns the exit status."""
    options = build_parser().parse_args(arguments)
    give_memory_back()
    os.umask(os.umask(0o027) | 0o027)  # what it and its worker write contains the agent's conversations
    try:
        path = options.config or discover(os.environ)
        if path is None:
            raise ConfigError(
                "no configuration was found", hint="sleepd --config FILE; config/config.toml shows every key"
            )
        path = path.absolute()
        config = load(path, environment=os.environ).config
        require_buffer(config, str(path))
        log.configure(config.log.level)
        asyncio.run(live(config, path))
    except SleepdError as error:
        sys.stderr.write(f"sleepd: {clean(error.message)}\n")
        if error.hint:
            sys.stderr.write(f"hint: {clean(error.hint)}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"sleepd: {clean(str(error))}\nhint: check the disk: df -h; journalctl -k\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
