"""Out of memory: how it is recognised, and the steps back before giving up."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from sleepd.worker.channel import Channel
from sleepd.worker.data.packing import PackedRow
from sleepd.worker.failure import GiveUp

T = TypeVar("T")
MIN_TOKENS = 64
"""A sequence cut shorter than this teaches nothing; then the worker gives up instead."""
LEAST_PLANNED_TOKENS = 128
"""Of a pass: what is chosen in advance is never less."""
GPU_PASS_TOKENS = 4096
"""Most tokens of a pass on a GPU where the strategy has fewer."""

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


@dataclass(frozen=True)
class Rung:
    """One step back where memory runs out: when it can be taken, what it does, and what it costs."""

    event: str
    """The notice that it is taken."""
    cost: str
    can_help: Callable[[MemoryLimits, PackedRow, bool], bool]
    """Given the widest row that did not fit, and whether it was going backward."""
    take: Callable[[MemoryLimits, PackedRow], str]
    """Changes the limits; what they are now, in words."""


class MemoryLimits:
    """How much goes through the model at once. Shrinks when memory runs out, never grows again."""

    def __init__(self, micro_batch_tokens: int, max_tokens: int, channel: Channel) -> None:
        self.micro_batch_tokens = micro_batch_tokens
        self.max_tokens = max_tokens
        self.is_recomputing = False
        """Whether layers forget what they computed, and compute it again on the way back."""
        self._channel = channel

    def fill(self, device: torch.device) -> None:
        """On a GPU let more tokens share a pass: with few it waits for the processor that starts its kernels."""
        if device.type == "cuda":
            self.micro_batch_tokens = max(self.micro_batch_tokens, GPU_PASS_TOKENS)

    def keep_within(self, positions: int | None) -> None:
        """Let no sequence be longer than the model's own table of positions; None: it has none."""
        if positions is not None and positions < self.max_tokens:
            text = f"the base has {positions} positions; sequences are cut to that, not to {self.max_tokens} tokens"
            self._channel.notice("sequences_kept_to_positions", text)
            self.max_tokens = positions

    def plan(self, needed: Callable[[int, bool], int], room: int) -> None:
        """Take steps back in advance that cost nothing but time, while a cycle is estimated to take more than there is.

        Where memory is promised that is not there, as on Linux by default, no error comes in the middle: the kernel
        ends the process.

        Args:
            needed: bytes, by the tokens of a pass and by whether layers compute again.
            room: bytes that are free or this process's own.
        """
        estimated = needed(self.micro_batch_tokens, self.is_recomputing)
        have = f"a cycle is estimated at {estimated / 2**30:.1f} GiB, and there are {room / 2**30:.1f}"
        while self.micro_batch_tokens > LEAST_PLANNED_TOKENS and needed(self.micro_batch_tokens, False) > room:
            self.micro_batch_tokens = max(LEAST_PLANNED_TOKENS, self.micro_batch_tokens // 2)
            text = f"{have}; going on with {self.micro_batch_tokens} tokens in one pass: {NARROWER.cost}"
            self._channel.notice(NARROWER.event, text, warning=True)
        if not self.is_recomputing and needed(self.micro_batch_tokens, False) > room:
            self.is_recomputing = True
            self._channel.notice(RECOMPUTING.event, f"{have}; layers compute again: {RECOMPUTING.cost}", warning=True)

    def shrink(
        self, rows: Sequence[PackedRow], *, is_training: bool = False, may_shorten: bool = True, where: str = ""
    ) -> None:
        """Take the next step of ``LADDER`` that can help after ``rows`` did not fit.

        Args:
            rows: of the attempt that failed.
            is_training: whether they were to go backward, too.
            may_shorten: whether sequences may be cut.
            where: which process of several it was, in words that follow "out of memory".

        Raises:
            GiveUp: ``out_of_memory``, no step is left.
        """
        free_memory()
        widest = max(rows, key=lambda row: row.tokens)
        for rung in LADDER:
            if rung.can_help(self, widest, is_training) and (may_shorten or rung is not SHORTER):
                what = f"out of memory{where} with {widest.tokens} tokens in one pass"
                self._channel.notice(rung.event, f"{what}; {rung.take(self, widest)}: {rung.cost}", warning=True)
                return
        raise GiveUp(
            "out_of_memory",
            f"out of memory{where} with a single sequence of {widest.tokens} tokens, and no step back is left",
            "free memory on the device, choose a smaller base, or set device to cpu",
        )


def _narrower(limits: MemoryLimits, widest: PackedRow) -> str:
    limits.micro_batch_tokens = max(1, min(limits.micro_batch_tokens, widest.tokens) // 2)
    return f"going on with {limits.micro_batch_tokens}"


def _recomputing(limits: MemoryLimits, _widest: PackedRow) -> str:
    limits.is_recomputing = True
    return "layers compute again what they need on the way back"


def _shorter(limits: MemoryLimits, widest: PackedRow) -> str:
    limits.max_tokens = min(limits.max_tokens, widest.tokens) // 2
    return f"going on with at most {limits.max_tokens} in a sequence"


SHORTER = Rung(
    event="sequence_length_halved",
    cost="longer experiences are cut",
    can_help=lambda limits, widest, _: min(limits.max_tokens, widest.tokens) // 2 >= MIN_TOKENS,
    take=_shorter,
)
NARROWER = Rung(
    event="micro_batch_halved",
    cost="the same steps in more passes",
    can_help=lambda _limits, widest, _: len(widest.members) > 1,
    take=_narrower,
)
RECOMPUTING = Rung(
    event="layers_recomputed",
    cost="the same steps, each takes about half as long again",
    can_help=lambda limits, _widest, is_training: is_training and not limits.is_recomputing,
    take=_recomputing,
)
LADDER = (NARROWER, RECOMPUTING, SHORTER)
"""From the cheapest to the dearest. What comes last is another device: ``run`` moves from a GPU to the CPU where
``worker.device`` is ``auto``. Logits need no step: they are always computed a few places at a time (``losses``)."""


def with_room(work: Callable[[], T]) -> T:
    """What ``work`` returns; where memory runs out, all that is cached is given back and it is tried once more."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, whose traceback would keep the failed attempt's tensors alive.
    free_memory()
    return work()


def free_memory() -> None:
    """Give back to the system what this process holds and does not use: of the processor's memory, and of a GPU's."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
