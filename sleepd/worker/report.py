"""The report of a finished cycle, from what was measured before, while and after training."""

from __future__ import annotations

import resource
from dataclasses import dataclass

import torch

from sleepd.evidence import LossPair
from sleepd.job import Check, Job, Lesson, Notice, Reply, Report

from .data import Encoded
from .evaluate import Measured, mean_loss
from .loss import Reference
from .model import Device
from .train import Training


@dataclass
class Exchanges:
    """The experiences and the general exchanges as sequences of one greatest length."""

    trained: list[Encoded]
    held_out: list[Encoded]
    """Those that judge."""
    stopping: list[Encoded]
    """Held-out ones that say when to stop, and so may not judge."""
    general: list[Encoded]
    monitor: list[Encoded]

    @property
    def truncated(self) -> int:
        """How many experiences were cut."""
        return sum(one.is_truncated for one in [*self.trained, *self.held_out, *self.stopping])


@dataclass
class Before:
    """What was measured before training."""

    parent: dict[str, Measured]
    base: dict[str, Measured]
    """That of the parent where there is none."""
    references: dict[str, Reference]
    parent_replies: list[str]
    """Greedy, to the prompts that the candidate is asked too."""


@dataclass
class After:
    """What was measured on the adapter as it was read back from disk."""

    losses: dict[str, Measured]
    checks: list[Check]
    replies: list[Reply]
    lora_shape: str


@dataclass
class Setting:
    """On what it all ran."""

    fingerprint: str
    device: Device
    seconds: dict[str, float]
    notices: list[Notice]


def make_report(
    job: Job,
    to_train: list[Lesson],
    setting: Setting,
    exchanges: Exchanges,
    before: Before,
    training: Training,
    after: After,
) -> Report:
    """All figures of one cycle."""
    learned = [lesson for lesson in to_train if lesson.id in before.parent]
    return Report(
        base_fingerprint=setting.fingerprint,
        device=setting.device.description,
        dtype=str(setting.device.dtype).removeprefix("torch."),
        trained=sum(lesson.role == "train" for lesson in learned),
        replayed=sum(lesson.role == "replay" for lesson in learned),
        held_out=len(exchanges.held_out),
        truncated=exchanges.truncated,
        tokens=training.tokens,
        supervised_tokens=training.supervised_tokens,
        epochs=training.epochs,
        steps=training.steps,
        learning_rate=job.strategy.learning_rate,
        avg_salience=sum(lesson.salience for lesson in learned) / len(learned),
        epoch_losses=training.epoch_losses,
        train_before=_mean(before.parent, exchanges.trained),
        train_after=_mean(after.losses, exchanges.trained),
        holdout_base=_mean(before.base, exchanges.held_out),
        holdout_before=_mean(before.parent, exchanges.held_out),
        holdout_after=_mean(after.losses, exchanges.held_out),
        holdout=[_pair(one.id, before, after.losses) for one in exchanges.held_out],
        checks=after.checks,
        replies=after.replies,
        notices=setting.notices,
        seconds=setting.seconds,
        tokens_per_second=training.tokens_per_second,
        peak_memory_bytes=_peak_memory_bytes(setting.device),
        lora_shape=after.lora_shape,
        stopping=len(exchanges.stopping),
        kept_step=training.kept_step,
    )


def _mean(measured: dict[str, Measured], sequences: list[Encoded]) -> float | None:
    return mean_loss([measured[one.id] for one in sequences])


def _pair(id_: str, before: Before, after: dict[str, Measured]) -> LossPair:
    return LossPair(
        id=id_,
        tokens=after[id_].tokens,
        base=before.base[id_].mean,
        parent=before.parent[id_].mean,
        candidate=after[id_].mean,
    )


def _peak_memory_bytes(device: Device) -> int:
    if device.torch_device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device.torch_device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
