"""Promotion for what was learned: the candidate knows what was told, kept what the champion had learned, and is not
worse on what it never saw. Pure.

New facts say little about other facts: on held-out ones champion and candidate may be alike, and then nothing is
proved. Such a candidate is promoted, too, where all of these hold at the confidence of the verdict:

- *learned*: on replies that this cycle trained for the first time the loss fell by more than the least gain. Every
  training that works does so, also a harmful one: this alone promotes nobody;
- *kept*: on replies that the champion's lineage had learned and this cycle trained again, the loss is not above the
  champion's by the margin. Where there is no champion, there is nothing to keep;
- *not worse*: on held-out experiences the capped loss is not above the champion's by the margin. In a capped loss a
  token counts for at most ``TOKEN_CAP``. The key word of a fact that nobody told cannot be known, and how surely a
  model is wrong about it differs by chance from one adapter to the next: in the whole loss of a few short replies
  nothing else can be seen. All words that can be known count in full.

*Kept* and *not worse* are tests of non-inferiority (Wellek, Testing Statistical Hypotheses of Equivalence and
Noninferiority, 2010): who is worse by the margin passes each with a probability of at most alpha. A margin is at most a
fifth of what the champion gained over the base on the same experiences by the same loss: four fifths of that are kept,
whatever is configured. Where it gained nothing, or is the base, the margin is 0.

A smaller loss on a trained reply says that the reply was learned as it was told. Whether it is recalled in other words
is not measured here (``evaluation.probes`` does).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sleepd.protocol.evidence import TOKEN_CAP, LossPair
from sleepd.protocol.job import Report
from sleepd.protocol.verdict import Figure, Interval, LearnedGain

from .confidence import Pair, gain_interval

LOST = 0.2
"""Of what the champion gained over the base, the most that a candidate may lose."""


class LearnedLimits(NamedTuple):
    """What the rule holds its figures against."""

    margin: float
    """As configured; 0: nobody is promoted by this rule."""
    least: float
    """That must be learned, nats per token."""
    has_champion: bool
    """There is something to keep."""


class ByLearning(NamedTuple):
    """What the rule found."""

    figures: tuple[Figure, ...]
    """They decide nothing by themselves: ``promotion.judge`` makes them binding where all hold."""
    learned: LearnedGain | None
    """None: it was not measured."""

    @property
    def holds(self) -> bool:
        """Whether the candidate is promoted by it."""
        return all(figure.is_met for figure in self.figures)


class _NotWorse(NamedTuple):
    """A comparison with the champion, and how much worse the candidate may be."""

    gain: Interval | None
    margin: float


def by_learning(report: Report, confidence: float, limits: LearnedLimits) -> ByLearning:
    """The figures of the rule at this confidence."""
    unseen = _compared(_capped(report.holdout), confidence, limits.margin)
    kept = _compared(_whole(report.evidence.repeated), confidence, limits.margin)
    learned = _learned(report, confidence, unseen, kept if limits.has_champion else None)
    figures = [_not_worse_figure("not_worse", unseen, limits.margin, f"{_CAPPED} on held-out replies")]
    if limits.has_champion:
        figures.append(_not_worse_figure("kept", kept, limits.margin, "loss on replies that the champion had learned"))
    return ByLearning((*figures, _learned_figure(learned, limits.least)), learned)


def learned_reason(found: LearnedGain, gain: Interval) -> str:
    """Why it was promoted, in words that claim no more than was measured."""
    kept = ""
    if found.kept is not None:
        kept = f"; kept what was learned before: on {_replies(found.kept)} {_worse_by(found.kept)} nats/token"
    bounds = "" if gain.low is None else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
    known = "worse" if gain.high is not None and gain.high < 0 else "not shown better"
    assert found.unseen is not None
    return (
        f"learned what was told: {_loss_text(found)}{kept}; {known} on {gain.experiences} experiences that it never "
        f"trained on: gain {gain.estimate:+.3f}{bounds} nats/token; {_CAPPED} there "
        f"{_worse_by(found.unseen)}, {_allowed(found.margin)}"
    )


_CAPPED = f"capped loss (a token counts at most {TOKEN_CAP:.1f})"


def _learned(report: Report, confidence: float, unseen: _NotWorse, kept: _NotWorse | None) -> LearnedGain | None:
    """The gain on newly trained replies; None: it was not measured, or a loss is no number."""
    counted = [each for each in report.evidence.newly_trained if each.tokens > 0]
    pairs = [(each.tokens, each.parent, each.candidate) for each in counted]
    if not pairs or not all(math.isfinite(loss) for pair in pairs for loss in pair[1:]):
        return None
    return LearnedGain(
        gain=gain_interval(pairs, confidence, [each.conversation for each in counted]),
        before=_mean([(tokens, parent) for tokens, parent, _ in pairs]),
        after=_mean([(tokens, candidate) for tokens, _, candidate in pairs]),
        margin=unseen.margin,
        unseen=unseen.gain,
        kept=None if kept is None else kept.gain,
    )


class _Losses(NamedTuple):
    """Of one experience, base beside champion and candidate."""

    base: float
    pair: Pair
    conversation: str


def _whole(pairs: Sequence[LossPair]) -> list[_Losses]:
    return [_Losses(one.base, (one.tokens, one.parent, one.candidate), one.conversation) for one in pairs if one.tokens]


def _capped(pairs: Sequence[LossPair]) -> list[_Losses]:
    """None of them, where an older worker did not measure it."""
    counted = [one for one in pairs if one.tokens]
    found = [
        _Losses(one.capped.base, (one.tokens, one.capped.parent, one.capped.candidate), one.conversation)
        for one in counted
        if one.capped is not None
    ]
    return found if len(found) == len(counted) else []


def _compared(losses: Sequence[_Losses], confidence: float, margin: float) -> _NotWorse:
    if not losses or not all(math.isfinite(loss) for one in losses for loss in (one.base, *one.pair[1:])):
        return _NotWorse(None, 0.0)
    gained = _mean([(one.pair[0], one.base - one.pair[1]) for one in losses])
    gain = gain_interval([one.pair for one in losses], confidence, [one.conversation for one in losses])
    return _NotWorse(gain, max(0.0, min(margin, LOST * gained)))


def _not_worse_figure(name: str, found: _NotWorse, configured: float, what: str) -> Figure:
    """Whether the loss is not worse than the champion's by the margin."""
    gain, low = found.gain, None if found.gain is None else found.gain.low
    text = f"{what}: not measured" if gain is None else f"{what}: no bound"
    if gain is not None and low is not None:
        sure = f"with {100 * gain.confidence:.3g}% confidence"
        counts = _allowed(found.margin) if configured > 0 else "only a better one is promoted"
        text = f"{what}: {_worse_by(gain)} nats/token {sure}; {counts}"
    is_met = low is not None and configured > 0 and low > -found.margin
    return _figure(name, low, -found.margin, text, is_met=is_met)


def _learned_figure(found: LearnedGain | None, least: float) -> Figure:
    """Whether the candidate knows the newly trained replies better than the champion, by more than the least gain."""
    if found is None:
        return _figure("learned", None, least, "loss on newly trained replies: not measured", is_met=False)
    low = found.gain.low
    text = f"{_loss_text(found)}; above {least:.2g} counts"
    return _figure("learned", found.gain.estimate, least, text, is_met=low is not None and low > least)


def _worse_by(gain: Interval) -> str:
    if gain.low is None:
        return "with no bound"
    return f"worse by less than {-gain.low:.3f}" if gain.low < 0 else f"lower by more than {gain.low:.3f}"


def _allowed(margin: float) -> str:
    return f"worse by less than {margin:.2g} counts" if margin > 0 else "lower counts, for the champion gained nothing"


def _loss_text(found: LearnedGain) -> str:
    """The fall of the loss on newly trained replies, with its bound."""
    gain = found.gain
    bound = "no bound" if gain.low is None else f"more than {gain.low:.3f} with {100 * gain.confidence:.3g}% confidence"
    return (
        f"loss on {gain.experiences} newly trained {'reply' if gain.experiences == 1 else 'replies'} "
        f"{found.before:.3f} -> {found.after:.3f} nats/token (-{gain.estimate:.3f}, {bound})"
    )


def _replies(gain: Interval) -> str:
    return "1 reply" if gain.experiences == 1 else f"{gain.experiences} replies"


def _mean(losses: Sequence[tuple[int, float]]) -> float:
    """Nats per token, from tokens and loss of each."""
    return sum(tokens * loss for tokens, loss in losses) / sum(tokens for tokens, _ in losses)


def _figure(name: str, value: float | None, limit: float, text: str, *, is_met: bool) -> Figure:
    return Figure(name=name, value=value, relation="above", limit=limit, is_met=is_met, is_binding=False, text=text)
