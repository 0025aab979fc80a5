"""The gradient of an optimizer step, or of a share of its chat examples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
import torch

from sleepd.worker.data.examples import Encoded
from sleepd.worker.data.packing import PackedRow
from sleepd.worker.model.device import Device
from sleepd.worker.model.losses import Reference, kl_from_base, row_logits, token_losses


class StepCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the loss of a step is divided by: counts of the whole step, so that shares add up to the same gradient."""

    supervised: int
    """Tokens of experiences."""
    reference_tokens: int
    """Supervised tokens of reference answers."""
    salience: float
    """Sum of weight times supervised tokens; 0: all tokens weigh alike."""


def count(members: Sequence[Encoded], references: Collection[str], *, is_weighted: bool) -> StepCounts:
    """The counts of a step.

    Args:
        members: its chat examples.
        references: ids of reference answers; the others are experiences.
        is_weighted: whether the salience counts.
    """
    learned = [one for one in members if one.id not in references]
    return StepCounts(
        supervised=sum(one.supervised for one in learned),
        reference_tokens=sum(one.supervised for one in members if one.id in references),
        salience=sum(one.weight * one.supervised for one in learned) if is_weighted else 0.0,
    )


def accumulate(
    model: Any,
    device: Device,
    rows: Sequence[PackedRow],
    references: Mapping[str, Reference],
    counts: StepCounts,
    kl_weight: float,
    after_row: Callable[[int], None],
) -> float:
    """Add the gradients of these rows, of a step or of a share of it, to those of the weights, row by row.

    Args:
        model: with its adapter.
        device: where it is.
        rows: of chat examples.
        references: the base's distributions, by the id of a reference answer.
        counts: of the whole step.
        kl_weight: of the second term of the loss.
        after_row: gets the row's tokens.

    Returns:
        the sum of the experiences' token losses.
    """
    losses = []
    for row in rows:
        loss = torch.zeros((), device=device.torch_device)
        for one, logits, targets in row_logits(model, row, device):
            reference = references.get(one.id)
            if reference is not None:
                loss = loss + kl_weight * kl_from_base(logits, reference).sum() / counts.reference_tokens
                continue
            token_loss = token_losses(logits, targets).sum()
            losses.append(token_loss.detach())
            # Where salience is not to count, or is nowhere, all tokens weigh alike.
            share = one.weight / counts.salience if counts.salience > 0 else 1 / counts.supervised
            loss = loss + token_loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        after_row(row.tokens)
    # Read at the end: on a GPU each reading waits for all that was begun.
    return sum(torch.stack(losses).tolist()) if losses else 0.0
