"""Layers that keep only their input on the way forward, and compute again what they need on the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from sleepd.worker.process.layer_heartbeat import decoder_layers


def recompute_layers(model: torch.nn.Module, is_wanted: Callable[[], bool]) -> None:
    """Let each layer of ``model`` do so whenever ``is_wanted`` says it. No figure changes.

    It is done around the layer, whatever its architecture: the library's own switch works in training mode alone, in
    which some bases draw random numbers.
    """
    for layer in decoder_layers(model):
        layer.forward = _recomputing(layer.forward, is_wanted)


def _recomputing(forward: Callable[..., Any], is_wanted: Callable[[], bool]) -> Callable[..., Any]:
    def compute(*given: Any, **named: Any) -> Any:
        if is_wanted() and torch.is_grad_enabled():
            return checkpoint(forward, *given, use_reentrant=False, **named)
        return forward(*given, **named)

    return compute
