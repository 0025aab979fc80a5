"""What a worker gets from this machine: the Python that it runs on, its environment, and a GPU's driver."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

SYSTEMD_VARIABLES: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "JOURNAL_STREAM",
)
"""What systemd sets for the daemon and means for no process that the daemon starts."""
NO_HUB: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""What cuts the libraries off from the model hub."""

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
