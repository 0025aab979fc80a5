"""What more than one view asks the daemon in the same way."""

from __future__ import annotations

from typing import Any, Protocol

from sleepd.protocol.answers import Learned
from sleepd.protocol.control import Buffer, Experiences, Quarantine, Request, Show
from sleepd.protocol.status import BufferDetail, CycleDetail, QuarantineEntry, QuarantineList

from .pages.report_page import KnownCycle

_QUARANTINED = 100
"""Experiences in quarantine of which the reasons are counted."""


class Ask(Protocol):
    """One request, one answer."""

    def __call__(self, request: Request, kind: type[Any]) -> Any:
        """The answer, of that kind."""
        ...


def known_cycle(ask: Ask, cycle: int, *, limit: int) -> KnownCycle:
    """Everything that the daemon knows of one cycle, with at most ``limit`` texts of what it learned from."""
    detail: CycleDetail = ask(Show(cycle=cycle), CycleDetail)
    learned: Learned | None = None
    if detail.trained_ids or detail.replayed_ids:
        learned = ask(Experiences(cycle=cycle, limit=limit), Learned)
    buffer: BufferDetail = ask(Buffer(), BufferDetail)
    quarantine: list[QuarantineEntry] = []
    if buffer.status.quarantined:
        quarantine = ask(Quarantine(limit=_QUARANTINED), QuarantineList).entries
    return KnownCycle(detail, learned, buffer.status, buffer.set_aside, quarantine, is_live=True)
