"""The operator's overrides: which experiences may be released or dropped, and what that changes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Final, Literal

import msgspec

from sleepd.buffer.experience import id_hash
from sleepd.errors import Busy, NotFound, NothingToDo
from sleepd.quarantine.keeper import QuarantineKeeper
from sleepd.quarantine.rules import Cause, OverrideKind

from .composition import Parts

Verb = Literal["release", "drop", "reset"]
KINDS: Final[dict[Verb, OverrideKind | None]] = {"release": "released", "drop": "dropped", "reset": None}
"""What each verb leaves on an experience; None: nothing any more."""


class OverrideDone(msgspec.Struct, frozen=True, kw_only=True):
    """What was overridden."""

    ids: list[str]
    kinds_before: frozenset[OverrideKind | None]
    """What stood on the experiences before."""
    trained_in: list[int]
    """Cycles that trained any of them before."""


async def override(parts: Parts, identifiers: Iterable[str], verb: Verb) -> OverrideDone:
    """Override the quarantine for experiences, or undo that.

    Raises:
        NotFound: one of them is not known; nothing is decided.
        NothingToDo: there is no decision to take back, or nothing to release one from.
        Busy: a cycle under way, or cut short, trains what is to be dropped.
        OSError: the disk did not take it.
    """
    quarantine, view = parts.intake.quarantine, parts.intake.view
    present = set(view.keys)  # a thousand scans of a hundred thousand keys would block the loop
    keys = {known_key(quarantine, each, present): each for each in identifiers}
    causes = await quarantine.causes(view, parts.history.known(), parts.state.config.training.min_salience)
    _refuse_without_effect(quarantine, keys, causes, verb)
    if verb == "drop":
        _refuse_in_use(parts, keys)
    before = {key: quarantine.overrides.get(key) for key in keys}
    groups = {key: _group_before(quarantine, key) for key in keys.keys() - present}
    view = parts.intake.view
    groups |= {key: group for key, group in zip(view.keys, view.groups, strict=True) if key in keys}
    quarantine.decide(KINDS[verb], {key: (each, groups[key]) for key, each in keys.items()})
    return OverrideDone(
        ids=list(keys.values()),
        kinds_before=frozenset(each.kind if each else None for each in before.values()),
        trained_in=sorted({cycle for each in keys.values() for cycle in quarantine.screenings.trained_in(each)}),
    )


def known_key(quarantine: QuarantineKeeper, identifier: str, present: Container[int]) -> int:
    """The id hash of an experience that is in the buffer, was screened or was decided on.

    Raises:
        NotFound: it is none of these.
    """
    key = id_hash(identifier)
    is_known = key in present or key in quarantine.overrides
    if not is_known and quarantine.screenings.find(key) is None:
        raise NotFound(
            f"there is no experience {identifier}",
            hint="ids stand in the agent's file (buffer.path); sleepctl quarantine lists those in quarantine",
        )
    return key


def _refuse_without_effect(
    quarantine: QuarantineKeeper, keys: Mapping[int, str], causes: Mapping[int, Cause], verb: Verb
) -> None:
    for key, identifier in keys.items():
        if verb == "reset" and key not in quarantine.overrides:
            raise NothingToDo(f"nothing was decided on {identifier}", hint="sleepctl quarantine")
        if verb == "release" and key not in causes and key not in quarantine.overrides:
            raise NothingToDo(f"{identifier} is not in quarantine", hint="sleepctl quarantine")


def _refuse_in_use(parts: Parts, keys: Mapping[int, str]) -> None:
    cycle = parts.state.running_cycle or parts.ledger.suspended_cycle()
    if cycle is None:
        return
    for assignment in parts.ledger.assignments(cycle):
        if assignment.key in keys:
            raise Busy(f"cycle {cycle} is under way with {assignment.id}", hint="sleepctl cancel, then again")


def _group_before(quarantine: QuarantineKeeper, key: int) -> int:
    """Of its text as it was before it left the buffer."""
    decided, screened = quarantine.overrides.get(key), quarantine.screenings.find(key)
    return screened.group if screened else decided.group if decided else 0
