"""The states of one sleep cycle, as a table.

Rule 1: every transition is in ``TRANSITIONS`` and nowhere else.
Rule 2: this file knows no clock, file, process or message.
Rule 3: an illegal event raises and changes nothing.
Rule 4: every state is listed. A terminal one has an empty row, so that a missing row is always a mistake.

Theory of operation. A cycle is ``planned`` before its worker exists. The worker trains, then evaluates. Its report is
``judged``; the verdict is then put into effect, and the cycle ends as ``promoted``, ``rejected`` or ``inconclusive``.
Only these three count as a sleep: they move "last sleep" and what counts as new. ``failed``, ``cancelled`` and
``interrupted`` leave both as they were. A shutdown or a crash suspends; a suspended cycle goes on with
``training_started``, or is interrupted where it cannot go on.

``measured`` is the one of a pair (``cycles.running.pair``) whose worker has reported: its report is in the ledger, its
files are staged, and its verdict waits until the other one was measured, too. It has no way to ``suspended``, for
nothing of it is under way.

``judged`` has no way to ``suspended``: the worker is done and the rest takes the daemon a moment, so what a crash left
there is finished or given up at the next start, never resumed. It has no way to ``cancelled`` either: from then on the
operator undoes with ``rollback``.

Order of writes. The ledger stores each state in one transaction with its reason. Where a state promises something on
disk, the disk comes first (``planned``: the staged job; ``promoted``: the directory and ``current``). Where a state
gives something up, the ledger comes first (``failed``: then the staging directory is removed). After a power cut the
ledger is therefore one state behind the disk, or leftovers of an end are still to be removed; ``cycles.recovery``
repairs both.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from .errors import IllegalTransition


class State(StrEnum):
    """Where a cycle stands."""

    PLANNED = "planned"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SUSPENDED = "suspended"
    MEASURED = "measured"
    JUDGED = "judged"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Event(StrEnum):
    """What can happen to a cycle."""

    TRAINING_STARTED = "training_started"
    EVALUATION_STARTED = "evaluation_started"
    REPORT_KEPT = "report_kept"
    REPORT_JUDGED = "report_judged"
    PROMOTE = "promote"
    REJECT = "reject"
    LEAVE_OPEN = "leave_open"
    SUSPEND = "suspend"
    FAIL = "fail"
    CANCEL = "cancel"
    INTERRUPT = "interrupt"


_ENDINGS: Final = {
    Event.FAIL: State.FAILED,
    Event.CANCEL: State.CANCELLED,
    Event.INTERRUPT: State.INTERRUPTED,
}

TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.PLANNED: {Event.TRAINING_STARTED: State.TRAINING, Event.SUSPEND: State.SUSPENDED, **_ENDINGS},
    State.TRAINING: {Event.EVALUATION_STARTED: State.EVALUATING, Event.SUSPEND: State.SUSPENDED, **_ENDINGS},
    State.EVALUATING: {
        Event.REPORT_JUDGED: State.JUDGED,
        Event.REPORT_KEPT: State.MEASURED,
        Event.SUSPEND: State.SUSPENDED,
        **_ENDINGS,
    },
    State.SUSPENDED: {Event.TRAINING_STARTED: State.TRAINING, **_ENDINGS},
    State.MEASURED: {Event.REPORT_JUDGED: State.JUDGED, **_ENDINGS},
    State.JUDGED: {
        Event.PROMOTE: State.PROMOTED,
        Event.REJECT: State.REJECTED,
        Event.LEAVE_OPEN: State.INCONCLUSIVE,
        Event.FAIL: State.FAILED,
        Event.INTERRUPT: State.INTERRUPTED,
    },
    State.PROMOTED: {},
    State.REJECTED: {},
    State.INCONCLUSIVE: {},
    State.FAILED: {},
    State.CANCELLED: {},
    State.INTERRUPTED: {},
}

JUDGED_STATES: Final = frozenset({State.PROMOTED, State.REJECTED, State.INCONCLUSIVE})
"""Terminal, with a verdict: these count as a sleep."""

TERMINAL_STATES: Final = frozenset(state for state, ways in TRANSITIONS.items() if not ways)

UNDECIDED_STATES: Final = frozenset(State) - TERMINAL_STATES
"""A cycle in one of these goes on at the next start, unless it is cancelled."""


def advance(state: State, event: Event) -> State:
    """The state that ``event`` leads to from ``state``.

    Raises:
        IllegalTransition: the table has no such way; nothing has changed.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        allowed = ", ".join(TRANSITIONS[state]) or "none, it has ended"
        raise IllegalTransition(
            f"a cycle that is {state} cannot take the event {event} (allowed: {allowed})",
            hint="this is a bug in sage-sleepd; please report it with the journal of that hour",
        ) from None


def undo_command(cycle: int, state: str, *, is_active: bool, champions: Iterable[int]) -> str:
    """The command that takes back what a cycle did; empty: nothing of it is in use.

    Args:
        cycle: its number.
        state: a ``State``, or what an older trainer's cycle is called.
        is_active: whether it was promoted and not rolled back since.
        champions: all that stand and have their weights.
    """
    if state in UNDECIDED_STATES:
        return "sleepctl cancel"
    return f"sleepctl rollback {previous_champion(cycle, champions) or 0}" if is_active else ""


def previous_champion(cycle: int, champions: Iterable[int]) -> int | None:
    """The active champion to which a rollback of ``cycle`` returns; None: the base itself."""
    return max((each for each in champions if each < cycle), default=None)


def diagram() -> str:
    """The table as text, one line a state, for sleepd/README.md (a test keeps the two equal)."""
    width = max(len(state) for state in State)
    lines = []
    for state, ways in TRANSITIONS.items():
        targets = " | ".join(dict.fromkeys(ways.values()))
        lines.append(f"{state:<{width}} -> {targets}" if ways else f"{state:<{width}}    (end)")
    return "\n".join(lines)
