"""What the daemon says of a decision: whether it is time to sleep, and what is missing."""

from __future__ import annotations

import msgspec


class ConditionView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the conditions for a sleep, with its figures."""

    name: str
    is_met: bool
    found: float | None
    """None where there is nothing to compare yet (no sleep so far)."""
    required: float
    text: str


class VetoView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps a due sleep from starting."""

    name: str
    text: str


class DecisionView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether to sleep now, and why. ``due``: the three conditions hold; ``should_sleep``: and nothing vetoes."""

    should_sleep: bool
    due: bool
    reason: str
    conditions: list[ConditionView]
    vetoes: list[VetoView]
