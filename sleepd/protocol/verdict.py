"""What is decided about a candidate, and later about a champion, with every figure that was held against a limit.

A figure that was not measured has no value; it is never 0, and it never promotes.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec

LOW_SAMPLE: Final = 8
"""Fewer held-out experiences than this are a low sample: their mean may be chance."""


def is_low_sample(held_out: int) -> bool:
    """Whether a figure over so many held-out experiences rests on too few of them."""
    return held_out < LOW_SAMPLE


class Outcome(StrEnum):
    """The outcome of a verdict."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean gain in nats per supervised token, positive where the newer one is better, and how sure it is."""

    estimate: float
    low: float | None
    """The gain lies above it with ``confidence``; None: one experience bounds nothing."""
    high: float | None
    """The gain lies below it with ``confidence``."""
    confidence: float
    """Of each bound by itself; both hold together with twice the alpha."""
    experiences: int


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure that was held against a limit."""

    name: str
    """Such as ``holdout``, ``drift``, ``greedy_loops``, ``recall``, ``metric_accuracy``."""
    value: float | None
    """None: not measured."""
    relation: Literal["above", "at least", "below", "at most", "within"]
    """How the value must stand to the limit; ``within``: between the limit and ``upper_limit``."""
    limit: float | None
    """None: what it is held against was not measured."""
    upper_limit: float | None = None
    is_met: bool
    is_open: bool = False
    """Neither met nor missed beyond what chance does."""
    is_binding: bool = True
    """False: its gate is off; it is shown and decides nothing."""
    text: str
    """A sentence with value, limit and unit."""


class LearnedGain(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate knows more than its parent of the replies that its own cycle trained for the first time."""

    gain: Interval
    before: float
    """Reply loss of the parent on these replies, nats per supervised token."""
    after: float
    """Reply loss of the candidate."""
    margin: float
    """It may be worse than the parent on held-out experiences by less than this, nats per supervised token."""
    unseen: Interval | None = None
    """Its gain on held-out experiences by capped losses (``evidence.TOKEN_CAP``), which ``margin`` was held against;
    None: an older version held it against the whole loss."""
    kept: Interval | None = None
    """Its gain on what the parent's lineage had learned and this cycle repeated; None: there was no champion, or an
    older version did not measure it."""


class PairComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate beside the other one of its pair, which trained another strategy on the same examples."""

    rival: int
    """The other cycle."""
    strategy: str
    """The other cycle's."""
    rival_state: str
    """``measured``: the two were compared. Else how the other one ended without figures, such as ``failed``."""
    holdout: Interval | None = None
    """By how much this one's loss on the held-out experiences is below the other's; None: not compared."""
    learned: Interval | None = None
    """The same on the replies that both trained for the first time; None: not measured."""
    decided_by: Literal["", "gates", "holdout", "learned", "estimate"] = ""
    """What made one of them the better one: only one passed its gates; it is better on the held-out experiences, or on
    what it was told, beyond chance; or its estimate on the held-out ones is larger, which may be chance. Empty: none
    passed, or there was no comparison."""
    is_better: bool | None = None
    """Whether this one is the better one; None: nothing was decided."""
    text: str
    """A sentence with the figures."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome, every reason for it in a sentence with its figure, and all figures."""

    outcome: Outcome
    reason: str
    failed: list[str]
    """Names of what it failed, in the order judged; empty when promoted."""
    figures: list[Figure] = []
    """Everything that was held against a limit, met or not; empty in a verdict of an older version."""
    gain: Interval | None = None
    """Of the holdout against the parent."""
    noise_floor: float | None = None
    """What two readings of one adapter differ by, nats per token."""
    is_thin: bool = False
    """A low sample; see :func:`is_low_sample`."""
    is_on_probation: bool = False
    """Promoted although the evidence is open: experiences that come later decide."""
    pair: PairComparison | None = None
    """None: it is in no pair."""
    learned: LearnedGain | None = None
    """Promoted because it learned, and is not worse on what it never trained on; None: it was promoted as better, or
    not promoted."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Champion against predecessor on experiences that came after the champion was made."""

    outcome: Literal["better", "not_worse", "undecided", "worse"]
    champion: int
    predecessor: int | None
    """None: the base."""
    gain: Interval | None
    """Of the champion against its predecessor; None: too few experiences."""
    reason: str


class AddedMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that the operator measured and added."""

    name: str
    value: float
    added_at: Annotated[datetime, msgspec.Meta(tz=True)]
