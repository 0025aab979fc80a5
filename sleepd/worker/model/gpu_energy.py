"""The energy that a GPU has drawn, by the card's own count, read through the driver's library.

Covered: cards that count (NVIDIA since Volta).
Not covered: a CPU, whose count Linux lets root alone read, and which overflows within an hour; a part of a card (MIG).
The count is of the whole card: what other processes compute there at the same time is in the figure.
"""

from __future__ import annotations

import ctypes

import torch

_LIBRARY = "libnvidia-ml.so.1"


class EnergyCounter:
    """What the device draws from here on, added to what earlier workers of the cycle measured."""

    def __init__(self, device: torch.device, earlier: float | None) -> None:
        self._device = device
        self._earlier = earlier
        self._began = _joules(device)

    def joules(self) -> float | None:
        """Up to now; None: a part of it was not measured."""
        now = _joules(self._device)
        if now is None or self._began is None or self._earlier is None or now < self._began:
            return None
        return round(self._earlier + now - self._began, 1)


def _joules(device: torch.device) -> float | None:
    """Since the driver was loaded; None: this device has no count that can be read."""
    if device.type != "cuda":
        return None
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    uuid = f"GPU-{getattr(torch.cuda.get_device_properties(device), 'uuid', '')}".encode()
    card, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    # In this order; each returns 0, or why it failed.
    is_read = (
        library.nvmlInit_v2() == 0
        and library.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(card)) == 0
        and library.nvmlDeviceGetTotalEnergyConsumption(card, ctypes.byref(millijoules)) == 0
    )
    return millijoules.value / 1000 if is_read else None
