"""The small answers of the daemon that have no structure in ``status.py``, as the command line reads them."""

from __future__ import annotations

from datetime import datetime

import msgspec

from sleepd.clock import Moment

from .decision_view import DecisionView
from .deployment.serve_messages import ServedSpan
from .job import Role
from .status import SCHEMA, CycleSummary, DecisionRecord
from .verdict import Figure


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``cancel``."""

    cycle: int
    undo: str = ""
    schema: int = SCHEMA


class Paused(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``pause`` and to ``resume``."""

    is_paused: bool
    undo: str = ""
    schema: int = SCHEMA


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint whose weights went, or would go."""

    cycle: int
    bytes: int
    reason: str


class PruneResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``prune``."""

    pruned: list[Pruned]
    """Oldest first."""
    is_dry_run: bool
    """Nothing was removed."""
    schema: int = SCHEMA


class RolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``rollback``; None is the base."""

    champion: int | None
    was: int | None
    quarantined: int = 0
    """Experiences recorded under ``was`` that are excluded from training since."""
    served: int | None = None
    """What the engine was proved to run last; None: the base, or it is not known."""
    serving: str = ""
    """What becomes of the engine, a sentence; empty: no engine is configured."""
    undo: str = ""
    schema: int = SCHEMA


class MetricResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``addmetric``."""

    cycle: int
    name: str
    value: float | None
    """None: taken away."""
    figures: list[Figure]
    """It against each of the operator's limits on it."""
    is_broken: bool
    """One of them is missed; a champion is rolled back then."""
    was_champion: bool
    """It was in use when the figure came."""
    champion: int | None
    """The one in use afterwards; None: the base."""
    undo: str = ""
    schema: int = SCHEMA


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``reload``: the keys that differ from what was in force, as ``section.key``."""

    changed: list[str]
    schema: int = SCHEMA


class Tagged(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``tag``; None: it has none now."""

    cycle: int
    tag: str | None
    undo: str = ""
    schema: int = SCHEMA


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``quarantine release``, ``drop`` and ``reset``."""

    ids: list[str]
    decision: str
    trained_in: list[int]
    """Cycles that trained any of them before."""
    undo: str = ""
    schema: int = SCHEMA


class PastAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm, from when to when."""

    name: str
    text: str
    since: Moment
    until: Moment | None = None
    """None: it lasts."""


class Reasons(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``why``."""

    current: DecisionView
    changes: list[DecisionRecord]
    alarms: list[PastAlarm] = []
    """Alarms that lasted at a poll, newest first."""
    adopted_strategy: str = ""
    """As in the status."""
    schema: int = SCHEMA


class Cycles(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``history``, and what ``history.json`` holds."""

    cycles: list[CycleSummary]
    served: list[ServedSpan] = []
    """What an engine was proved to run, from when to when, newest first."""
    schema: int = SCHEMA


class WrittenCycles(Cycles, frozen=True, kw_only=True):
    """``history.json``."""

    written_at: datetime


class LearnedText(msgspec.Struct, frozen=True, kw_only=True):
    """One experience of a cycle, as its text stands in the buffer."""

    id: str
    role: Role
    salience: float
    prompt: str
    """Its beginning, as that of the response."""
    response: str
    is_withheld: bool = False
    """A secret was found in it, or it was not screened as it is now: the texts are empty."""


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``experiences``: what a cycle trained and replayed, as far as the buffer still has it."""

    cycle: int
    experiences: list[LearnedText]
    """The most salient of those that are still there, trained ones first."""
    present: int
    """All that are still there with the text that was trained."""
    changed: list[str]
    """Ids that are there with another text, which is not what was trained."""
    gone: list[str]
    """Ids that are no longer there."""
    rejected: list[str] = []
    """Ids of those that a person has rated down since."""
    problem: str = ""
    """Why no text is shown, or not that of the buffer as it is now."""
    schema: int = SCHEMA


class FoundText(msgspec.Struct, frozen=True, kw_only=True):
    """One experience that a search found."""

    id: str
    salience: float
    """-1: a person rated it down."""
    prompt: str
    """Its beginning, as that of the response."""
    response: str


class FoundTexts(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``search``."""

    found: list[FoundText]
    """Newest first."""
    total: int
    """Of which ``found`` may be the first ones. Those with a secret and those that were not screened are left out."""
    searched: int
    """Experiences whose texts were read, the newest."""
    schema: int = SCHEMA


class DaemonVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``version``."""

    version: str
    v: int
    schema: int = SCHEMA


class ExpectedSleep(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``when``."""

    at: datetime | None
    """When the next sleep is expected; None: nobody can tell, and ``reason`` says why."""
    per_day: float | None
    """Experiences that came in a day, as far as that is recorded; None: it is not."""
    reason: str
    schema: int = SCHEMA


class SimulatedSleepView(msgspec.Struct, frozen=True, kw_only=True):
    """A sleep that would have begun."""

    at: datetime
    total: int
    new: int
    reason: str


class SimulatedView(msgspec.Struct, frozen=True, kw_only=True):
    """What one set of thresholds would have done."""

    sleeps: list[SimulatedSleepView]
    hours_waited: dict[str, float]
    """By the condition or veto that was missing first."""


class SimulatedTriggers(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``simulate``."""

    first: datetime | None
    """The oldest recorded facts that were used; None: there are none."""
    looks: int
    """How many recorded facts were decided anew."""
    began: int
    """Cycles that really began in that time."""
    configured: SimulatedView
    given: SimulatedView
    schema: int = SCHEMA
