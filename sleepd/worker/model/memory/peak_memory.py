"""The most memory that a worker's process has held."""

from __future__ import annotations

import msgspec
import torch

from sleepd.worker.model.device import Device
from sleepd.worker.process.process_memory import peak_bytes


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, at their highest. A resume point keeps them."""

    device: int = 0
    """Where the model is; on a GPU with what its allocator reserves, without the context of the driver."""
    host: int = 0
    """Of the process, on the CPU the same figure."""

    def with_earlier(self, earlier: Peak) -> Peak:
        """The higher of both, figure by figure: a resumed cycle has had several processes."""
        return Peak(device=max(self.device, earlier.device), host=max(self.host, earlier.host))


def peak_memory(device: Device) -> Peak:
    """Of this process so far."""
    host = peak_bytes()
    is_gpu = device.torch_device.type == "cuda"
    return Peak(device=int(torch.cuda.max_memory_reserved(device.torch_device)) if is_gpu else host, host=host)
