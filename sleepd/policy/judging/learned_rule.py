"""Promotion for what was learned: the candidate knows what was told, and is not worse on what it never saw. Pure.

New facts say little about other facts: on held-out ones champion and candidate may be alike, and then nothing is
proved. Such a candidate is promoted, too, where both of these hold at the confidence of the verdict:

- *not worse*: the lower bound of the gain on held-out experiences is above minus the margin (a test of
  non-inferiority: Wellek, Testing Statistical Hypotheses of Equivalence and Noninferiority, 2010). A candidate that is
  worse by the margin passes with a probability of at most alpha. The margin is at most a fifth of what the parent
  gained over the base on the same experiences: four fifths of that are kept, whatever is configured;
- *learned*: on replies that this cycle trained for the first time the loss fell by more than the least gain. Every
  training that works does so, also a harmful one: this alone promotes nobody.

A smaller loss on a trained reply says that the reply was learned as it was told. Whether it is recalled in other words
is not measured here (``evaluation.probes`` does).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sleepd.protocol.job import Report
from sleepd.protocol.verdict import Figure, Interval, LearnedGain

from .confidence import gain_interval

LOST = 0.2
"""Of what the parent gained over the base, the most that a candidate may lose."""


def allowed_margin(report: Report, margin: float) -> float:
    """By how much the candidate may be worse than the parent, nats per token: at most ``margin``.

    Zero where the parent gained nothing over the base, or is the base: then only a better candidate is promoted.
    """
    counted = [each for each in report.holdout if each.tokens > 0]
    gained = _mean([(each.tokens, each.base - each.parent) for each in counted]) if counted else 0.0
    return max(0.0, min(margin, LOST * gained)) if math.isfinite(gained) else 0.0


def learned_gain(report: Report, confidence: float, margin: float) -> LearnedGain | None:
    """The gain on newly trained replies; None: it was not measured, or a loss is no number."""
    counted = [each for each in report.evidence.newly_trained if each.tokens > 0]
    pairs = [(each.tokens, each.parent, each.candidate) for each in counted]
    if not pairs or not all(math.isfinite(loss) for pair in pairs for loss in pair[1:]):
        return None
    return LearnedGain(
        gain=gain_interval(pairs, confidence, [each.conversation for each in counted]),
        before=_mean([(each.tokens, each.parent) for each in counted]),
        after=_mean([(each.tokens, each.candidate) for each in counted]),
        margin=margin,
    )


def not_worse_figure(gain: Interval | None, margin: float) -> Figure:
    """Whether the held-out loss is not worse than the parent's by the margin.

    Args:
        gain: on the holdout; None: it was not measured.
        margin: as allowed; 0: nobody is promoted by this rule.
    """
    low = None if gain is None else gain.low
    text = "held-out loss against the champion's: no bound"
    if gain is not None and low is not None:
        relation = f"worse by less than {-low:.3f}" if low < 0 else f"lower by more than {low:.3f}"
        counts = f"worse by less than {margin:.2g} counts" if margin > 0 else "only a better one is promoted"
        sure = f"with {100 * gain.confidence:.3g}% confidence"
        text = f"held-out loss against the champion's: {relation} nats/token {sure}; {counts}"
    is_met = low is not None and margin > 0 and low > -margin
    return _figure("not_worse", low, -margin, text, is_met=is_met)


def learned_figure(found: LearnedGain | None, least: float) -> Figure:
    """Whether the candidate knows the newly trained replies better than the parent, by more than the least gain."""
    if found is None:
        return _figure("learned", None, least, "loss on newly trained replies: not measured", is_met=False)
    low = found.gain.low
    text = f"{loss_text(found)}; above {least:.2g} counts"
    return _figure("learned", found.gain.estimate, least, text, is_met=low is not None and low > least)


def learned_reason(found: LearnedGain, gain: Interval) -> str:
    """Why it was promoted, in words that claim no more than was measured."""
    bounds = "" if gain.low is None else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
    return (
        f"learned what was told: {loss_text(found)}; not shown better on {gain.experiences} experiences that it never "
        f"trained on: gain {gain.estimate:+.3f}{bounds} nats/token, not worse by {found.margin:.2g}"
    )


def loss_text(found: LearnedGain) -> str:
    """The fall of the loss on newly trained replies, with its bound."""
    gain = found.gain
    bound = "no bound" if gain.low is None else f"more than {gain.low:.3f} with {100 * gain.confidence:.3g}% confidence"
    many = "reply" if gain.experiences == 1 else "replies"
    return (
        f"loss on {gain.experiences} newly trained {many} {found.before:.3f} -> {found.after:.3f} nats/token "
        f"(-{gain.estimate:.3f}, {bound})"
    )


def _mean(losses: Sequence[tuple[int, float]]) -> float:
    """Nats per token, from tokens and loss of each."""
    return sum(tokens * loss for tokens, loss in losses) / sum(tokens for tokens, _ in losses)


def _figure(name: str, value: float | None, limit: float, text: str, *, is_met: bool) -> Figure:
    """It decides nothing by itself: ``promotion.judge`` makes it binding where both hold."""
    return Figure(name=name, value=value, relation="above", limit=limit, is_met=is_met, is_binding=False, text=text)
