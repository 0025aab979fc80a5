"""When a night has learned enough: looks at the adapter between its steps, and the weights of the best look.

At each look the drift is measured on the ``monitor`` prompts, and the loss on some held-out experiences where there are
enough to give some away. Kept are the weights of the look with the lowest of these losses among those whose drift is
within the budget; without such a loss, those of the last look within it. What is read off here decides what the
candidate is, so neither these prompts nor these experiences may judge it afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from sleepd.experience import group_key
from sleepd.holdout import ONE_IN, rank
from sleepd.job import Lesson

from .channel import Channel
from .data import Encoded
from .evaluate import Meter, mean_loss
from .loss import Reference

LOOKS = 6
"""A night, the last of them after the last step."""
PATIENCE = 3
"""So many looks in a row that are not better end the night."""
LEAST_HELD_OUT = 12
"""With fewer held-out experiences all of them judge."""
LEAST_TO_JUDGE = 8
LEAST_TO_STOP = 3
_SHARE = 3
"""One in so many held-out experiences is given away."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was read off after a step."""

    step: int
    drift: float | None
    """Nats a token; None: there are no prompts to measure it on."""
    loss: float | None
    """Nats a supervised token, of the held-out experiences that are given away; None: there are none."""


@dataclass(frozen=True)
class Watch:
    """What the looks are made with."""

    meter: Meter
    monitor: list[Encoded]
    references: dict[str, Reference]
    """By the id of an exchange of ``monitor``."""
    stopping: list[Encoded]
    """Held-out experiences that do not judge."""
    drift_budget: float
    """Nats a token; infinite: there is no limit."""

    def look(self, step: int) -> Look:
        """Measure the adapter as it stands after ``step`` steps. The model is in evaluation mode."""
        losses = self.meter.losses(self.stopping)
        drift = self.meter.divergence(self.monitor, self.references) if self.monitor else None
        return Look(step=step, drift=drift, loss=mean_loss(list(losses.values())))


def divide_holdout(held_out: Sequence[Lesson]) -> tuple[list[Lesson], list[Lesson]]:
    """Those that judge, and those that say when to stop: a fixed third by their text, or none where they are few."""
    stopping = [one for one in held_out if rank(group_key(one.prompt, one.response)) // ONE_IN % _SHARE == 0]
    judging = [one for one in held_out if one not in stopping]
    if len(held_out) < LEAST_HELD_OUT or len(stopping) < LEAST_TO_STOP or len(judging) < LEAST_TO_JUDGE:
        return list(held_out), []
    return judging, stopping


def steps_to_look(steps: int) -> list[int]:
    """After which of so many steps to look, in order; the last one is among them."""
    return sorted({math.ceil(steps * number / LOOKS) for number in range(1, LOOKS + 1)})


def kept(looks: Sequence[Look], drift_budget: float) -> Look | None:
    """The look whose weights are kept; None: none is within the budget."""
    within = [look for look in looks if look.drift is None or look.drift <= drift_budget]
    return min(within, key=lambda look: (look.loss or 0.0, -look.step), default=None)


def is_enough(looks: Sequence[Look], drift_budget: float) -> bool:
    """Whether more steps would be in vain: the last looks were all worse, or over the budget."""
    best = kept(looks, drift_budget)
    return sum(best is None or look.step > best.step for look in looks) >= PATIENCE


def tell_what_was_kept(looks: Sequence[Look], drift_budget: float, steps: int, channel: Channel) -> None:
    """Say where other weights than the last are kept, and why, with the figures."""
    if text := shortened_text(looks, drift_budget):
        channel.notice("night_shortened", text, warning=True)
    elif text := stopped_text(looks, steps):
        channel.notice("training_stopped_early", text)


def shortened_text(looks: Sequence[Look], drift_budget: float) -> str:
    """That the budget shortened the night, with the figures; empty: it did not."""
    best, wanted = kept(looks, drift_budget), kept(looks, math.inf)
    if wanted is None or best == wanted:
        return ""
    over = f"after {wanted.step} steps the drift is {wanted.drift:.4f}, over the budget of {drift_budget:g}"
    if best is None:
        return f"{over}, and at no look it was within; nothing of this night is kept"
    return f"{over}; the weights after {best.step} steps are kept, with a drift of {best.drift:.4f}"


def stopped_text(looks: Sequence[Look], steps: int) -> str:
    """That the held-out loss ended the night, with the figures; empty: it did not."""
    best = kept(looks, math.inf)
    if best is None or best.loss is None or best.step == steps:
        return ""
    return (
        f"the loss on held-out experiences was lowest after {best.step} steps: {best.loss:.4f}, against "
        f"{looks[-1].loss:.4f} after {looks[-1].step}; the weights of then are kept"
    )
