"""Two candidates of one pair: another strategy each, on the same examples and against the same champion. Pure.

Each is judged as if it were alone (``promotion.judge``), but for its confidence: the two share the alpha of a
promotion, for the better of two is promoted, and two tries would be wrong twice as often as one. Of those that pass
their gates the better one is promoted, by the first of these that tells them apart:

1. only one of them passed;
2. the reply loss on held-out experiences, paired by experience, with the interval and the least gain of a candidate
   against its champion (``confidence``): the bound is above what counts;
3. the same on the replies that both trained for the first time. Held-out experiences say little about facts, and a
   candidate that harms was refused by its gates before;
4. the estimate on the held-out experiences. Then the difference may be chance, and the verdict says so.

One of which nothing was measured is not compared: the other is judged alone, with the whole of alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from sleepd.protocol.evidence import LossPair, TrainedLoss
from sleepd.protocol.job import Report
from sleepd.protocol.verdict import Figure, Interval, Outcome, PairComparison, Verdict

from .confidence import gain_interval
from .promotion import Gates, judge

Decider = Literal["", "gates", "holdout", "learned", "estimate"]


class Contender(NamedTuple):
    """One candidate of a pair."""

    cycle: int
    strategy: str
    report: Report

    @property
    def name(self) -> str:
        """As it is spoken of."""
        return f"cycle {self.cycle} (strategy {self.strategy})"


class Absent(NamedTuple):
    """The other one of a pair, of which nothing was measured."""

    cycle: int
    strategy: str
    state: str
    """As it ended."""
    reason: str


class _Gains(NamedTuple):
    """By how much the first one is better than the second, and what counts."""

    holdout: Interval | None
    learned: Interval | None
    least: float

    def mirrored(self) -> _Gains:
        """By how much the second is better than the first."""
        return _Gains(_mirrored(self.holdout), _mirrored(self.learned), self.least)


def judge_alone(report: Report, gates: Gates, absent: Absent) -> Verdict:
    """The verdict on the one whose rival has no figures."""
    verdict = judge(report, gates)
    who = f"cycle {absent.cycle} (strategy {absent.strategy})"
    text = f"judged alone: {who} {'was ' * (absent.state != 'failed')}{absent.state}"
    because = f"{text}: {absent.reason}" if absent.reason else text
    pair = PairComparison(rival=absent.cycle, strategy=absent.strategy, rival_state=absent.state, text=because)
    return msgspec.structs.replace(verdict, pair=pair, reason=f"{verdict.reason}; {text}")


def judge_pair(pair: Sequence[Contender], gates: Gates, *, promoted: int | None = None) -> dict[int, Verdict]:
    """The verdict on each, by its cycle.

    Args:
        pair: the two; where nothing tells them apart, that with the lower number is the better one.
        gates: those of a candidate alone.
        promoted: the one whose verdict is in effect already; the other one cannot be promoted any more.
    """
    first, second = sorted(pair, key=lambda each: each.cycle)
    shared = msgspec.structs.replace(gates, candidates=2)
    verdicts = {each.cycle: judge(each.report, shared) for each in (first, second)}
    passed = [cycle for cycle, verdict in verdicts.items() if verdict.outcome is Outcome.PROMOTED]
    gains = _gains(first.report, second.report, gates)
    better, decider = _better((first.cycle, second.cycle), passed, gains)
    if promoted is not None:
        better = promoted
    sides = ((first, second, gains), (second, first, gains.mirrored()))
    return {
        own.cycle: _beside(verdicts[own.cycle], own, rival, its_gains, better, decider)
        for own, rival, its_gains in sides
    }


def _better(cycles: tuple[int, int], passed: Sequence[int], gains: _Gains) -> tuple[int | None, Decider]:
    """The better one and what told them apart; None: none passed."""
    if not passed:
        return None, ""
    if len(passed) == 1:
        return passed[0], "gates"
    deciders: tuple[tuple[Decider, Interval | None], ...] = (("holdout", gains.holdout), ("learned", gains.learned))
    for decider, gain in deciders:
        if gain is not None and gain.low is not None and gain.low > gains.least:
            return cycles[0], decider
        if gain is not None and gain.high is not None and gain.high < -gains.least:
            return cycles[1], decider
    return cycles[gains.holdout is not None and gains.holdout.estimate < 0], "estimate"


def _beside(
    verdict: Verdict, own: Contender, rival: Contender, gains: _Gains, better: int | None, decider: Decider
) -> Verdict:
    """The verdict with the comparison; the one that passed and is not the better one is rejected."""
    is_better = None if better is None else better == own.cycle
    text = _text(own, rival, gains, is_better, decider)
    has_passed = verdict.outcome is Outcome.PROMOTED
    loses = has_passed and is_better is False
    pair = PairComparison(
        rival=rival.cycle,
        strategy=rival.strategy,
        rival_state="measured",
        holdout=gains.holdout,
        learned=gains.learned,
        decided_by=decider,
        is_better=is_better,
        text=text,
    )
    verdict = msgspec.structs.replace(
        verdict, pair=pair, figures=[*verdict.figures, _figure(gains, text, is_better, loses=loses)]
    )
    if not loses:
        told = f"{verdict.reason}; {text}" if has_passed else verdict.reason
        return msgspec.structs.replace(verdict, reason=told)
    reason = f"{text}; by itself it passed: {verdict.reason}"
    changes = {"outcome": Outcome.REJECTED, "failed": ["rival"], "is_on_probation": False, "learned": None}
    return msgspec.structs.replace(verdict, reason=reason, **changes)


def _figure(gains: _Gains, text: str, is_better: bool | None, *, loses: bool) -> Figure:
    """It decides where both passed; otherwise it is shown."""
    value = gains.holdout.estimate if gains.holdout else None
    is_met = is_better if is_better is not None else value is None or value >= 0
    return Figure(name="rival", value=value, relation="at least", limit=0.0, is_met=is_met, is_binding=loses, text=text)


def _text(own: Contender, rival: Contender, gains: _Gains, is_better: bool | None, decider: Decider) -> str:
    if is_better is None:
        return f"beside {rival.name}, which did not pass either: {_found(gains.holdout)}"
    if decider == "gates":
        return f"only {own.name if is_better else rival.name} passed its gates; {_found(gains.holdout)}"
    winner = gains if is_better else gains.mirrored()
    who = f"better than {rival.name}" if is_better else f"{rival.name} is better"
    return f"{who}: {_why(winner, decider)}"


def _why(winner: _Gains, decider: Decider) -> str:
    """In which figure the better one is better, and how sure that is."""
    if decider == "learned":
        assert winner.learned is not None
        told = f"loss on {winner.learned.experiences} newly trained replies {_lower(winner.learned)}"
        return f"{told}; {_found(winner.holdout)}"
    if winner.holdout is None:
        return "nothing that both were measured on tells them apart; it was named first"
    if decider == "holdout":
        return f"holdout reply loss {_lower(winner.holdout)} on {_count(winner.holdout)}"
    return f"{_found(winner.holdout)}: this may be chance"


def _lower(gain: Interval) -> str:
    bound = "" if gain.low is None else f", more than {gain.low:.3f} with {100 * gain.confidence:.3g}% confidence"
    return f"lower by {gain.estimate:.3f} nats/token{bound}"


def _found(gain: Interval | None) -> str:
    if gain is None:
        return "their holdout losses were not compared"
    bounds = "" if gain.low is None else f" [{-gain.high:+.3f}, {-gain.low:+.3f}]"  # type: ignore[operator]
    return f"holdout reply loss against the other's {-gain.estimate:+.3f}{bounds} nats/token on {_count(gain)}"


def _count(gain: Interval) -> str:
    return f"{gain.experiences} experience{'s' * (gain.experiences != 1)}"


def _gains(first: Report, second: Report, gates: Gates) -> _Gains:
    floors = (each.evidence.noise_floor or 0.0 for each in (first, second))
    return _Gains(
        _paired(first.holdout, second.holdout, gates.confidence),
        _paired(first.evidence.newly_trained, second.evidence.newly_trained, gates.confidence),
        max(gates.min_gain, *floors),
    )


def _paired(
    first: Sequence[LossPair | TrainedLoss], second: Sequence[LossPair | TrainedLoss], confidence: float
) -> Interval | None:
    """By how much the first's losses are below the second's, on what both were measured on, token for token."""
    others: Mapping[str, LossPair | TrainedLoss] = {each.id: each for each in second}
    both = [
        (own, other)
        for own in first
        if own.tokens > 0 and (other := others.get(own.id)) is not None and other.tokens == own.tokens
    ]
    if not both or not all(math.isfinite(one.candidate) for pair in both for one in pair):
        return None
    losses = [(own.tokens, other.candidate, own.candidate) for own, other in both]
    return gain_interval(losses, confidence, [own.conversation for own, _ in both])


def _mirrored(gain: Interval | None) -> Interval | None:
    if gain is None:
        return None
    low, high = (None if bound is None else -bound for bound in (gain.high, gain.low))
    return msgspec.structs.replace(gain, estimate=-gain.estimate, low=low, high=high)
