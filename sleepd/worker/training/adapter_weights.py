"""The weights that a training changes, with all that the next step depends on: their optimizer and random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sleepd.protocol.strategy import Strategy
from sleepd.worker.model.adapter import Device

ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")
"""What torch's AdamW keeps for each weight."""


class AdapterWeights:
    """The trainable weights of ``model``, which stays in evaluation mode unless the strategy has dropout.

    Args:
        model: with its adapter.
        device: where it is.
        strategy: of learning rate, decay and gradient norm.
        seed: of the random numbers that dropout draws.
    """

    def __init__(self, model: Any, device: Device, strategy: Strategy, seed: int) -> None:
        self.model = model
        self.device = device
        self._strategy = strategy
        self._optimizer = torch.optim.AdamW(
            list(self.named().values()), lr=strategy.learning_rate, weight_decay=strategy.weight_decay
        )
        torch.manual_seed(seed)
        self._random_states = self._random_states_now()

    def named(self) -> dict[str, torch.nn.Parameter]:
        """Each weight by its name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def copied(self) -> dict[str, torch.Tensor]:
        """As they are now, to be put back later."""
        return {name: weight.detach().clone() for name, weight in self.named().items()}

    @torch.no_grad()
    def put_back(self, weights: dict[str, torch.Tensor]) -> None:
        """Make the weights what they were."""
        for name, weight in self.named().items():
            weight.copy_(weights[name])

    # --- one step ---

    def begin_step(self, rate_share: float) -> None:
        """Train at that share of the learning rate. The random numbers of here are those of the last whole step."""
        self.model.train(self._strategy.dropout > 0)
        for group in self._optimizer.param_groups:
            group["lr"] = self._strategy.learning_rate * rate_share
        self._random_states = self._random_states_now()

    def drop_gradients(self) -> None:
        """Forget what was accumulated."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self, require_finite: Callable[[float], None]) -> None:
        """Change the weights by the accumulated gradients, whose norm is held within the strategy's limit.

        Args:
            require_finite: given the norm before; what it raises leaves the weights as they are.
        """
        norm = torch.nn.utils.clip_grad_norm_(list(self.named().values()), self._strategy.max_grad_norm)
        require_finite(float(norm))
        self._optimizer.step()
        self.drop_gradients()
        self._random_states = self._random_states_now()

    # --- interrupting and going on ---

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights, optimizer and random numbers of the last whole step."""
        named = self.named()
        tensors = {f"weight/{name}": weight.detach() for name, weight in named.items()}
        for name, weight in named.items():
            for key, value in self._optimizer.state.get(weight, {}).items():
                tensors[f"adam/{key}/{name}"] = value.detach()
        return tensors | {f"random/{name}": state for name, state in self._random_states.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Stand where ``tensors`` were taken."""
        named = self.named()
        self.put_back({name: tensors[f"weight/{name}"] for name in named})
        for name, weight in named.items():
            own = {key: tensors[full] for key in ADAM_STATE if (full := f"adam/{key}/{name}") in tensors}
            # The count of steps stays on the CPU, as the optimizer itself keeps it.
            self._optimizer.state[weight] = {
                key: value if key == "step" else value.to(weight.device) for key, value in own.items()
            }
        self._random_states = {name: tensors[f"random/{name}"] for name in self._random_states}
        torch.set_rng_state(self._random_states["cpu"])
        if "cuda" in self._random_states:
            torch.cuda.set_rng_state(self._random_states["cuda"], self.device.torch_device)

    def _random_states_now(self) -> dict[str, torch.Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self.device.torch_device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device.torch_device)
        return states
