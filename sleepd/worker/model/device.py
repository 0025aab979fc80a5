"""The device on which a model runs, proved by computing on it, and how it is computed with."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sleepd.worker.failure import GiveUp


@dataclass(frozen=True)
class Device:
    """Where the model runs, and in what."""

    torch_device: torch.device
    dtype: torch.dtype
    description: str
    """With the reason where it is not the one asked for: ``cpu (cuda unavailable: …)``."""

    @property
    def kind(self) -> str:
        """What the figures depend on: ``cpu bfloat16``, or ``cuda bfloat16 NVIDIA H100, CUDA 12.8, cuDNN 91002``.

        The driver is left out: the kernels come with torch.
        """
        kind = f"{self.torch_device.type} {str(self.dtype).removeprefix('torch.')}"
        if self.torch_device.type != "cuda":
            return kind
        card = torch.cuda.get_device_name(self.torch_device)
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return f"{kind} {card}, CUDA {torch.version.cuda}, cuDNN {cudnn}"


def choose_device(asked: str) -> Device:
    """The device for ``auto``, ``cpu`` or ``cuda`` (or ``cuda:N``), proved by computing on it.

    Raises:
        GiveUp: ``device_unusable``, the one asked for does not work.
    """
    if asked == "cpu":
        return _cpu("cpu")
    if asked != "auto" and asked.split(":")[0] != "cuda":
        raise GiveUp("device_unusable", f"expected auto, cpu, cuda or cuda:N as device, got {asked!r}")
    device = torch.device("cuda" if asked == "auto" else asked)
    reason = _why_not_cuda(device)
    if not reason:
        # Emulated bfloat16, as on cards before Ampere, is slower than float32 and no more exact.
        with torch.cuda.device(device):  # the question is about the current card
            is_native = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        return Device(device, torch.bfloat16 if is_native else torch.float32, f"{device} ({name})")
    if asked != "auto":
        raise GiveUp("device_unusable", f"{asked} cannot be used: {reason}", "set device to auto or cpu, or fix CUDA")
    return _cpu(f"cpu (cuda unavailable: {reason})")


def _why_not_cuda(device: torch.device) -> str:
    """Why CUDA does not compute; empty where it does."""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return "this torch is built without CUDA"
    try:
        torch.ones(8, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:  # a missing driver is either, by version
        return str(error).strip().splitlines()[0]
    return ""


def _cpu(description: str) -> Device:
    if not _has_bf16_instructions():
        return Device(torch.device("cpu"), torch.float32, description)
    try:
        probe = torch.ones(32, 32, dtype=torch.bfloat16)
        torch.mm(probe, probe).sum().item()
    except RuntimeError as error:
        # oneDNN writes code at run time, which MemoryDenyWriteExecute= forbids.
        reason = str(error).strip().splitlines()[0]
        return Device(torch.device("cpu"), torch.float32, f"{description} (in float32, bfloat16 fails: {reason})")
    return Device(torch.device("cpu"), torch.bfloat16, description)


def _has_bf16_instructions() -> bool:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(line.split()))
    return False


def memory_of(device: Device) -> int:
    """All the memory that the device has, used or not, in bytes."""
    if device.torch_device.type == "cuda":
        return int(torch.cuda.get_device_properties(device.torch_device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def room_of(device: Device) -> int:
    """Bytes of the device's memory that are free, or that this process holds already."""
    if device.torch_device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device.torch_device)[0])
        return free + int(torch.cuda.memory_reserved(device.torch_device))
    kibibytes = _figure("/proc/meminfo", "MemAvailable:") + _figure("/proc/self/status", "VmRSS:")
    return 1024 * kibibytes


def _figure(file: str, name: str) -> int:
    lines = Path(file).read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def computing(device: Device) -> torch.autocast:
    """In this context the adapter computes in bfloat16 as its base does; its weights and gradients stay float32."""
    return torch.autocast(device.torch_device.type, torch.bfloat16, enabled=device.dtype == torch.bfloat16)


def attention_for(config: dict[str, Any]) -> str | None:
    """Which attention the library is asked for; None: it chooses, for not every architecture has the fused one."""
    softcap = (config.get("text_config") or config).get("attn_logit_softcapping")
    # Older versions leave a soft cap out of the fused kernel.
    return None if softcap is None else "eager"
