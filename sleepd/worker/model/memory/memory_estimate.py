"""How much memory a cycle takes, from the model's shapes: for ``sleepctl doctor``, before anything is loaded. Pure.

The peak is in the way back through one row of tokens. Beside the weights it holds what each layer kept of each token,
the logits of the supervised places, the adapter with its optimizer, and the libraries themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sleepd.worker.model.device import Device

LIBRARIES_BYTES = 450 * 2**20
"""torch, transformers and peft once they are imported and have computed something."""
ADAPTER_COPIES = 7
"""Of each adapter weight, in float32: itself, its gradient, two of AdamW, the first one, the kept one, the last one."""
LOGIT_COPIES = 3
"""Of the logits at the supervised places, in the model's number type: they, their gradient in parts, and as a whole."""
PLACES_AT_ONCE = 64
"""Of a row, the logits of so many places are in float32 at one time; for the way back they are computed again."""
WIDE_LOGIT_COPIES = 4
"""In float32, of ``PLACES_AT_ONCE`` places: what the loss is taken of, its logarithms, and the gradients of both."""
HIDDEN_KEPT, INNER_KEPT = 22, 8
"""What a layer keeps of a token for the way back, in numbers of the hidden and of the inner size."""
ATTENTION_KEPT = 3
"""What eager attention keeps of each head for each pair of tokens, in numbers; the fused one keeps nothing."""

PACKED_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Of a number in nf4: its four bits, the scale of its block of 64 in eight bits, and theirs, 256 at a time, in 32."""
UNPACKED_COPIES = 2
"""Of a packed matrix while it is computed with, in the model's number type: itself, and turned for the way back."""
HELD_SHARE = 1.15
"""Of what a row keeps, what the allocator holds for it once rows of many lengths went before."""


@dataclass(frozen=True)
class Shape:
    """What of a model its memory depends on."""

    weights: int
    """Numbers, each shared one once."""
    adapter: int
    """Numbers of the adapter."""
    layers: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    packed: int = 0
    """Of ``weights``, the numbers that are kept in four bits."""
    largest_packed: int = 0
    """Numbers of the largest matrix of these."""


@dataclass(frozen=True)
class Need:
    """A shape and the way in which it is computed with."""

    shape: Shape
    number_bytes: int
    """Of one number of the base as it is computed with: 2 or 4."""
    is_eager: bool
    """Whether attention is computed step by step, and keeps what it computed."""
    is_converted: bool
    """Whether the first cycle converts the base from GGUF, in float32 and a copy."""


def is_packed(weight: Any) -> bool:
    """Whether a weight is kept in four bits, several numbers in one."""
    return getattr(weight, "quant_state", None) is not None


def _numbers(weight: Any) -> int:
    return math.prod(weight.quant_state.shape) if is_packed(weight) else int(weight.numel())


def shape_of(adapted: Any, config: Any, packed: Sequence[int] = ()) -> Shape:
    """The shape of a model with an adapter, wherever it is, the meta device included.

    ``packed``: numbers of each matrix that will be in four bits once it is loaded.
    """
    adapter = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    whole = sum(map(_numbers, adapted.parameters()))
    packed = [*packed, *(_numbers(one) for one in adapted.parameters() if is_packed(one))]
    hidden = int(config.hidden_size)
    experts = int(getattr(config, "num_experts_per_tok", None) or 1)
    inner = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None) or 4 * hidden
    return Shape(
        weights=whole - adapter,
        adapter=adapter,
        layers=int(config.num_hidden_layers),
        hidden=hidden,
        inner=experts * int(inner),
        heads=int(getattr(config, "num_attention_heads", 1)),
        vocabulary=int(adapted.get_input_embeddings().weight.shape[0]),
        packed=sum(packed),
        largest_packed=max(packed, default=0),
    )


def need_of(adapted: Any, device: Device) -> Need:
    """Of a model that is loaded already, so that nothing is to be converted."""
    config = adapted.config.get_text_config()
    is_eager = getattr(config, "_attn_implementation", "") == "eager"
    return Need(shape_of(adapted, config), device.dtype.itemsize, is_eager=is_eager, is_converted=False)


def needed_bytes(need: Need, tokens: int, is_recomputing: bool = False) -> int:
    """The peak of a cycle whose longest row has so many tokens, all of them supervised.

    ``is_recomputing``: each layer keeps its input alone, and one at a time computes again.
    """
    shape, size = need.shape, need.number_bytes
    weights = (shape.weights - shape.packed + UNPACKED_COPIES * shape.largest_packed) * size
    weights += round(shape.packed * PACKED_BYTES)
    layers = 1 if is_recomputing else shape.layers
    kept = layers * tokens * (HIDDEN_KEPT * shape.hidden + INNER_KEPT * shape.inner) * size
    if need.is_eager:
        kept += layers * shape.heads * tokens**2 * ATTENTION_KEPT * size
    kept += shape.layers * tokens * shape.hidden * size if is_recomputing else 0
    wide = min(tokens, PLACES_AT_ONCE) * 4 * WIDE_LOGIT_COPIES
    logits = shape.vocabulary * (tokens * size * LOGIT_COPIES + wide)
    training = weights + round(HELD_SHARE * (kept + logits)) + 4 * ADAPTER_COPIES * shape.adapter
    converting = shape.weights * (4 + 2) if need.is_converted else 0
    return LIBRARIES_BYTES + max(training, converting)
