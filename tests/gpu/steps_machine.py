"""What the machine is, and what its attention kernels do with the shapes that the worker asks for."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from sleepd.worker.data.packing import attention_mask

from .shared import IS_CPU, SHAPES, WORK, base, device, note, place, row, seconds_of, sync

PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "triton", "bitsandbytes", "flash-attn")
HEADS, HEAD_SIZE = 14, 64
LENGTHS = (192, 300, 511, 512, 704)
"""Two of them 64 more than a multiple of 128, where cuDNN's masked kernel was seen to give NaN gradients."""


def machine() -> None:
    """Versions, and the two ceilings: multiplying in bfloat16, and copying."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    size = 256 if IS_CPU else 8192
    a, b = (torch.randn(size, size, device=place(), dtype=torch.bfloat16) for _ in range(2))
    tflops = 2 * size**3 / seconds_of(lambda: a @ b) / 1e12
    source = torch.zeros(2**20 if IS_CPU else 2**32, dtype=torch.uint8, device=place())
    target = torch.empty_like(source)
    copied = 2 * source.numel() / seconds_of(lambda: target.copy_(source)) / 1e12
    (WORK / "ceiling").write_text(str(tflops))
    where, cores = device(), os.cpu_count()
    note("machine", python=sys.version, versions=versions, kind=where.kind, tflops=tflops, tb_s=copied, cores=cores)
    row("machine", f"{where.description}; {where.kind}; {versions}; {cores} CPU cores")
    row("ceilings", f"bfloat16 {size}^3 {tflops:.1f} TFLOP/s, copy {copied:.2f} TB/s")


def bases(*names: str) -> None:
    """Write the bases with random weights."""
    for name in names or [name for name in SHAPES if name != "7B"]:
        started = time.monotonic()
        size = sum(file.stat().st_size for file in base(name).iterdir())
        note("bases", name=name, seconds=time.monotonic() - started, bytes=size)


def attention() -> None:
    """Attention as the worker asks for it, kernel by kernel: NaN, error, repeatability, the cost of a new length."""
    found = {name: _examined(backend) for name, backend in _backends().items()}
    note("attention", **found)
    for name, what in found.items():
        row(f"attention {name}", str(what))


def _backends() -> dict[str, SDPBackend | None]:
    chosen: dict[str, SDPBackend | None] = {"default": None, "math": SDPBackend.MATH}
    if not IS_CPU:
        kernels = (SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
        chosen |= {"cudnn": kernels[0], "efficient": kernels[1]}
    return chosen


@contextlib.contextmanager
def _under(backend: SDPBackend | None) -> Iterator[None]:
    with contextlib.nullcontext() if backend is None else sdpa_kernel([backend]):
        yield


def _examined(backend: SDPBackend | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for length in LENGTHS:
        with _under(backend):
            try:
                found[f"NaN gradients at {length}"] = _nan_gradients(length)
                found[f"bit-equal at {length}"] = _is_repeatable(length)
            except RuntimeError as error:
                found[f"at {length}"] = str(error).splitlines()[0][:80]
    with contextlib.suppress(RuntimeError), _under(backend):
        found["NaN in rows that see nothing"] = _blind_rows()
        found["ms at 512, packed"] = round(1000 * seconds_of(_packed(512), 5, 2), 2)
        found["ms for a new length"] = _new_length_ms()
    return found


def _tensors(length: int) -> list[torch.Tensor]:
    made = (torch.randn(1, HEADS, length, HEAD_SIZE, device=place(), dtype=torch.bfloat16) for _ in range(3))
    return [one.requires_grad_() for one in made]


def _mask(length: int, parts: int = 4) -> torch.Tensor:
    opening = min(16, length // 4)
    own = [1 + i * parts // (length - opening) for i in range(length - opening)]
    return attention_mask(torch.tensor([0] * opening + own, device=place()), torch.bfloat16)


def _nan_gradients(length: int) -> int:
    """With scores far below zero, as in heads that look at nothing."""
    q, k, v = _tensors(length)
    with torch.no_grad():
        q[..., 0], k[..., 0] = 1.0, -120 * HEAD_SIZE**0.5
    sdpa(q, k, v, attn_mask=_mask(length)).sum().backward()
    return sum(int((~torch.isfinite(one.grad)).sum()) for one in (q, k, v) if one.grad is not None)


def _is_repeatable(length: int) -> bool:
    torch.manual_seed(length)
    tensors, mask = _tensors(length), _mask(length)
    runs = []
    for _ in range(3):
        out = sdpa(*tensors, attn_mask=mask)
        runs.append([out.detach(), *torch.autograd.grad(out.square().sum(), tensors)])
    return all(torch.equal(one, two) for run in runs[1:] for one, two in zip(runs[0], run, strict=True))


def _blind_rows() -> int:
    seen = torch.ones(1, 1, 64, 64, dtype=torch.bool, device=place()).tril()
    seen[..., :20] = False
    with torch.no_grad():
        return int((~torch.isfinite(sdpa(*_tensors(64), attn_mask=seen))).sum())


def _packed(length: int) -> Callable[[], object]:
    tensors, mask = _tensors(length), _mask(length)
    return lambda: sdpa(*tensors, attn_mask=mask).sum().backward()


def _new_length_ms() -> float:
    """Milliseconds that a length costs more when it is seen for the first time."""
    more = []
    for length in range(321, 327):
        work = _packed(length)
        taken = []
        for _ in range(2):
            sync()
            started = time.perf_counter()
            work()
            sync()
            taken.append(time.perf_counter() - started)
        more.append(1000 * (taken[0] - taken[1]))
    return round(sorted(more)[len(more) // 2], 2)
