"""The resume point: all that an interrupted cycle needs to go on, in one file that is there as a whole or not at all.

A safetensors file: weights, optimizer and random numbers of the last whole step, and the base's logits on the reference
answers, as tensors; where the cycle stood and what was measured before training as JSON in the file's metadata. What
the job says is not in it: the job is still there, and so are its experiences.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sleepd.errors import DECODE_ERRORS
from sleepd.files import fsync_path
from sleepd.protocol.job import Notice

from .channel import Channel
from .failure import GiveUp, RankLost, Stopped
from .model.losses import Reference
from .model.memory.peak_memory import Peak
from .model.reference_tensors import references_in
from .report import Before
from .training.outcome import Training

_KEY = "position"


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where the cycle stood, and what must still be the same for going on to mean anything."""

    code: str
    """See ``code_fingerprint.py``."""
    base: str
    """Fingerprint of the base."""
    device: str
    """Kind and number type, such as ``cpu bfloat16``."""
    measured_max_tokens: int
    """Longest sequence of what was measured before training."""
    max_tokens: int
    micro_batch_tokens: int
    is_recomputing: bool = False
    is_packed: bool
    before: Before
    training: Training
    notices: list[Notice]
    seconds: dict[str, float]
    """Wall time by phase so far."""
    peak: Peak = Peak()
    energy_joules: float | None = None
    """What the GPU drew so far; None: it was not measured."""
    digest: str = ""
    """sha256 over the names and the bytes of all tensors."""


@dataclass
class ResumePoint:
    """A position with its tensors."""

    position: Position
    tensors: dict[str, torch.Tensor]

    def references(self) -> dict[str, Reference]:
        """The base's logits for each reference prompt, by the prompt's id."""
        return references_in(self.tensors)


def write_resume_point(path: Path, position: Position, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the resume point, on disk when this returns.

    Raises:
        OSError: the disk did not take it; the one before still stands.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in sorted(tensors.items())}
    complete = msgspec.structs.replace(position, digest=_digest(tensors))
    unfinished = path.with_name(f".{path.name}")
    unfinished.unlink(missing_ok=True)  # it may be a link
    try:
        save_file(tensors, unfinished, metadata={_KEY: msgspec.json.encode(complete).decode()})
    except SafetensorError as error:  # how the library reports a full disk
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{unfinished}: {error}") from error
    fsync_path(unfinished)
    unfinished.rename(path)
    fsync_path(path.parent)


class ResumePoints:
    """Writes the resume point around a training: before it, every so often, at its end, and when it is to stop.

    Args:
        path: where it stands.
        interval_seconds: how often it is renewed; 0: after every step.
        take: what is to be written, of the last whole step.
        channel: for a notice where the disk does not take it.
    """

    def __init__(
        self,
        path: Path,
        interval_seconds: float,
        take: Callable[[], tuple[Position, dict[str, torch.Tensor]]],
        channel: Channel,
    ) -> None:
        self._path = path
        self._interval_seconds = interval_seconds
        self._take = take
        self._channel = channel
        self._written_at = 0.0

    def __enter__(self) -> None:
        self._write()

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is None or issubclass(kind, Stopped | RankLost):
            self._write()

    def after_step(self) -> None:
        """Renew it, if that is due."""
        if time.monotonic() - self._written_at >= self._interval_seconds:
            self._write()

    def _write(self) -> None:
        try:
            write_resume_point(self._path, *self._take())
        except OSError as error:
            # The training itself is sound; only an interruption would now cost more.
            self._channel.notice("resume_point_not_written", str(error), warning=True)
        self._written_at = time.monotonic()


def read_resume_point(path: Path, device: torch.device) -> ResumePoint | None:
    """The resume point, its tensors on ``device`` except those that live on the CPU; None: there is none.

    Raises:
        ValueError: it is there and damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            position = msgspec.json.decode((file.metadata() or {}).get(_KEY, ""), type=Position)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, *DECODE_ERRORS) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if _digest(tensors) != position.digest:
        raise ValueError(f"{path.name}: its tensors are not those that were written")
    placed = {name: tensor.to(device) if name.startswith("reference/") else tensor for name, tensor in tensors.items()}
    return ResumePoint(position, placed)


def refuse_other(position: Position, *, code: str, base: str, device: str) -> None:
    """Refuse to go on where the result would be of two halves that do not belong together.

    Raises:
        GiveUp: ``not_resumable``.
    """
    for what, was, is_ in (
        ("code", position.code, code),
        ("base", position.base, base),
        ("device", position.device, device),
    ):
        if was != is_:
            raise GiveUp(
                "not_resumable",
                f"it began with another {what} ({_short(was)}, now {_short(is_)}), so it cannot go on",
                "nothing to do: its experiences are trained by the next cycle",
            )


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:12]}…"
