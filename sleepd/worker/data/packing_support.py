"""Whether an architecture keeps several chat examples in one row apart, from how it is built. Pure.

A row of several chat examples is right only for a model that attends to other tokens through the attention mask alone,
and knows their distance from the position ids alone. Measuring does not always show it: on a small or young model the
trace that one chat example leaves in the next is below what bfloat16 rounds away.
"""

from __future__ import annotations

from typing import Any

_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention", "attention", "global", "local")
"""Kinds of layers that see other tokens through the mask alone."""
_ALIBI = ("bloom", "mpt")
"""Models whose distances are counted along the row, whatever the position ids say."""


def why_not(model: Any) -> str:
    """Why each chat example must have a row of its own; empty: nothing in the model's build forbids sharing."""
    config = model.config.get_text_config()
    other = sorted({str(kind) for kind in getattr(config, "layer_types", None) or ()} - set(_ATTENTION))
    if other:
        return f"it has {', '.join(other)} layers, which carry something from token to token"
    recurrent = _recurrent_layer(model)
    if recurrent:
        return f"its {recurrent} layers carry something from token to token"
    if getattr(config, "model_type", "") in _ALIBI or getattr(config, "alibi", False):
        return "it counts distances along the row (ALiBi)"
    return ""


def _recurrent_layer(model: Any) -> str:
    """The name of a kind of layer that is no attention; convolutions along the tokens stand in all state-space ones."""
    for module in model.modules():
        name = type(module).__name__
        is_named = any(part in name for part in ("Mamba", "Rwkv", "RgLru", "ShortConv", "DeltaNet", "Recurrent"))
        is_layer = is_named and "Model" not in name and "For" not in name
        if is_layer or name == "Conv1d":
            return name
    return ""
