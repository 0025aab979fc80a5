"""Which modules of a base the adapter changes: the strategy's names, as this architecture calls them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sleepd.protocol.strategy import Strategy
from sleepd.worker.failure import GiveUp

ALL_LINEAR = "all-linear"
_JOINED = ("c_attn", "qkv_proj", "query_key_value", "Wqkv", "qkv")
"""What architectures call the one module that holds query, key and value together."""
_CALLED: dict[str, tuple[str, ...]] = {
    "q_proj": ("q_b_proj", "query", "q_lin", "wq", *_JOINED),
    "k_proj": ("kv_b_proj", "key", "k_lin", "wk", *_JOINED),
    "v_proj": ("kv_b_proj", "value", "v_lin", "wv", *_JOINED),
    "o_proj": ("out_proj", "dense", "c_proj"),
    "gate_proj": ("gate_up_proj", "w1", "input_linear"),
    "up_proj": ("gate_up_proj", "up_gate_proj", "w3", "fc1", "c_fc", "fc_in", "dense_h_to_4h"),
    "down_proj": ("w2", "fc2", "fc_out", "c_proj", "dense_4h_to_h", "output_linear"),
}
"""Other names of what Llama's modules are called, the likeliest first."""
_BYPASSED = "out_proj"
"""Beside a ``conv1d``: the fused kernels of state-space layers read this weight and never call the module."""


@dataclass(frozen=True)
class Targets:
    """What a LoRA configuration is given."""

    modules: list[str] | str
    excluded: list[str]
    notice: str
    """What the operator must know about the choice; empty: nothing."""


def find_targets(model: Any, strategy: Strategy) -> Targets:
    """The modules of this model that the strategy means.

    Raises:
        GiveUp: ``base_unusable``, the model has none of them.
    """
    linear = linear_modules(model)
    names = {name.rpartition(".")[2] for name in linear}
    if isinstance(strategy.target_modules, str):
        excluded = _bypassed(model)
        left = [name for name in linear if name not in excluded]
        if not left:
            raise _none(model, strategy.name, strategy.target_modules, names)
        if not excluded:
            return Targets(ALL_LINEAR, [], "")
        text = f"the adapter leaves out {len(excluded)} modules such as {excluded[0]}: {_WHY_BYPASSED}"
        return Targets(ALL_LINEAR, sorted({name.rpartition(".")[2] for name in excluded}), text)
    found = {name: meant(name, names) for name in strategy.target_modules}
    chosen = sorted({other for other in found.values() if other})
    if not chosen:
        raise _none(model, strategy.name, ", ".join(strategy.target_modules), names)
    renamed = [f"{name} is {other or 'not there'}" for name, other in found.items() if other != name]
    text = f"in this model {', '.join(renamed)}; the adapter changes {', '.join(chosen)}"
    return Targets(chosen, [], text if renamed else "")


_WHY_BYPASSED = "the fast code of state-space layers does not call them, so an adapter there would have no effect"


def meant(name: str, names: Collection[str]) -> str:
    """What a module of Llama's is called among ``names``; empty: nothing like it is there."""
    return next((one for one in (name, *_CALLED.get(name, ())) if one in names), "")


def linear_modules(model: Any) -> list[str]:
    """Full names of the modules that LoRA can change: linear ones, but for the head over the vocabulary."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name for name, module in model.named_modules() if isinstance(module, Linear | Conv1D) and module is not head
    ]


def _bypassed(model: Any) -> list[str]:
    """Full names of linear modules whose weight a fused kernel reads without calling them."""
    mixers = [
        name for name, module in model.named_modules() if hasattr(module, "conv1d") and hasattr(module, _BYPASSED)
    ]
    return [f"{name}.{_BYPASSED}" for name in mixers]


def _none(model: Any, strategy: str, wanted: str, names: Collection[str]) -> GiveUp:
    kind = getattr(model.config, "model_type", type(model).__name__)
    return GiveUp(
        "base_unusable",
        f"strategy {strategy} adapts {wanted}; this model ({kind}) has only: {', '.join(sorted(names)) or 'none'}",
        "set training.strategy to one that adapts all linear modules, such as consolidate, or name another model.base",
    )
