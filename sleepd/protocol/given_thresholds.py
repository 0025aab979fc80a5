"""Thresholds that a client gives, instead of the configured ones."""

from __future__ import annotations

from typing import Annotated

import msgspec

Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""What the ledger can be asked for: a JSON number may be larger."""
Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class GivenThresholds(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds given explicitly by an older caller; None: as configured."""

    min_experiences: Integer | None = None
    min_new_experiences: Integer | None = None
    min_hours_between_sleep: float | None = None
    min_salience: float | None = None


class GivenTriggers(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a ``[triggers]`` section that decide when a cycle is due."""

    min_experiences: Count
    min_new_experiences: Count
    min_hours_between_sleep: Annotated[float, msgspec.Meta(ge=0, le=8760)]
    quality_factor: Annotated[float, msgspec.Meta(ge=1, le=4)]
    breakthrough_salience: Annotated[float, msgspec.Meta(ge=0, le=1)]
    adaptive: bool
