"""Where an adapter came from, in words: what was measured there is told apart from what was measured here."""

from __future__ import annotations

from sleepd.protocol.checkpoint.origin import Origin
from sleepd.protocol.status import CycleSummary
from sleepd.protocol.strategy import FOREIGN
from sleepd.sleepctl.pages.wording import count, gain


def whence(cycle: CycleSummary) -> str:
    """``from thor, cycle 41 there; gain there +0.41 (23 experiences), here +0.31 (12 experiences)``.

    Empty: it was trained here.
    """
    if cycle.origin is not None:
        return came_from(cycle.origin, cycle.holdout_before, cycle.holdout_after, cycle.measured_on)
    is_foreign = cycle.strategy.startswith(FOREIGN)
    return f"from {cycle.strategy.removeprefix(FOREIGN)}, another machine" if is_foreign else ""


def came_from(origin: Origin, before: float | None, after: float | None, held_out: int) -> str:
    """The same, with the losses of this machine's held-out experiences."""
    there = _gain(origin.holdout_before, origin.holdout_after, origin.held_out)
    here = _gain(before, after, held_out)
    return f"from {origin.signer}, cycle {origin.cycle} there; gain there {there}, here {here}"


def _gain(before: float | None, after: float | None, held_out: int) -> str:
    if before is None or after is None:
        return "not measured"
    return f"{gain(before, after)} ({count(held_out, 'experience')})"
