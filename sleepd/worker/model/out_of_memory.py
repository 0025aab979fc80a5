"""Out of memory: how it is recognised, and the two steps back before giving up."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from sleepd.worker.channel import Channel
from sleepd.worker.data.packing import PackedRow
from sleepd.worker.failure import GiveUp

MIN_TOKENS = 64
"""A sequence cut shorter than this teaches nothing; then the worker gives up instead."""

_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    # safetensors, where a file cannot be mapped: strerror of ENOMEM.
    "Cannot allocate memory",
    "std::bad_alloc",
    # oneDNN, which finds no room for its buffers; that it may not write code is found out when the device is chosen.
    "could not create a primitive",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    # How a Jetson's allocator dies when the memory it shares with the CPU is used up:
    "NVML_SUCCESS == r",
    "NvMapMemAlloc",
    "CUDACachingAllocator.cpp",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error means that memory ran out, in whatever words."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


class Shortened(Exception):
    """Sequences are shorter from now on: what was measured on the longer ones must be measured anew."""


class MemoryLimits:
    """How much goes through the model at once. Shrinks when memory runs out, never grows again."""

    def __init__(self, micro_batch_tokens: int, max_tokens: int, channel: Channel) -> None:
        self.micro_batch_tokens = micro_batch_tokens
        self.max_tokens = max_tokens
        self._channel = channel

    def keep_within(self, positions: int | None) -> None:
        """Let no sequence be longer than the model's own table of positions; None: it has none."""
        if positions is not None and positions < self.max_tokens:
            text = f"the base has {positions} positions; sequences are cut to that, not to {self.max_tokens} tokens"
            self._channel.notice("sequences_kept_to_positions", text)
            self.max_tokens = positions

    def shrink(self, rows: Sequence[PackedRow], *, may_shorten: bool = True) -> None:
        """Take the next step back after ``rows`` did not fit: half the micro-batch, then half the sequence length.

        Raises:
            GiveUp: ``out_of_memory``, neither is left.
        """
        free_memory()
        widest = max(rows, key=lambda row: row.tokens)
        if len(widest.members) > 1:
            self.micro_batch_tokens = max(1, min(self.micro_batch_tokens, widest.tokens) // 2)
            text = f"out of memory with {widest.tokens} tokens in one pass; going on with {self.micro_batch_tokens}"
            self._channel.notice("micro_batch_halved", text, warning=True)
            return
        shorter = min(self.max_tokens, widest.tokens) // 2
        if not may_shorten or shorter < MIN_TOKENS:
            raise GiveUp(
                "out_of_memory",
                f"out of memory with a single sequence of {widest.tokens} tokens, and no step back is left",
                "free memory on the device, choose a smaller base, or set device to cpu",
            )
        self.max_tokens = shorter
        text = f"out of memory with a sequence of {widest.tokens} tokens; going on with at most {shorter} each"
        self._channel.notice("sequence_length_halved", text, warning=True)


def free_memory() -> None:
    """Give back what the failed attempt still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
