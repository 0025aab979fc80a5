"""Signs of life from within one pass through a model: it takes minutes where the base is large and the box is slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def beat_at_each_layer(model: torch.nn.Module, beat: Callable[[], None]) -> None:
    """Have ``beat`` called after each of the layers, on the way forward and on the way back. No figure changes."""

    def after_layer(_layer: torch.nn.Module, _given: Any, output: Any) -> None:
        beat()
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            hidden.register_hook(after_gradient)  # type: ignore[no-untyped-call]

    def after_gradient(_gradient: torch.Tensor) -> None:
        beat()

    for layer in decoder_layers(model):
        layer.register_forward_hook(after_layer)


def decoder_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The model's layers: the outermost list of more than one module."""
    lists = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) > 1)
    return list(next(lists, ()))
