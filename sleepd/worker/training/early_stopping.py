"""When to stop training early, and how much of its effect is kept.

Where there are enough held-out experiences to set some apart, the loss on those is measured between the steps: each
measurement is a validation check. Kept are the weights of the last check whose loss is not above the lowest one by more
than a standard error of their paired difference: the rule of one standard error (Breiman et al., Classification and
Regression Trees, 1984, 3.4.3), here in favour of more steps, since what is asked in other words is still learned where
the loss no longer falls. Otherwise they are those after the last step.

Then the drift is measured on the ``monitor`` prompts. An adapter whose drift is over the budget is scaled down: its
effect is multiplied by what brings it within, which costs less of what was learned than going back to an earlier step
does (drift grows with the square of that factor, what is gained about linearly).

What is read off here decides what the candidate is, so neither these prompts nor these experiences may judge it
afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from sleepd.buffer.experience import content_hash_of
from sleepd.policy.judging.confidence import gain_interval
from sleepd.policy.selecting.facts import SHORT_CHARACTERS
from sleepd.policy.selecting.holdout import ONE_IN, rank
from sleepd.protocol.job import TrainingExample
from sleepd.protocol.verdict import LOW_SAMPLE
from sleepd.worker.channel import Channel
from sleepd.worker.data.examples import Encoded
from sleepd.worker.evaluation.loss_evaluator import LossEvaluator
from sleepd.worker.model.losses import Reference

VALIDATION_CHECKS = 6
"""A cycle, the last of them after the last step."""
PATIENCE = 3
"""So many validation checks in a row that are not better end the training."""
LEAST_HELD_OUT = 12
"""With fewer held-out experiences all of them judge."""
LEAST_TO_JUDGE = LOW_SAMPLE
"""What is left to judge is no low sample."""
LEAST_TO_STOP = 3
LONG_CHARACTERS = SHORT_CHARACTERS
"""Of a reply that may say when to stop. A short one states a fact: an adapter that knows other facts by heart is no
better at it, and ending the training there would lose them."""
_MARGIN = 0.97
"""Of the factor that would just do: the drift does not grow exactly with its square."""
_ONE_STANDARD_ERROR = 0.8413
"""Share of a normal distribution that lies below its mean and one standard deviation."""
_TRIES = 8
"""Times that the effect is reduced, each time by what the drift measured last asks for; then nothing is kept."""
_SHARE = 3
"""One in so many held-out experiences is given away."""


class ValidationCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was read off after a step."""

    step: int
    losses: tuple[tuple[int, float], ...]
    """Tokens and loss (nats a token) of each held-out experience that is given away; the same ones every time."""

    @property
    def loss(self) -> float:
        """Nats a supervised token, over all of them."""
        return sum(tokens * loss for tokens, loss in self.losses) / sum(tokens for tokens, _ in self.losses)


class DriftScaling(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an adapter beyond the drift budget."""

    whole_drift: float
    """Nats a token, as it was trained."""
    drift: float
    """As it is kept."""
    share: float
    """What its effect was multiplied by."""


@dataclass(frozen=True)
class EarlyStopping:
    """What the validation checks are made with."""

    evaluator: LossEvaluator
    monitor: list[Encoded]
    references: dict[str, Reference]
    """By the id of a chat example of ``monitor``."""
    stopping: list[Encoded]
    """Held-out experiences that do not judge."""
    drift_budget: float
    """Nats a token; infinite: there is no limit."""

    def check(self, step: int) -> ValidationCheck:
        """Measure the adapter as it is after ``step`` steps on ``stopping``, of which there are some."""
        losses = self.evaluator.losses(self.stopping).values()
        return ValidationCheck(step=step, losses=tuple((one.tokens, one.mean) for one in losses))

    def scale_to_budget(self, scale: Callable[[float], None]) -> DriftScaling | None:
        """Scale the adapter down to the drift budget; None: it was within it.

        Args:
            scale: multiplies the effect that the adapter had at first; it is left at what is kept.
        """
        if not self.monitor or math.isinf(self.drift_budget):
            return None
        whole = self._drift()
        if whole <= self.drift_budget:
            return None
        drift, share = whole, 1.0
        for _ in range(_TRIES):
            share *= _MARGIN * math.sqrt(self.drift_budget / drift)
            scale(share)
            drift = self._drift()
            if drift <= self.drift_budget:
                return DriftScaling(whole_drift=whole, drift=drift, share=share)
        scale(0.0)
        return DriftScaling(whole_drift=whole, drift=self._drift(), share=0.0)

    def _drift(self) -> float:
        return self.evaluator.divergence(self.monitor, self.references)


def divide_holdout(held_out: Sequence[TrainingExample]) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Those that judge, and those that say when to stop: of the long replies a fixed third by their rank, or none where
    they are few.
    """
    stopping = [one for one in held_out if _is_long(one) and _rank(one) // ONE_IN % _SHARE == 0]
    judging = [one for one in held_out if one not in stopping]
    if len(held_out) < LEAST_HELD_OUT or len(stopping) < LEAST_TO_STOP or len(judging) < LEAST_TO_JUDGE:
        return list(held_out), []
    return judging, stopping


def _is_long(one: TrainingExample) -> bool:
    return len(one.response) >= LONG_CHARACTERS or bool(one.calls)


def _rank(one: TrainingExample) -> int:
    """In a cycle that an older version staged, what it took."""
    return rank(content_hash_of(one)) if one.rank is None else one.rank


def steps_to_check(steps: int) -> list[int]:
    """After which of so many steps to run a validation check, in order; the last one is among them."""
    return sorted({math.ceil(steps * number / VALIDATION_CHECKS) for number in range(1, VALIDATION_CHECKS + 1)})


def kept(checks: Sequence[ValidationCheck]) -> ValidationCheck:
    """The one of these validation checks whose weights are kept."""
    lowest = min(checks, key=lambda check: (check.loss, -check.step))
    return next(check for check in reversed(checks) if check is lowest or not _is_worse(check, lowest))


def _is_worse(check: ValidationCheck, lowest: ValidationCheck) -> bool:
    """Whether its loss is above the lowest one by more than a standard error of the difference."""
    pairs = [(tokens, loss, least) for (tokens, loss), (_, least) in zip(check.losses, lowest.losses, strict=True)]
    low = gain_interval(pairs, _ONE_STANDARD_ERROR).low
    return low is not None and low > 0


def is_enough(checks: Sequence[ValidationCheck]) -> bool:
    """Whether more steps would be in vain: the last validation checks were all worse."""
    return bool(checks) and sum(check.step > kept(checks).step for check in checks) >= PATIENCE


def report_what_was_kept(
    checks: Sequence[ValidationCheck], scaling: DriftScaling | None, drift_budget: float, channel: Channel
) -> None:
    """Report where other weights than the last are kept, and why, with the figures."""
    if scaling is not None:
        channel.notice("night_shortened", scaled_text(scaling, drift_budget), warning=True)
    if checks and (best := kept(checks)) is not checks[-1]:
        channel.notice("training_stopped_early", stopped_text(best, checks[-1]))


def scaled_text(it: DriftScaling, drift_budget: float) -> str:
    """The notice that the adapter was scaled down to the drift budget, with the figures."""
    return (
        f"the drift was {it.whole_drift:.4f}, over the budget of {drift_budget:g}: the adapter was scaled down to "
        f"{it.share:.0%} of its effect, which has a drift of {it.drift:.4f}"
    )


def stopped_text(best: ValidationCheck, last: ValidationCheck) -> str:
    """The notice that the held-out loss ended the training, with the figures."""
    return (
        f"the loss on held-out experiences rose from {best.loss:.4f} after {best.step} steps to {last.loss:.4f} after "
        f"{last.step}, by more than chance; the weights of step {best.step} are kept"
    )
