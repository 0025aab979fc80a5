"""How states look: a shape and a colour, so that neither alone carries the meaning."""

from __future__ import annotations

from typing import NamedTuple

from sleepd.protocol.status import CycleSummary


class Mark(NamedTuple):
    """A state's name, its shape and its colour."""

    name: str
    shape: str
    """A symbol of ``symbols.svg`` in ``charts.html``."""
    colour: str
    """A class of the style sheet."""


_MARKS = {
    "promoted": ("disc", "good"),
    "rejected": ("cross", "warn"),
    "inconclusive": ("ring", "warn"),
    "rolled back": ("back", "warn"),
    "failed": ("triangle", "bad"),
    "cancelled": ("dash", "quiet"),
    "interrupted": ("dash", "quiet"),
    "imported": ("square", "quiet"),
    "adopted": ("square", "quiet"),
}


def mark_of(cycle: CycleSummary) -> Mark:
    """The mark of a cycle as it stands; one that has not ended has an accent of its own."""
    name = "rolled back" if cycle.is_rolled_back else cycle.state
    shape, colour = _MARKS.get(name, ("dots", "accent"))
    return Mark(name, shape, colour)


LEGEND = tuple(Mark(name, shape, colour) for name, (shape, colour) in _MARKS.items())
