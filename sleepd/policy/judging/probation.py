"""Whether a champion is what it was promoted for: against the one before it, on experiences that came later. Pure.

Those experiences were trained by nobody and chose nobody, so they are the one test that the champion cannot have been
selected for. It is repeated before each cycle that would train on, each time on what has come since.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from sleepd.protocol.evidence import LaterLoss, Probation
from sleepd.protocol.verdict import Comparison, Interval

from .confidence import Pair, gain_interval, independent

MIN_EXPERIENCES: Final = 4
"""Fewer decide nothing."""
NEAR: Final = 0.02
"""Nats per token: a champion that is not worse by more than this is not worse."""


def compare(measured: Probation, confidence: float) -> Comparison:
    """Whether the champion is better or worse on later experiences.

    A champion that is as good as its predecessor is called worse with a probability of at most 1 - ``confidence`` each
    time it is compared. One that was promoted for what it learned is called worse where it is worse by more than the
    margin that it was promoted with: otherwise what it was told would be unlearned again for a difference that the
    verdict allowed.
    """
    counted = [each for each in measured.losses if each.tokens > 0]
    pairs, conversations = _pairs(counted), [each.conversation for each in counted]
    count = independent(conversations)
    gain = gain_interval(pairs, confidence, conversations) if count >= MIN_EXPERIENCES else None
    outcome, relation = _outcome(gain, measured.margin)
    loss = ", a token counting at most 2.3 nats" if measured.is_capped else ""
    against = "the base" if measured.predecessor is None else f"cycle {measured.predecessor}"
    who = f"cycle {measured.champion} is {relation} {against}"
    if gain is None:
        figures = f"{count} later experience{'s' * (count != 1)}; {MIN_EXPERIENCES} are needed"
    else:
        figures = (
            f"{gain.estimate:+.3f} nats/token on {gain.experiences} later experiences, "
            f"{gain.low:+.3f} to {gain.high:+.3f} with {confidence:.0%} confidence each"
        )
    return Comparison(
        outcome=outcome,
        champion=measured.champion,
        predecessor=measured.predecessor,
        gain=gain,
        reason=f"{who} ({figures}{loss})",
    )


def _pairs(losses: Iterable[LaterLoss]) -> list[Pair]:
    return [(each.tokens, each.predecessor, each.champion) for each in losses]


def _outcome(gain: Interval | None, margin: float) -> tuple[Literal["better", "not_worse", "undecided", "worse"], str]:
    if gain is None or gain.low is None or gain.high is None:
        return "undecided", "not yet distinguishable from"
    allowed = f"by more than {margin:g} " if margin > 0 else ""
    if gain.high < -margin:
        return "worse", f"worse {allowed}than"
    if gain.low > 0:
        return "better", "better than"
    is_near = gain.low > -max(NEAR, margin)
    return ("not_worse", f"not worse {allowed}than") if is_near else ("undecided", "not yet distinguishable from")
