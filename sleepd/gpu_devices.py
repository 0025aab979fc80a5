"""Whether this machine shows a GPU, whatever torch says of it."""

from __future__ import annotations

from pathlib import Path

# The last one is seen from inside the service too, where no device is shown without the drop-in.
_SIGNS = ("/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/nvhost-gpu", "/dev/nvmap", "/proc/driver/nvidia/version")


def has_gpu() -> bool:
    """Whether its driver is loaded."""
    return any(Path(sign).exists() for sign in _SIGNS)
