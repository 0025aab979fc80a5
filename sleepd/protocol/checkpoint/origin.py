"""``origin.json``: where the adapter of a checkpoint came from, and what was measured on it there."""

from __future__ import annotations

from typing import Final

import msgspec

from sleepd.clock import Moment
from sleepd.protocol.verdict import Interval

ORIGIN_FILE: Final = "origin.json"
"""Beside an adapter that another machine trained; what was trained here has none."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Another machine's adapter: who signed it, and that machine's figures, which decided nothing here."""

    signer: str
    """As the operator's file of allowed signers calls the key."""
    bundle: str
    """The id of the bundle."""
    cycle: int
    """The number there."""
    received_at: Moment
    outcome: str
    """The verdict there."""
    gain: Interval | None
    held_out: int
    holdout_before: float | None
    holdout_after: float | None
    device: str
    """What it was measured on there."""
