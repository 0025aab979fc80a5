"""The weights that a training changes, with all that the next step depends on: their optimizer and random numbers."""

from __future__ import annotations

from typing import Any

import torch

from sleepd.protocol.strategy import Strategy
from sleepd.worker.model.device import Device

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
            list(self.named().values()),
            lr=strategy.learning_rate,
            weight_decay=strategy.weight_decay,
            fused=device.torch_device.type == "cuda",  # changes the weights in place, without copies
        )
        self._make_room()
        torch.manual_seed(seed)
        self._random_states = self._random_states_now()

    def named(self) -> dict[str, torch.nn.Parameter]:
        """Each weight by its name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def copied(self) -> dict[str, torch.Tensor]:
        """As they are now, on the CPU, to be put back later."""
        return {name: weight.detach().to("cpu", copy=True) for name, weight in self.named().items()}

    @torch.no_grad()
    def put_back(self, weights: dict[str, torch.Tensor]) -> None:
        """Make the weights what they were."""
        for name, weight in self.named().items():
            weight.copy_(weights[name])

    def _make_room(self) -> None:
        """The optimizer's own figures from the start, so that memory runs out in a pass and not in its first step."""
        for weight in self.named().values():
            zeros = {name: torch.zeros_like(weight) for name in ADAM_STATE[1:]}
            counted_on = weight.device if self._optimizer.defaults["fused"] else "cpu"
            self._optimizer.state[weight] = {"step": torch.zeros((), device=counted_on), **zeros}

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

    def clip(self) -> float:
        """Hold the norm of the accumulated gradients within the strategy's limit; the norm that it was."""
        return float(torch.nn.utils.clip_grad_norm_(list(self.named().values()), self._strategy.max_grad_norm))

    def step(self) -> None:
        """Change the weights by the accumulated gradients."""
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
            for key in ADAM_STATE:
                self._optimizer.state[weight][key].copy_(tensors[f"adam/{key}/{name}"])
        self._random_states = {name: tensors[f"random/{name}"] for name in self._random_states}
        torch.set_rng_state(self._random_states["cpu"])
        if "cuda" in self._random_states:
            torch.cuda.set_rng_state(self._random_states["cuda"], self.device.torch_device)

    def _random_states_now(self) -> dict[str, torch.Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self.device.torch_device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device.torch_device)
        return states
