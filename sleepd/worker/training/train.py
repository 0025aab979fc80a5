"""The training loop: optimizer steps over packed rows, with a step back where memory runs out."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch

from sleepd.protocol.job import Progress
from sleepd.protocol.strategy import Strategy
from sleepd.worker.channel import Channel
from sleepd.worker.data.examples import Encoded
from sleepd.worker.data.packing import PackedRow, make_rows, shared_opening
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.adapter import Device
from sleepd.worker.model.losses import Reference, kl_from_base, row_logits, token_losses
from sleepd.worker.model.out_of_memory import MemoryLimits, is_out_of_memory
from sleepd.worker.progress import FORWARD, TRAINED, Pace

from .early_stopping import DriftScaling, EarlyStopping, ValidationCheck, is_enough, kept, steps_to_check
from .schedule import epoch_ends, epoch_order, rate_share

ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")
"""What torch's AdamW keeps for each weight."""


@dataclass
class TrainingSet:
    """What is trained on. ``encode`` makes the sequences anew when memory asks for shorter ones."""

    experiences: list[Encoded]
    encode: Callable[[int], list[Encoded]]
    reference_examples: list[Encoded]
    references: dict[str, Reference]
    """By the id of a reference answer."""


@dataclass
class Training:
    """What came of it."""

    steps: int = 0
    epochs: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    epoch_losses: list[float] = field(default_factory=list)
    epoch_total: float = 0.0
    """Of the epoch under way: sum of its token losses so far."""
    epoch_tokens: int = 0
    """Of the epoch under way: supervised tokens so far."""
    looks: list[ValidationCheck] = field(default_factory=list)
    kept_step: int | None = None
    """The step whose weights are kept, once it is over; None: early stopping was off."""
    shortened: DriftScaling | None = None
    """What the drift budget left of it, once it is over; None: all."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens through the model in a second of training."""
        return self.tokens / self.seconds if self.seconds else 0.0


def random_states(device: Device) -> dict[str, torch.Tensor]:
    """The states of the random number generators that dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.torch_device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device.torch_device)
    return states


class Trainer:
    """Trains the adapter of ``model``, which stays in evaluation mode unless the strategy has dropout."""

    def __init__(
        self,
        model: Any,
        device: Device,
        data: TrainingSet,
        strategy: Strategy,
        seed: int,
        limits: MemoryLimits,
        channel: Channel,
        pace: Pace,
        *,
        packed: bool,
        early_stopping: EarlyStopping | None = None,
    ) -> None:
        self._model = model
        self._device = device
        self._data = data
        self._strategy = strategy
        self._seed = seed
        self._limits = limits
        self._channel = channel
        self._pace = pace
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._weights, lr=strategy.learning_rate, weight_decay=strategy.weight_decay
        )
        self._packed = packed
        self._early_stopping = early_stopping
        self._kept: dict[str, torch.Tensor] = {}
        """The weights of the validation check that is kept so far; empty before the first one."""
        self._last_loss: float | None = None
        self._sequences: dict[str, Encoded] = {}
        self._reference_examples: dict[str, Encoded] = {}
        self._opening = 0
        self._steps_to_check: list[int] = []
        self._shown = Progress(phase="training", device=device.description)
        self.done = Training()
        torch.manual_seed(seed)
        self._random_states = random_states(device)

    def run(self, after_step: Callable[[], None]) -> Training:
        """All epochs that are left. Deterministic for a seed, a device and a number of threads, in one go or in two.

        Args:
            after_step: called after each optimizer step.

        Raises:
            Stopped: SIGTERM came; within one micro-batch. ``state`` is then that of the last whole step.
            GiveUp: ``out_of_memory``.
        """
        self._encode()
        ends = epoch_ends(self._strategy, self._data.experiences, self._seed)
        epochs, steps = len(ends), ends[-1]
        self._shown = Progress(phase="training", steps=steps, epochs=epochs, device=self._device.description)
        self._steps_to_check = steps_to_check(steps)
        while not (self._has_learned_enough() or self.done.steps == steps):
            self._model.train(self._strategy.dropout > 0)
            epoch = bisect_right(ends, self.done.steps)
            first = (self.done.steps - (ends[epoch - 1] if epoch else 0)) * self._strategy.batch_size
            self._set_rate(rate_share(self.done.steps, steps, self._strategy.warmup_share))
            order = epoch_order(self._data.experiences, self._seed, epoch)
            self._step(order[first : first + self._strategy.batch_size])
            if self.done.steps == ends[epoch]:
                self._end_epoch()
            after_step()
            self.report()
        if self.done.epoch_tokens:
            self._end_epoch()  # cut short
        self._model.eval()
        if self._early_stopping is not None:
            self._keep(self._early_stopping)
        return self.done

    def _has_learned_enough(self) -> bool:
        """Run a validation check where one is due; whether training may stop early."""
        if self._early_stopping is None or not self._early_stopping.stopping:
            return False
        checks, step = self.done.looks, self.done.steps
        if step in self._steps_to_check and (not checks or checks[-1].step < step):
            self._validate(self._early_stopping)
        return is_enough(checks)

    def _validate(self, early_stopping: EarlyStopping) -> None:
        self._model.eval()
        check = early_stopping.check(self.done.steps)
        self.done.looks.append(check)
        if kept(self.done.looks) is check:
            self._kept = self._copied_weights()

    def _keep(self, early_stopping: EarlyStopping) -> None:
        """Leave the weights that are kept in the model; whatever interrupts it, those of the last step."""
        last = self._copied_weights()
        whole = self._kept or last

        def scale(share: float) -> None:
            # One of the two factors is enough: the adapter's effect is their product.
            self._put_back({name: one * share if ".lora_B." in name else one for name, one in whole.items()})

        try:
            self._put_back(whole)
            scaling = early_stopping.scale_to_budget(scale)
            found = self._copied_weights()
        finally:
            self._put_back(last)
        self._put_back(found)
        self.done.shortened = scaling
        self.done.kept_step = kept(self.done.looks).step if self.done.looks else self.done.steps

    def _end_epoch(self) -> None:
        done = self.done
        done.epoch_losses.append(done.epoch_total / max(1, done.epoch_tokens))
        done.epoch_total, done.epoch_tokens = 0.0, 0
        done.epochs += 1

    # Interrupting and going on

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next step depends on beside ``done``: weights, optimizer, random numbers."""
        named = self._named_weights()
        tensors = {f"weight/{name}": weight.detach() for name, weight in named.items()}
        for name, weight in named.items():
            for key, value in self._optimizer.state.get(weight, {}).items():
                tensors[f"adam/{key}/{name}"] = value.detach()
        if self._kept:
            tensors |= {f"kept/{name}": weight for name, weight in self._kept.items()}
        return tensors | {f"random/{name}": state for name, state in self._random_states.items()}

    def restore(self, tensors: dict[str, torch.Tensor], done: Training) -> None:
        """Stand where ``state`` and ``done`` were taken; the model and the strategy are the same."""
        weights = self._named_weights()
        self._put_back({name: tensors[f"weight/{name}"] for name in weights})
        if done.looks:
            self._kept = {name: tensors[f"kept/{name}"].to(weight.device) for name, weight in weights.items()}
        for name, weight in weights.items():
            own = {key: tensors[full] for key in ADAM_STATE if (full := f"adam/{key}/{name}") in tensors}
            # The count of steps stays on the CPU, as the optimizer itself keeps it.
            self._optimizer.state[weight] = {
                key: value if key == "step" else value.to(weight.device) for key, value in own.items()
            }
        self._random_states = {name: tensors[f"random/{name}"] for name in self._random_states}
        torch.set_rng_state(self._random_states["cpu"])
        if "cuda" in self._random_states:
            torch.cuda.set_rng_state(self._random_states["cuda"], self._device.torch_device)
        self.done = done

    def _named_weights(self) -> dict[str, torch.nn.Parameter]:
        return {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}

    def _copied_weights(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self._named_weights().items()}

    @torch.no_grad()
    def _put_back(self, weights: dict[str, torch.Tensor]) -> None:
        for name, weight in self._named_weights().items():
            weight.copy_(weights[name])

    def _encode(self) -> None:
        sequences = self._data.encode(self._limits.max_tokens)
        self._sequences = {one.id: one for one in sequences}
        self._reference_examples = {one.id: one for one in self._data.reference_examples}
        self._opening = shared_opening([*sequences, *self._data.reference_examples])

    def _set_rate(self, share: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._strategy.learning_rate * share

    def _step(self, ids: list[str]) -> None:
        """One optimizer step, tried again smaller where memory runs out."""
        self._random_states = random_states(self._device)
        while True:
            rows = self._rows(ids)
            started = time.monotonic()
            try:
                total, supervised = self._accumulate(rows)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                break
            # Outside the handler, whose traceback would keep the failed attempt's tensors alive.
            self._optimizer.zero_grad(set_to_none=True)
            longest = self._limits.max_tokens
            self._limits.shrink(rows)
            if self._limits.max_tokens != longest:
                self._encode()
        self._require_finite("loss", total)
        norm = torch.nn.utils.clip_grad_norm_(self._weights, self._strategy.max_grad_norm)
        self._require_finite("norm of the gradient", float(norm))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.done.steps += 1
        self.done.seconds += time.monotonic() - started
        self.done.tokens += sum(row.tokens for row in rows)
        self.done.supervised_tokens += supervised
        self.done.epoch_total += total
        self.done.epoch_tokens += supervised
        self._last_loss = total / supervised if supervised else None
        self._random_states = random_states(self._device)

    def _require_finite(self, what: str, figure: float) -> None:
        """A weight that is not a number makes all of the model so: such a step is not taken."""
        if not math.isfinite(figure):
            message = f"the {what} became {figure} in step {self.done.steps + 1}"
            raise GiveUp("not_finite", message, "is the base sound? if it is, a lower learning_rate helps")

    def _rows(self, ids: list[str]) -> list[PackedRow]:
        chosen = [self._sequences[id_] for id_ in ids if id_ in self._sequences]
        beside = self._strategy.kl_batch_size if self._reference_examples else 0
        beside_them = list(self._reference_examples.values())
        first = self.done.steps * beside
        chosen += [beside_them[(first + i) % len(beside_them)] for i in range(min(beside, len(beside_them)))]
        return make_rows(chosen, self._limits.micro_batch_tokens, self._opening, packed=self._packed)

    def _accumulate(self, rows: list[PackedRow]) -> tuple[float, int]:
        """Gradients of one optimizer step, row by row. Sum of the experiences' token losses, and their number."""
        members = [one for row in rows for one in row.members]
        learned = [one for one in members if one.id not in self._reference_examples]
        supervised = sum(one.supervised for one in learned)
        reference_tokens = sum(one.supervised for one in members if one.id in self._reference_examples)
        is_weighted = self._strategy.weighs_by_salience
        scale = sum(one.weight * one.supervised for one in learned) if is_weighted else 0.0
        total = 0.0
        for row in rows:
            loss = torch.zeros((), device=self._device.torch_device)
            for one, logits, targets in row_logits(self._model, row, self._device):
                if one.id in self._reference_examples:
                    divergence = kl_from_base(logits, self._data.references[one.id]).sum()
                    loss = loss + self._strategy.kl_weight * divergence / reference_tokens
                    continue
                token_loss = token_losses(logits, targets).sum()
                total += token_loss.item()
                # Where salience is not to count, or is nowhere, all tokens weigh alike.
                loss = loss + token_loss * (one.weight / scale if scale > 0 else 1 / supervised)
            loss.backward()  # type: ignore[no-untyped-call]
            self._pace.did(TRAINED * row.tokens)
            self.report()
        return total, supervised

    def validated(self, tokens: int) -> None:
        """So many tokens went through the model in a validation check."""
        self._pace.did(FORWARD * tokens)
        self.report()

    def report(self) -> None:
        """The heartbeat, after every micro-batch."""
        self._channel.progress(
            msgspec.structs.replace(
                self._shown,
                step=self.done.steps,
                epoch=self.done.epochs,
                loss=self._last_loss,
                tokens_per_second=self.done.tokens_per_second or None,
                eta_seconds=self._pace.eta_seconds(),
            )
        )
