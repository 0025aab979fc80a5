"""Measuring: reply losses, divergence from the base, and the proofs of effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from sleepd.protocol.evidence import TOKEN_CAP
from sleepd.protocol.job import TrainingCheck
from sleepd.worker.data.examples import Encoded
from sleepd.worker.data.packing import PackedRow, make_row, make_rows, shared_opening
from sleepd.worker.failure import NOT_FINITE_HINT, GiveUp
from sleepd.worker.model.device import Device
from sleepd.worker.model.losses import Reference, kl_from_base, make_reference, row_logits, token_losses
from sleepd.worker.model.memory.out_of_memory import MemoryLimits, Shortened, is_out_of_memory

RELOAD_TOLERANCE = 1e-3
"""Largest difference of a logit between the adapter in memory and the one read back from disk."""
RELOAD_ROUNDINGS = 4
"""Of the largest logit, in units of the number type's precision: the same on a GPU."""
PACKING_TOLERANCE = 0.02
"""Largest mean difference, in nats a token, between packed and single rows. In bfloat16 the sum over a short reply was
seen to differ by 0.4, so that on a few tokens the mean proves nothing."""
DECISIVE_TOKENS = 32
"""Supervised tokens of a chat example that suffice to decide whether rows may be shared."""
LEAST_CHANGE = 1e-7
"""Of the base's weights' norm: what the adapter must at least have changed."""


@dataclass(frozen=True)
class Measured:
    """Reply loss of one chat example: the sum over its supervised tokens, in nats, and their number."""

    total: float
    tokens: int
    capped: float
    """The sum where a token counts for at most ``TOKEN_CAP``."""

    @property
    def mean(self) -> float:
        """Nats per supervised token."""
        return self.total / self.tokens

    @property
    def capped_mean(self) -> float:
        """Nats per supervised token, of the capped sum."""
        return self.capped / self.tokens


def mean_loss(measured: Sequence[Measured]) -> float | None:
    """Nats per supervised token over all of them; None where there is nothing to average."""
    tokens = sum(one.tokens for one in measured)
    return sum(one.total for one in measured) / tokens if tokens else None


def chosen(sequences: Sequence[Encoded], most: int) -> list[Encoded]:
    """At most so many of them, by their order: the same ones whenever they are asked for."""
    return sorted(sequences, key=lambda one: (one.order, one.id))[:most]


def noise_floor(losses: Mapping[str, Measured], again: Mapping[str, Measured]) -> float | None:
    """What the mean of ``losses`` differs by between two readings of one adapter, nats per token; None: nothing read.

    Args:
        losses: of all n experiences.
        again: of some of them, read once more in another batch, so that the arithmetic rounds otherwise.

    With e the difference of one experience's summed loss, the sum over n independent ones has the root mean square
    sqrt(n · mean(e²)); divided by all tokens it is that of the mean. A single difference of the two means would be
    near nothing by chance now and then; this is not.
    """
    if not again:
        return None
    squares = [(losses[id_].total - second.total) ** 2 for id_, second in again.items()]
    tokens = sum(one.tokens for one in losses.values())
    return math.sqrt(len(losses) * math.fsum(squares) / len(squares)) / tokens


class LossEvaluator:
    """Measures a model without changing it."""

    def __init__(self, model: Any, device: Device, limits: MemoryLimits, on_tokens: Callable[[int], None]) -> None:
        """``on_tokens`` is called after every pass with the number of tokens; it is where the heartbeat comes from."""
        self._model = model
        self._device = device
        self._limits = limits
        self._on_tokens = on_tokens
        self.packed = True
        """Whether several chat examples may share a row."""
        self.may_shorten = True
        """Until training starts: losses before and after must be of the same tokens."""

    def losses(self, sequences: Sequence[Encoded], *, alone: bool = False) -> dict[str, Measured]:
        """Reply loss of each chat example by its id, with the adapter as it stands.

        Args:
            sequences: the chat examples.
            alone: each in a row of its own, whether or not several may share one.

        Raises:
            GiveUp: ``out_of_memory``.
            Shortened: there is room only for shorter sequences.
        """
        found: dict[str, Measured] = {}

        def measure(row: PackedRow) -> None:
            for one, logits, targets in row_logits(self._model, row, self._device):
                each = token_losses(logits, targets)
                capped = each.clamp(max=TOKEN_CAP).sum().item()
                found[one.id] = Measured(each.sum().item(), one.supervised, capped)

        self._each_row(sequences, measure, packed=self.packed and not alone)
        return found

    def references(self, sequences: Sequence[Encoded]) -> dict[str, Reference]:
        """What the model says at each chat example's predictions, by its id. The adapter must be disabled or null.

        Raises:
            GiveUp: ``out_of_memory``.
            Shortened: there is room only for shorter sequences.
        """
        found: dict[str, Reference] = {}

        def remember(row: PackedRow) -> None:
            for one, logits, _targets in row_logits(self._model, row, self._device):
                found[one.id] = make_reference(logits)

        self._each_row(sequences, remember, packed=self.packed)
        return found

    def divergence(self, sequences: Sequence[Encoded], references: Mapping[str, Reference]) -> float:
        """KL from the base at the chat examples' predictions, nats a token; ``references`` by the chat examples' ids.

        Raises:
            GiveUp: ``out_of_memory``.
            Shortened: there is room only for shorter sequences.
        """
        parts: list[torch.Tensor] = []

        def compare(row: PackedRow) -> None:
            for one, logits, _targets in row_logits(self._model, row, self._device):
                parts.append(kl_from_base(logits, references[one.id]))

        self._each_row(sequences, compare, packed=self.packed)
        return float(torch.cat(parts).mean())

    @torch.no_grad()
    def logits(self, sequence: Encoded) -> torch.Tensor:
        """[n, vocabulary] float32 logits of one chat example, on the CPU."""
        ((_one, logits, _targets),) = row_logits(self._model, make_row([sequence], 0), self._device)
        return logits.float().cpu()

    def choose_packing(self, sequences: Sequence[Encoded], sliding_window: int | None, forbidden: str = "") -> str:
        """Settle whether several chat examples may share a row; says why not, or nothing where they may.

        ``forbidden`` is why the model's build forbids it, if it does. Otherwise two chat examples are compared packed
        and alone: a model which reads its input in another way than through the attention mask gives other losses when
        packed; so does one with a sliding window for sequences longer than that.
        """
        decisive = [one for one in sequences if one.supervised >= DECISIVE_TOKENS]
        if len(decisive) < 2:
            decisive = sorted(sequences, key=lambda one: -one.supervised)[:2]
        pair = sorted(decisive, key=lambda one: len(one.ids))[:2]
        longest = max((len(one.ids) for one in sequences), default=0)
        reason = forbidden
        if sliding_window is not None and longest > sliding_window:
            reason = reason or f"sequences are longer than its window of {sliding_window} tokens"
        if len(pair) == 2 and not reason:
            reason = self._why_apart(pair)
        self.packed = not reason
        return reason

    def _why_apart(self, pair: Sequence[Encoded]) -> str:
        """How two chat examples in one row differ from the same ones alone; empty: by rounding only."""
        self.packed = True
        try:
            together = self.losses(pair)
        except (Shortened, GiveUp):
            raise
        except Exception as error:  # whatever an architecture raises at a mask of two dimensions
            if is_out_of_memory(error):
                raise
            return f"it refuses rows of several: {type(error).__name__}: {error}"
        alone = self.losses(pair, alone=True)
        apart = sum(abs(together[one.id].total - alone[one.id].total) for one in pair)
        tokens, total = sum(one.supervised for one in pair), sum(one.total for one in alone.values())
        if apart / tokens > max(PACKING_TOLERANCE, 0.01 * total / tokens):
            return f"losses differ by {apart / tokens:.3f} nats a token when sequences share a row"
        return ""

    @torch.no_grad()
    def _each_row(self, sequences: Sequence[Encoded], use: Callable[[PackedRow], None], *, packed: bool) -> None:
        opening = shared_opening(sequences)
        left = list(sequences)
        while left:
            rows = make_rows(left, self._limits.micro_batch_tokens, opening, packed=packed)
            try:
                for row in rows:
                    use(row)
                    self._on_tokens(row.tokens)
                    done = {one.id for one in row.members}
                    left = [one for one in left if one.id not in done]
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return
            longest = self._limits.max_tokens
            self._limits.shrink(rows, may_shorten=self.may_shorten)
            if self._limits.max_tokens != longest:
                raise Shortened


def changed_check(
    parent: dict[str, torch.Tensor],
    candidate: dict[str, torch.Tensor],
    base_norm: float,
    scale: float,
    experts: Mapping[str, int] = MappingProxyType({}),
) -> TrainingCheck:
    """Whether the adapter is there at all and differs from its parent.

    The figure is ‖ΔW − ΔW_parent‖ / ‖W‖ (Frobenius, over all adapted weights W), with ΔW = scale · B·A, so that it says
    how far the model moved and not how far its parameters did. ``experts``: of fused layers, how many a pair holds.
    """
    total = 0.0
    null = True
    for name_a, a in candidate.items():
        if ".lora_A." not in name_a:
            continue
        name_b = name_a.replace(".lora_A.", ".lora_B.")
        b = candidate[name_b]
        null = null and not bool(b.any())
        # B·A − B₀·A₀ is one product of stacked factors; its norm needs only small matrices: ‖BA‖² = tr(BᵀB·AAᵀ).
        count = experts.get(name_a.partition(".lora_A.")[0], 1)
        left = torch.cat([_by_expert_b(b, count), -_by_expert_b(parent[name_b], count)], dim=2).double()
        right = torch.cat([_by_expert_a(a, count), _by_expert_a(parent[name_a], count)], dim=1).double()
        total += float(((left.mT @ left) * (right @ right.mT).mT).sum())
    figure = scale * math.sqrt(max(total, 0.0)) / base_norm
    passed = not null and math.isfinite(figure) and figure > LEAST_CHANGE
    detail = "the adapter is null" if null else "norm of the change, as a share of the adapted weights' norm"
    return TrainingCheck(name="adapter_changed", passed=passed, figure=figure, limit=LEAST_CHANGE, detail=detail)


def _by_expert_a(a: torch.Tensor, experts: int) -> torch.Tensor:
    """[experts, r, in] from A [experts · r, in], as peft lays it out."""
    return a.reshape(experts, -1, a.shape[-1])


def _by_expert_b(b: torch.Tensor, experts: int) -> torch.Tensor:
    """[experts, out, r] from B [out, r · experts], as peft lays it out."""
    return b.reshape(b.shape[0], -1, experts).permute(2, 0, 1)


def is_same(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> bool:
    """Whether two adapters have the same tensors, bit for bit."""
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def reload_check(before: torch.Tensor, after: torch.Tensor, device: Device, *, is_exact: bool) -> TrainingCheck:
    """Whether the adapter read back from disk has the weights of the trained one, and gives its logits.

    A GPU's library may choose another algorithm for the second reading: there the limit is what that rounds otherwise.
    """
    figure = float((before - after).abs().max())
    rounding = RELOAD_ROUNDINGS * torch.finfo(device.dtype).eps * float(before.abs().max())
    limit = RELOAD_TOLERANCE if device.torch_device.type == "cpu" else max(RELOAD_TOLERANCE, rounding)
    detail = "largest difference of a logit after reading the adapter back from disk"
    return TrainingCheck(
        name="reload_matches",
        passed=is_exact and figure <= limit,
        figure=figure,
        limit=limit,
        detail=detail if is_exact else "weights that were read back from disk are not those that were written",
    )


def finite_check(losses: Sequence[float]) -> TrainingCheck:
    """Whether every loss is a number."""
    bad = sum(not math.isfinite(loss) for loss in losses)
    detail = f"{bad} of {len(losses)} losses are not finite"
    return TrainingCheck(name="losses_finite", passed=bad == 0, figure=float(bad), limit=0.0, detail=detail)


def require_finite(losses: Sequence[float]) -> TrainingCheck:
    """The check that every loss is a number; where one is not, there is nothing to judge.

    Raises:
        GiveUp: ``not_finite``.
    """
    check = finite_check(losses)
    if not check.passed:
        raise GiveUp("not_finite", check.detail, NOT_FINITE_HINT)
    return check


def supervised_check(tokens: int) -> TrainingCheck:
    """Whether anything was supervised at all."""
    detail = "supervised tokens in training"
    return TrainingCheck(name="supervised_tokens", passed=tokens >= 1, figure=float(tokens), limit=1.0, detail=detail)
