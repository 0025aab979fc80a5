"""The two terms of the loss: the replies' negative log-likelihood, and the KL divergence from the base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch.utils.checkpoint import checkpoint

from sleepd.worker.data.examples import Encoded
from sleepd.worker.data.packing import PackedRow, attention_mask

from .device import Device, computing
from .memory.memory_estimate import PLACES_AT_ONCE

TOP_K = 64
"""Tokens of the base's distribution that are kept one by one; the others are one sum."""


@dataclass(frozen=True)
class Reference:
    """The base's distribution at the n predictions of one of its own answers."""

    tokens: torch.Tensor
    """[n, K] the likeliest tokens."""
    log_probabilities: torch.Tensor
    """[n, K + 1] of these, and of all others together."""


def row_logits(model: Any, row: PackedRow, device: Device) -> list[tuple[Encoded, torch.Tensor, torch.Tensor]]:
    """Each member of the row, its logits [n, vocabulary] at the supervised places only, and targets [n].

    The logits are in the model's own number type: all of them in float32 would take several times the memory.
    """
    place = device.torch_device
    mask = None if row.segments is None else attention_mask(row.segments.to(place), device.dtype)
    with computing(device):
        out = model(
            input_ids=row.ids.to(place),
            position_ids=row.positions.to(place),
            attention_mask=mask,
            use_cache=False,
            logits_to_keep=row.predicting.to(place),
        )
    sizes = [one.supervised for one in row.members]
    logits, targets = torch.split(out.logits[0], sizes), torch.split(row.targets.to(place), sizes)
    return list(zip(row.members, logits, targets, strict=True))


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[n] negative log-likelihoods of the target tokens, in nats."""
    return _by_places(partial(F.cross_entropy, reduction="none"), logits, targets)


def make_reference(logits: torch.Tensor) -> Reference:
    """Remember the base's distribution, of which ``logits`` [n, vocabulary] are the logarithm up to a constant."""
    most = min(TOP_K, logits.shape[-1] - 1)
    parts = [part.float().log_softmax(-1).topk(most) for part in torch.split(logits, PLACES_AT_ONCE)]
    top, tokens = (torch.cat(column) for column in zip(*parts, strict=True))
    return Reference(tokens=tokens, log_probabilities=_with_rest(top))


def kl_from_base(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """[n] KL(base ‖ adapted) in nats, over the base's K likeliest tokens and all others as one.

    Joining outcomes never raises a KL divergence, so this is a lower bound of the one over the whole vocabulary; the
    joined tokens hold little of the base's probability.
    """
    return _by_places(_kl, logits, reference.tokens, reference.log_probabilities)


def _kl(logits: torch.Tensor, tokens: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    adapted = _with_rest(logits.log_softmax(-1).gather(-1, tokens))
    return (base.exp() * (base - adapted)).sum(-1)


def _by_places(loss: Callable[..., torch.Tensor], logits: torch.Tensor, *beside: torch.Tensor) -> torch.Tensor:
    """[n] the loss at each place, a few places at a time; ``beside`` has a row for each place, too."""

    def part(logits: torch.Tensor, *beside: torch.Tensor) -> torch.Tensor:
        return loss(logits.float(), *beside)

    found = []
    for given in zip(*(torch.split(each, PLACES_AT_ONCE) for each in (logits, *beside)), strict=True):
        again = logits.requires_grad and torch.is_grad_enabled()
        found.append(checkpoint(part, *given, use_reentrant=False, preserve_rng_state=False) if again else part(*given))
    return torch.cat(found)


def _with_rest(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Append the logarithm of what is missing to a sum of one; bounded, for it can round to nothing."""
    missing = (1.0 - log_probabilities.exp().sum(-1, keepdim=True)).clamp(min=1e-6)
    return torch.cat([log_probabilities, missing.log()], dim=-1)
