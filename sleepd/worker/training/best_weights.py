"""Which weights of a training are kept: those of a validation check, scaled down to the drift budget if need be."""

from __future__ import annotations

import torch

from .adapter_weights import AdapterWeights
from .early_stopping import EarlyStopping, is_enough, kept, steps_to_check
from .outcome import Training

_KEPT = "kept/"


class BestWeights:
    """The weights that are kept so far.

    Args:
        weights: those that are trained.
        stopping: what they are validated with.
    """

    def __init__(self, weights: AdapterWeights, stopping: EarlyStopping) -> None:
        self._weights = weights
        self._stopping = stopping
        self._tensors: dict[str, torch.Tensor] = {}
        """Of the check that is kept so far, on the CPU; empty before the first one."""

    def is_enough(self, done: Training, steps: int) -> bool:
        """Validate where that is due after ``done`` of so many steps; whether training may end."""
        if not self._stopping.stopping:
            return False
        is_new = not done.checks or done.checks[-1].step < done.steps
        if is_new and done.steps in steps_to_check(steps):
            self._weights.model.eval()
            check = self._stopping.check(done.steps)
            done.checks.append(check)
            if kept(done.checks) is check:
                self._tensors = self._weights.copied()
        return is_enough(done.checks)

    def keep(self, done: Training) -> None:
        """Leave the weights that are kept in the model; whatever interrupts it, those of the last step."""
        last = self._weights.copied()
        whole = self._tensors or last

        def scale(share: float) -> None:
            # One of the two factors is enough: the adapter's effect is their product.
            self._weights.put_back({name: one * share if ".lora_B." in name else one for name, one in whole.items()})

        try:
            self._weights.put_back(whole)
            scaled_down = self._stopping.scale_to_budget(scale)
            found = self._weights.copied()
        finally:
            self._weights.put_back(last)
        self._weights.put_back(found)
        done.scaled_down = scaled_down
        done.kept_step = kept(done.checks).step if done.checks else done.steps

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a resume point."""
        return {f"{_KEPT}{name}": weight for name, weight in self._tensors.items()}

    def restore(self, tensors: dict[str, torch.Tensor], done: Training) -> None:
        """Stand where ``tensors`` and ``done`` were taken."""
        if done.checks:
            named = self._weights.named()
            self._tensors = {name: tensors[f"{_KEPT}{name}"] for name in named}
