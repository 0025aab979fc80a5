"""What of a base the active adapter changes, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from .quantization import unpacked


def adapted_norm(model: Any) -> float:
    """Frobenius norm of all the base's weights that the adapter changes."""
    weights = map(unpacked, _adapted_weights(model))
    norms = [torch.linalg.vector_norm(weight, dtype=torch.float32) for weight in weights]
    return math.sqrt(sum(float(norm) ** 2 for norm in norms))


def _adapted_weights(model: Any) -> Iterator[torch.Tensor]:
    for layer in adapted_layers(model).values():
        yield layer.get_param() if hasattr(layer, "get_param") else layer.get_base_layer().weight


def adapted_layers(model: Any) -> dict[str, Any]:
    """By its full name, each module that the active adapter changes."""
    adapter = model.active_adapter
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and adapter in getattr(module, "lora_A", ())
    }


def expert_counts(model: Any) -> dict[str, int]:
    """Of each fused layer of experts, by the name of its tensors up to ``.lora_``, how many experts it holds.

    Its factors A [r · experts, in] and B [out, r · experts] hold one pair an expert, and are no one pair.
    """
    layers = adapted_layers(model).items()
    return {name: layer.num_experts for name, layer in layers if getattr(layer, "num_experts", 1) > 1}
