"""From which cycle a cycle came, and what became of the others that came from the same ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from sleepd.protocol.status import CycleSummary

from .state_marks import Mark, mark_of

SIBLINGS = 5
"""Candidates shown of each ancestor, the newest; the others are counted."""
ANCESTORS = 12
"""Generations shown."""


class Branch(NamedTuple):
    """One ancestor with what came from it."""

    cycle: int | None
    """None: the base model."""
    mark: Mark | None
    is_here: bool
    children: list[Branch]
    more: int = 0
    """Candidates that came from it and are not shown."""


def lineage(cycle: int, cycles: Iterable[CycleSummary]) -> Branch | None:
    """The tree from the oldest shown ancestor down to what came from ``cycle``; None: nothing is known of it."""
    known = {each.cycle: each for each in cycles}
    if cycle not in known:
        return None
    children: dict[int | None, list[int]] = defaultdict(list)
    for each in sorted(known):
        children[known[each].parent].append(each)
    path: list[int | None] = [cycle]
    while path[0] is not None and path[0] in known and len(path) <= ANCESTORS:
        path.insert(0, known[path[0]].parent)
    return _branch(path, cycle, known, children)


def _branch(
    path: list[int | None], here: int, known: dict[int, CycleSummary], children: dict[int | None, list[int]]
) -> Branch:
    cycle, rest = path[0], path[1:]
    born = children[cycle]
    shown = born[-SIBLINGS:]
    if rest and rest[0] is not None and rest[0] not in shown:
        shown = [rest[0], *shown]
    branches = [
        _branch(rest, here, known, children) if rest and each == rest[0] else _leaf(each, known) for each in shown
    ]
    summary = known.get(cycle) if cycle is not None else None
    return Branch(cycle, mark_of(summary) if summary else None, cycle == here, branches, more=len(born) - len(branches))


def _leaf(cycle: int, known: dict[int, CycleSummary]) -> Branch:
    return Branch(cycle, mark_of(known[cycle]), is_here=False, children=[])
