"""Whether a candidate may be used. Pure: evidence in, verdict out; no clock, and the only randomness has a fixed seed.

Three groups of figures are compared with their limits:
- the four proofs of effect: something was supervised, the adapter is not null and differs from its parent, the losses
  are finite, and what was written to disk is what was measured;
- the gain: the fall of the reply loss on held-out experiences against the parent's, with its interval (``confidence``);
  where it proves nothing, what was learned, whether the champion's knowledge was kept, and whether the rest is not
  worse (``learned_rule``);
- the safety gates: greedy replies to held-out prompts that loop where the parent's do not, drift from the base,
  collapse of the replies (``collapse_gate``), answers that were right and are wrong now, replies that were trained and
  do not answer their prompts (``relevance_gate``), the operator's own limits (``operator_limits``).

A figure that misses its limit, or was not measured although its gate is on, rejects. Otherwise the gain decides: its
lower bound is above what counts (promoted as better); the three figures of ``learned_rule`` hold (promoted as having
learned); its estimate is not above what counts (rejected); or none of these (inconclusive). A candidate without any
effect is promoted with a probability of at most alpha = 1 - ``confidence``. So is one that is worse by the margin, on
held-out experiences or on what the champion had learned, whatever it learned itself.

A low sample keeps to that rate in two halves: an outright promotion takes half of alpha; a candidate that passes with
the whole of it, by either rule, is by default promoted on *probation*, and compared again on experiences that nobody
trained on.
Where the operator asks for probation whenever the evidence is inconclusive, a gain that holds with
``PROBATION_CONFIDENCE`` is promoted on probation, and the rate is that much higher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from sleepd.config.limits import MetricLimit, parse_limit
from sleepd.config.schema import SAFETY_GATES, PromotionConfig
from sleepd.protocol.job import Job, Report
from sleepd.protocol.verdict import Figure, Interval, Outcome, Verdict, is_low_sample

from .collapse_gate import speech_figures
from .confidence import gain_interval, independent, sign_test
from .learned_rule import ByLearning, LearnedLimits, by_learning, learned_reason
from .operator_limits import metric_figure
from .relevance_gate import relevance_figure

REQUIRED_CHECKS = ("supervised_tokens", "adapter_changed", "losses_finite", "reload_matches")
PROBATION_CONFIDENCE = 0.8
ON_PROBATION = "promoted on probation; later experiences decide whether it stays"
COUNT_OF_ONE_BY_CHANCE, FEWEST_FOR_ONE = 8, 3
"""Of so many greedy replies one may loop more than of the parent's: of every eight, and of three to seven."""


class Gates(msgspec.Struct, frozen=True, kw_only=True):
    """The limits for a candidate."""

    confidence: float = 0.95
    min_gain: float = 0.01
    margin: float = 0.3
    """See ``learned_rule``."""
    min_learned: float = 0.1
    max_drift: float = 0.05
    safety_gates: frozenset[str] = frozenset(SAFETY_GATES)
    """The safety gates in force: one that is missed or was not measured rejects the candidate."""
    limits: tuple[MetricLimit, ...] = ()
    inconclusive: str = "auto"
    has_command: bool = False
    """The operator's own evaluation was run; without it the limits are for figures that are added by hand, later."""
    has_questions: bool = False
    """The operator's questions were asked."""
    is_foreign: bool = False
    """The adapter came from another machine: no training here can prove that anything was supervised."""
    has_champion: bool = True
    """The parent is no base model: what it had learned must be kept."""
    candidates: int = 1
    """So many are judged on the same experiences, and share the alpha of a promotion; see ``pair_rule``."""

    @classmethod
    def of(cls, config: PromotionConfig, job: Job) -> Gates:
        """As configured, for what the job asks the worker to measure."""
        return cls(
            confidence=config.confidence,
            min_gain=config.min_gain,
            margin=config.margin,
            min_learned=config.min_learned,
            max_drift=config.max_drift,
            safety_gates=frozenset(config.harms),
            limits=tuple(parse_limit(text) for text in config.limits),
            inconclusive=config.inconclusive,
            has_command=bool(job.evaluation_command),
            has_questions=bool(job.questions),
            is_foreign=bool(job.foreign),
            has_champion=bool(job.parent),
        )

    @property
    def promoting_confidence(self) -> float:
        """Of a promotion; the safety gates keep ``confidence``, which would make some of them looser."""
        return 1 - (1 - self.confidence) / self.candidates

    @property
    def of_learning(self) -> LearnedLimits:
        """Those of the second rule."""
        return LearnedLimits(self.margin, self.min_learned, self.has_champion)


def judge(report: Report, gates: Gates) -> Verdict:
    """Whether this candidate is better than its parent, or has learned and is not worse, and has damaged nothing that
    was measured.
    """
    confidence = _asked_for(report, gates)
    gain = _interval(report, confidence)
    better, learning = _gain(report, gain, gates), by_learning(report, confidence, gates.of_learning)
    is_on_probation = False
    is_open = confidence != gates.promoting_confidence and not better.is_met and not learning.holds
    if is_open and gates.inconclusive != "keep":
        weaker = by_learning(report, gates.promoting_confidence, gates.of_learning)
        is_on_probation, learning = weaker.holds, weaker if weaker.holds else learning
    on_holdout = _by_either_rule(better, learning)
    figures = [*_effect(report, gates), _noise(report), *on_holdout, *_safety_gates(report, gates)]
    failed = [each for each in figures if each.is_binding and not each.is_met and not each.is_open]
    verdict = Verdict(
        outcome=Outcome.REJECTED,
        reason="; ".join(each.text for each in failed),
        failed=[each.name for each in failed],
        figures=figures,
        gain=gain,
        noise_floor=report.evidence.noise_floor,
        is_thin=is_low_sample(gain.experiences if gain else 0),
    )
    if failed:
        return verdict
    assert gain is not None
    if on_holdout[0].is_met:
        return msgspec.structs.replace(verdict, outcome=Outcome.PROMOTED, reason=_spoken(report, gain))
    if not on_holdout[0].is_binding:
        return _for_learning(verdict, learning, gain, is_on_probation=is_on_probation)
    return _undecided(verdict, _spoken(report, gain), report, gates)


def _by_either_rule(better: Figure, learning: ByLearning) -> list[Figure]:
    """All of them, of which those decide that the verdict rests on."""
    if better.is_met or not learning.holds:
        return [better, *learning.figures]
    shown = msgspec.structs.replace(better, is_binding=False)
    return [shown, *(msgspec.structs.replace(figure, is_binding=True) for figure in learning.figures)]


def _for_learning(verdict: Verdict, found: ByLearning, gain: Interval, *, is_on_probation: bool) -> Verdict:
    assert found.learned is not None
    reason = learned_reason(found.learned, gain)
    if is_on_probation:
        reason = f"{reason}: {ON_PROBATION}"
    return msgspec.structs.replace(
        verdict, outcome=Outcome.PROMOTED, reason=reason, learned=found.learned, is_on_probation=is_on_probation
    )


def _undecided(verdict: Verdict, spoken: str, report: Report, gates: Gates) -> Verdict:
    """The evidence is inconclusive: what the operator configured for that."""
    is_anyhow, usual = gates.inconclusive == "probation", gates.promoting_confidence
    weaker = _interval(report, min(PROBATION_CONFIDENCE, usual) if is_anyhow else usual)
    assert weaker is not None
    if is_anyhow:
        holds = weaker.low is None or weaker.low > 0
    else:
        holds = gates.inconclusive == "auto" and weaker.low is not None and weaker.low > _what_counts(report, gates)
    if holds:
        reason = f"{spoken}: {ON_PROBATION}"
        return msgspec.structs.replace(verdict, outcome=Outcome.PROMOTED, reason=reason, is_on_probation=True)
    return msgspec.structs.replace(
        verdict, outcome=Outcome.INCONCLUSIVE, reason=f"{spoken}: that may be chance, so the champion stays in use"
    )


def _asked_for(report: Report, gates: Gates) -> float:
    """The confidence that an outright promotion takes."""
    measured = independent(each.conversation for each in report.holdout if each.tokens > 0)
    usual = gates.promoting_confidence
    return 1 - (1 - usual) / 2 if is_low_sample(measured) else usual


def _what_counts(report: Report, gates: Gates) -> float:
    return max(gates.min_gain, report.evidence.noise_floor or 0.0)


def _spoken(report: Report, gain: Interval) -> str:
    low_sample = ", low sample" if is_low_sample(gain.experiences) else ""
    before, after = report.holdout_before, report.holdout_after
    bounds = "" if gain.low is None else f", more than {gain.low:.3f} with {100 * gain.confidence:.3g}% confidence"
    many = "experience" if gain.experiences == 1 else "experiences"
    figures = f"-{gain.estimate:.3f} nats/token on {gain.experiences} {many}{bounds}{low_sample}"
    return f"holdout reply loss {before:.3f} -> {after:.3f} ({figures})"


def _interval(report: Report, confidence: float) -> Interval | None:
    """The gain on the holdout; None: nothing was held out, or its losses are no numbers."""
    counted = [each for each in report.holdout if each.tokens > 0]
    pairs = [(each.tokens, each.parent, each.candidate) for each in counted]
    means = (report.holdout_before, report.holdout_after)
    if not pairs or not all(math.isfinite(loss) for pair in pairs for loss in pair[1:]):
        return None
    if not all(mean is not None and math.isfinite(mean) for mean in means):
        return None
    return gain_interval(pairs, confidence, [each.conversation for each in counted])


def _effect(report: Report, gates: Gates) -> list[Figure]:
    by_name = {check.name: check for check in report.checks}
    figures = []
    for name in REQUIRED_CHECKS:
        if name == "supervised_tokens" and gates.is_foreign:
            continue
        check = by_name.get(name)  # type: ignore[call-overload]
        if check is None:
            text = f"{name}: not measured"
            figures.append(Figure(name=name, value=None, relation="at least", limit=None, is_met=False, text=text))
            continue
        text = f"{name}: {check.detail} ({check.figure:.3g}, limit {check.limit:.3g})"
        relation = "at most" if name in ("losses_finite", "reload_matches") else "at least"
        figures.append(
            Figure(
                name=name,
                value=check.figure,
                relation=relation,  # type: ignore[arg-type]
                limit=check.limit,
                is_met=check.passed,
                text=text,
            )
        )
    return figures


def _noise(report: Report) -> Figure:
    floor = report.evidence.noise_floor
    is_measured = floor is not None and math.isfinite(floor)
    text = "the noise of the holdout loss was not measured"
    if is_measured:
        text = f"two measurements of the holdout loss with the same adapter differ by {floor:.2g} nats/token"
    return Figure(name="noise_floor", value=floor, relation="at least", limit=0, is_met=is_measured, text=text)


def _gain(report: Report, gain: Interval | None, gates: Gates) -> Figure:
    limit = _what_counts(report, gates)
    if gain is None:
        before, after = report.holdout_before, report.holdout_after
        is_empty = not report.holdout or before is None or after is None
        text = f"holdout: loss is not finite ({before} -> {after})"
        text = "holdout: nothing was held out to measure on" if is_empty else text
        return Figure(name="holdout", value=None, relation="above", limit=limit, is_met=False, text=text)
    is_met = gain.low is not None and gain.low > limit
    bounds = f"above {gain.low:.3f}" if gain.low is not None else "with no bound"
    text = f"holdout gain {gain.estimate:.3f} nats/token, {bounds} with {100 * gain.confidence:.3g}% confidence"
    if gain.estimate <= limit:
        before, after = report.holdout_before, report.holdout_after
        verb = "did not fall" if gain.estimate <= 0 else "did not fall enough"
        text = f"holdout reply loss {verb} ({before:.3f} -> {after:.3f} nats/token)"
    return Figure(
        name="holdout",
        value=gain.estimate,
        relation="above",
        limit=limit,
        is_met=is_met,
        is_open=not is_met and gain.estimate > limit,
        text=f"{text}; above {limit:.2g} counts",
    )


def _replies(report: Report) -> Figure:
    """Loops in replies to held-out prompts; a single one comes and goes with any change of the weights."""
    count = len(report.replies)
    loops = [reply for reply in report.replies if reply.is_loop]
    parents = sum(reply.parent_is_loop for reply in report.replies)
    limit = parents + max(count // COUNT_OF_ONE_BY_CHANCE, int(count >= FEWEST_FOR_ONE))
    text = f"{len(loops)} of {count} greedy replies loop (parent: {parents})"
    if not report.replies:
        text = "replies: no reply was generated"
    elif loops:
        worst = max(loops, key=lambda reply: reply.repeated_share)
        if worst.repeated_share > 0:  # a stuck syllable or bare questions repeat no phrase
            text = f"{text} (worst: {worst.repeated_share:.0%} of its words in repeated phrases)"
    return Figure(
        name="replies",
        value=len(loops) if count else None,
        relation="at most",
        limit=limit,
        is_met=count > 0 and len(loops) <= limit,
        text=text,
    )


def _safety_gates(report: Report, gates: Gates) -> list[Figure]:
    safety_gates = {
        "drift": [_drift(report, gates)],
        "collapse": [_replies(report), *speech_figures(report.evidence.collapse, gates.confidence)],
        "recall": _recall(report, gates),
        "relevance": [relevance_figure(report.evidence.relevance)],
    }
    figures = [
        msgspec.structs.replace(figure, is_binding=figure.is_binding and name in gates.safety_gates)
        for name, ones in safety_gates.items()
        for figure in ones
    ]
    return [*figures, *_metrics(report, gates)]


def _drift(report: Report, gates: Gates) -> Figure:
    found = report.evidence.drift
    if found is None or not math.isfinite(found.candidate):
        text = "drift from the base: not measured" if found is None else "drift from the base: not finite"
        return Figure(name="drift", value=None, relation="at most", limit=gates.max_drift, is_met=False, text=text)
    # An adopted champion may be beyond the limit already: what drifts less than it does no further damage.
    limit = max(gates.max_drift, found.parent) if math.isfinite(found.parent) else gates.max_drift
    text = f"drift from the base {found.candidate:.3f} nats/token, at most {limit:.3f} (parent {found.parent:.3f})"
    is_met = found.candidate <= limit
    return Figure(name="drift", value=found.candidate, relation="at most", limit=limit, is_met=is_met, text=text)


def _recall(report: Report, gates: Gates) -> list[Figure]:
    answers = report.evidence.recall
    if not answers:
        if not gates.has_questions:
            return []
        text = "recall: not measured"
        return [Figure(name="recall", value=None, relation="at least", limit=None, is_met=False, text=text)]
    right, before = (sum(answers_right) for answers_right in _right(report))
    lost = sum(each.parent_is_right and not each.candidate_is_right for each in answers)
    won = sum(each.candidate_is_right and not each.parent_is_right for each in answers)
    chance = sign_test(lost, won)
    text = (
        f"{right} of {len(answers)} questions right, before {before} ({lost} lost, {won} won; "
        f"probability by chance {chance:.2f})"
    )
    # The figure is the chance of so many losses; the operator reads the counts in the sentence.
    is_met = chance > 1 - gates.confidence
    return [Figure(name="recall", value=chance, relation="above", limit=1 - gates.confidence, is_met=is_met, text=text)]


def _right(report: Report) -> tuple[list[bool], list[bool]]:
    answers = report.evidence.recall
    return [each.candidate_is_right for each in answers], [each.parent_is_right for each in answers]


def _metrics(report: Report, gates: Gates) -> Sequence[Figure]:
    found = {metric.name: metric for metric in report.evidence.metrics}
    figures = []
    for limit in gates.limits:
        metric = found.get(limit.name)
        if metric is None and not gates.has_command:
            continue  # it is added by hand after the verdict, if at all; see ``afterwards``
        value, parent = (metric.candidate, metric.parent) if metric else (None, None)
        figures.append(metric_figure(limit, value=value, parent=parent))
    return figures
