"""Cycles by their strategy: what each gained, how far it drifted, how long it took, and how sure a difference is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import msgspec

from sleepd.cycle import JUDGED_STATES
from sleepd.protocol.status import CycleSummary

from .spread import Spread, difference, spread
from .terminal import Page, Row, Span
from .wording import count, duration

_CAVEAT = (
    "Each cycle had other experiences and another champion: a difference may be theirs and not the strategy's. Only "
    "pairs (sleepctl run --strategies) are on the same experiences."
)


class StrategyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the cycles of one strategy came to."""

    strategy: str
    cycles: int
    promoted: int
    gain: Spread | None
    """Nats a token on held-out experiences; None: it was measured in none of them."""
    drift: Spread | None
    seconds: Spread | None
    """From a cycle's start to its end; of a pair, in which one waits for the other, the time of its worker."""


class GainDifference(msgspec.Struct, frozen=True, kw_only=True):
    """By how much one strategy gained more than another."""

    one: str
    other: str
    gain: Spread


class PairedDifference(msgspec.Struct, frozen=True, kw_only=True):
    """By how much one strategy gained more than another on the same experiences."""

    one: str
    other: str
    pairs: int
    gain: Spread


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """All strategies of some cycles."""

    strategies: list[StrategyFigures]
    differences: list[GainDifference]
    pairs: list[PairedDifference] = []
    """Of cycles that ran against each other, on the same experiences and the same champion."""


def compare(cycles: Sequence[CycleSummary]) -> Compared:
    """The judged cycles that trained here, by strategy, in the order of their names."""
    judged = [each for each in cycles if each.state in JUDGED_STATES and each.strategy and each.origin is None]
    names = sorted({each.strategy for each in judged})
    by_name = {name: [each for each in judged if each.strategy == name] for name in names}
    pairs = [
        (one, other, difference(_gains(by_name[one]), _gains(by_name[other])))
        for one, other in combinations(by_name, 2)
    ]
    return Compared(
        strategies=[_figures(name, members) for name, members in by_name.items()],
        differences=[GainDifference(one=one, other=other, gain=gain) for one, other, gain in pairs if gain],
        pairs=_paired(judged),
    )


def _paired(judged: Sequence[CycleSummary]) -> list[PairedDifference]:
    """Each pair once, from its first strategy's side in the order of the names."""
    by_number = {each.cycle: each for each in judged}
    gains: dict[tuple[str, str], list[float]] = {}
    for each in judged:
        rival = by_number.get(each.rival or 0)
        if rival is not None and each.pair_gain is not None and each.strategy < rival.strategy:
            gains.setdefault((each.strategy, rival.strategy), []).append(each.pair_gain)
    found = [(names, len(of_pairs), spread(of_pairs)) for names, of_pairs in sorted(gains.items())]
    return [
        PairedDifference(one=one, other=other, pairs=pairs, gain=gain) for (one, other), pairs, gain in found if gain
    ]


def _figures(name: str, cycles: Sequence[CycleSummary]) -> StrategyFigures:
    took = [seconds for each in cycles if (seconds := _seconds(each)) is not None]
    return StrategyFigures(
        strategy=name,
        cycles=len(cycles),
        promoted=sum(each.state == "promoted" for each in cycles),
        gain=spread(_gains(cycles)),
        drift=spread([each.drift for each in cycles if each.drift is not None]),
        seconds=spread(took),
    )


def _seconds(cycle: CycleSummary) -> float | None:
    if cycle.rival is not None:
        return cycle.worker_seconds
    return (cycle.ended_at - cycle.started_at).total_seconds() if cycle.ended_at else None


def _gains(cycles: Sequence[CycleSummary]) -> list[float]:
    pairs = ((each.holdout_before, each.holdout_after) for each in cycles)
    return [before - after for before, after in pairs if before is not None and after is not None]


def strategy_page(found: Compared) -> Page:
    """What was found, in lines."""
    if not found.strategies:
        return [Row([Span("no cycle with a verdict yet")])]
    page = []
    for each in found.strategies:
        told = f"{count(each.cycles, 'cycle')}, {each.promoted} promoted"
        page.append(Row([Span(each.strategy, "bold"), Span(f": {told}")]))
        page += _line("gain ", each.gain, lambda value: f"{value:+.2f}", " nats/token")
        page += _line("drift", each.drift, lambda value: f"{value:.3f}", " nats/token")
        page += _line("took ", each.seconds, lambda value: duration(max(0.0, value)), "")
    for pair in found.differences:
        shown = _with_bounds(pair.gain, lambda value: f"{value:+.2f}", " nats/token")
        sure = "" if pair.gain.is_above_or_below_zero else ": this may be chance"
        page.append(Row([Span(f"{pair.one} gained {shown} against {pair.other}{sure}")], hang=2))
    for paired in found.pairs:
        shown = _with_bounds(paired.gain, lambda value: f"{value:+.2f}", " nats/token", "pairs")
        sure = "" if paired.gain.is_above_or_below_zero else ": this may be chance"
        on_same = f"on the same experiences, in {count(paired.pairs, 'pair')}"
        text = f"{paired.one} gained {shown} against {paired.other} {on_same}{sure}"
        page.append(Row([Span(text)], hang=2))
    return [*page, Row([Span(_CAVEAT, "dim")])]


def _line(name: str, found: Spread | None, shown: Callable[[float], str], unit: str) -> Page:
    return [] if found is None else [Row([Span(f"  {name}  {_with_bounds(found, shown, unit)}")], hang=9)]


def _with_bounds(found: Spread, shown: Callable[[float], str], unit: str, what: str = "cycles") -> str:
    if found.low is None or found.high is None:
        return f"{shown(found.mean)}{unit} (too few {what} for an interval)"
    return f"{shown(found.mean)}{unit} (95 %: {shown(found.low)} to {shown(found.high)})"
