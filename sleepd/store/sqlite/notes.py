"""The notes of the ledger: small facts that must survive a restart. Every note is declared here, and nowhere else.

A note has a name, which is its key in the table ``notes`` of ``state.db``, and a type, which is its JSON form there. A
name and a form stay for ever: an older state directory holds them. The writer of each note stands under its
declaration; anybody may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from sleepd.clock import Moment
from sleepd.errors import DECODE_ERRORS, LedgerUnusable
from sleepd.protocol.deployment.serve_messages import Result
from sleepd.protocol.verdict import Comparison
from sleepd.store.legacy_formats import SchedulerState

_T = TypeVar("_T")


@dataclass(frozen=True)
class Note(Generic[_T]):
    """The declaration of one note."""

    name: str
    kind: Any
    """``_T``, as msgspec takes it."""

    def decode(self, content: bytes) -> _T | None:
        """What stands in the ledger; None: the note was taken away.

        Raises:
            LedgerUnusable: it is no such fact.
        """
        try:
            found: _T | None = msgspec.json.decode(content, type=self.kind | None)
        except DECODE_ERRORS as error:
            raise LedgerUnusable(
                f"the ledger's note {self.name} is not understood: {error}",
                hint="install the version that wrote it, or a newer one",
            ) from error
        return found


class Crashes(msgspec.Struct, frozen=True):
    """How often a cycle was interrupted by the death of its worker or of the daemon."""

    cycle: int = 0
    count: int = 0
    at: datetime | None = None
    """The last one."""


class Misfit(NamedTuple):
    """What a worker reported about a champion that it could not continue."""

    base: str
    """The configured base at that time."""
    champion: int | None
    message: str


class AlarmSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm, from when to when."""

    name: str
    text: str
    since: Moment
    until: Moment | None = None
    """None: it lasts."""


class Demoted(msgspec.Struct, frozen=True, kw_only=True):
    """A champion that was found worse, and whether it is out of use."""

    champion: int
    reason: str
    at: Moment
    found_by: int | None = None
    """The cycle that found it; None: the operator's figure did."""
    is_done: bool = False


class ServeAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """How it last went to have the engine run what is wanted."""

    key: str
    """What was wanted, and of which engine."""
    result: Result
    text: str
    """What is wrong; empty: nothing is."""
    hint: str
    at: Moment
    failures: int = 0
    """How often in a row it was not proved."""
    was_given: bool = False
    """The engine was given it, and it was not put back."""


class AdoptedStrategy(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy that pairs have proved better than the configured one."""

    configured: str
    """``training.strategy`` at that time."""
    adopted: str
    text: str
    """The evidence, in a sentence."""
    at: Moment


class FoundComparison(NamedTuple):
    """The comparison of a champion on later experiences."""

    comparison: Comparison
    found_by: int
    """The cycle that asked."""


PAUSED: Final = Note[bool]("is_paused", bool)
"""Whether the operator wants no cycle to start. Written by ``cycles.sleeper``."""
ALARMS: Final = Note[list[str]]("alarms", list[str])
"""Names of the alarms that were logged and have not ended. Written by ``cycles.alarms``."""
PAST_ALARMS: Final = Note[list[AlarmSpan]]("past_alarms", list[AlarmSpan])
"""Alarms from when to when, newest first. Written by ``cycles.alarms``."""
DUE_SINCE: Final = Note[datetime]("due_since", Moment)
"""Since when a cycle is due and held back. Written by ``cycles.alarms``."""
CRASHES: Final = Note[Crashes]("crashes", Crashes)
"""Of the cycle that crashed last. Written by ``cycles.running.resume``."""
IMPORTED_STATE: Final = Note[SchedulerState]("imported_scheduler_state", SchedulerState)
"""What an older scheduler had left; set once. Written by ``cycles.history``."""
IMPORTED_SEEN: Final = Note[list[int]]("imported_seen", list[int])
"""Id hashes of what that scheduler had seen; set once. Written by ``cycles.history``."""
BASE_CHANGED: Final = Note[Misfit]("base_changed", Misfit)
"""The champion belongs to another base. Written by ``registry.compatibility``."""
ADOPTED_UNFIT: Final = Note[Misfit]("adopted_unfit", Misfit)
"""An adopted champion does not fit the base. Written by ``registry.compatibility``."""
ADOPTED_STRATEGY: Final = Note[AdoptedStrategy]("adopted_strategy", AdoptedStrategy)
"""What replaces the configured strategy. Written by ``registry.strategy_choice``."""
DEMOTION: Final = Note[Demoted]("demotion", Demoted)
"""A champion that is to go, or that went. Written by ``registry.demotion``."""


SERVE_ATTEMPT: Final = Note[ServeAttempt]("serve_attempt", ServeAttempt)
"""How it last went to have the engine run what is wanted. Written by ``serving.deployer``."""


def comparison_note(champion: int) -> Note[FoundComparison]:
    """Each champion has one, where a cycle found it worse. Written by ``registry.demotion``."""
    return Note[FoundComparison](f"comparison_{champion}", FoundComparison)
