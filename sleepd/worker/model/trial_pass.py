"""One short pass of all that a cycle does to a model, before the cycle: it shows what this architecture cannot do."""

from __future__ import annotations

from typing import Any

import torch

from sleepd.worker.data.examples import Encoded
from sleepd.worker.data.packing import make_row
from sleepd.worker.failure import GiveUp

from .adapted_layers import adapted_layers
from .device import Device
from .generate import Asked, replies
from .gguf.convert_gguf import Notify
from .inspect_base import reading
from .losses import row_logits, token_losses

TRIAL_TOKENS = 16
_ANOTHER = "name another model.base, or install a newer transformers"


def try_out(model: Any, device: Device, notify: Notify) -> None:
    """Predict, go back through it, and reply once; the model is left as it was.

    Raises:
        GiveUp: ``base_unusable``, the model cannot do one of them, or gives no numbers.
    """
    kind = getattr(model.config, "model_type", type(model).__name__)
    rows = int(model.get_input_embeddings().weight.shape[0])
    ids = tuple(number % rows for number in range(1, TRIAL_TOKENS + 1))
    row = make_row([Encoded(id="trial", ids=ids, prompt_tokens=TRIAL_TOKENS // 2)], 0)
    with reading(f"this base ({kind}) cannot be trained", hint=_ANOTHER):
        ((_one, logits, targets),) = row_logits(model, row, device)
        loss = token_losses(logits, targets).sum()
        if not bool(torch.isfinite(logits).all()):
            raise GiveUp("base_unusable", "the base's own predictions are not finite numbers", "fetch the model again")
        loss.backward()  # type: ignore[no-untyped-call]
    _report_untouched(model, notify)
    model.zero_grad(set_to_none=True)
    with reading(f"this base ({kind}) cannot reply", hint=_ANOTHER):
        replies(model, device, [Asked(ids[:5], 2), Asked(ids[:9], 2)], stop_ids=frozenset())


def _report_untouched(model: Any, notify: Notify) -> None:
    """A module whose weight is read past the adapter gets no gradient: it is adapted by name only."""
    layers = adapted_layers(model)
    untouched = [name for name, layer in layers.items() if layer.lora_B[model.active_adapter].weight.grad is None]
    if len(untouched) == len(layers):
        text = f"none of the {len(layers)} adapted modules of this base takes part in its predictions"
        raise GiveUp("base_unusable", text, _ANOTHER)
    if untouched:
        some = ", ".join(sorted({name.rpartition(".")[2] for name in untouched}))
        notify("adapter_modules_idle", f"{len(untouched)} of {len(layers)} adapted modules take no part: {some}")
