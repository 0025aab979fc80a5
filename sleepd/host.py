"""What this machine has for a worker: the Python that it runs on, and a GPU's driver."""

from __future__ import annotations

import sys
from pathlib import Path

# The last one is seen from inside the service too, where no device is shown without the drop-in.
_SIGNS = ("/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/nvhost-gpu", "/dev/nvmap", "/proc/driver/nvidia/version")


def worker_python(configured: str) -> str:
    """The interpreter named in ``worker.python``; else the one installed beside the daemon's; else the daemon's own.

    The installer puts two environments side by side, ``daemon`` and ``worker``, so that torch is not in the daemon's.
    """
    if configured:
        return configured
    beside = Path(sys.prefix).parent / "worker" / "bin" / "python"
    return str(beside) if beside.is_file() else sys.executable


def has_gpu() -> bool:
    """Whether the driver of a GPU is loaded, whatever torch reports."""
    return any(Path(sign).exists() for sign in _SIGNS)
