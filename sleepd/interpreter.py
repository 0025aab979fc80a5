"""Which Python the worker runs on."""

from __future__ import annotations

import sys
from pathlib import Path


def worker_python(configured: str) -> str:
    """The interpreter named in ``worker.python``; else the one installed beside the daemon's; else the daemon's own.

    The installer puts two environments side by side, ``daemon`` and ``worker``, so that torch is not in the daemon's.
    """
    if configured:
        return configured
    beside = Path(sys.prefix).parent / "worker" / "bin" / "python"
    return str(beside) if beside.is_file() else sys.executable
