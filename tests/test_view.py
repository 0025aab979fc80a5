"""Tests of the table of states that decides whether the last good view of the buffer still holds."""

from __future__ import annotations

import pytest

from sleepd.buffer.reading.view import (
    ROWS,
    SETTLING,
    STARTS,
    PollResult,
    Shown,
    Timer,
    ViewMachine,
    ViewState,
    torn_line,
)

PATIENCE = 30.0


def poll(machine: ViewMachine, at: float, found: str, has_experiences: bool = True) -> tuple[ViewMachine, PollResult]:
    """One poll that finds the file whole, unchanged, gone or half-written."""
    match found:
        case "gone":
            result = machine.gone(at, patience=PATIENCE, has_experiences=has_experiences)
        case "half":
            result = machine.half(at, patience=PATIENCE)
        case _:
            result = PollResult(found)
    return machine.after(result, at), result


def test_every_result_has_a_row() -> None:
    """The table names what follows for each thing that a poll can find, and every state can be reached."""
    assert set(ROWS) == set(PollResult)
    assert {row.state for row in ROWS.values()} == set(ViewState)


def test_a_started_timer_goes_on() -> None:
    """A result that starts a timer keeps it, and the view holds as long as any trouble may be a writer at work."""
    for found, timer in STARTS.items():
        assert timer in ROWS[found].timers
        assert ROWS[found].state in SETTLING
    assert all(row.shown is Shown.LAST for row in ROWS.values() if row.state in SETTLING)


CASES: dict[str, tuple[list[tuple[float, str]], list[ViewState]]] = {
    "a whole file": ([(0, "whole"), (1, "unchanged")], [ViewState.CURRENT, ViewState.CURRENT]),
    "a writer that is done in time": (
        [(0, "half"), (29, "half"), (30, "whole")],
        [ViewState.HALF_WRITTEN, ViewState.HALF_WRITTEN, ViewState.CURRENT],
    ),
    "half a file that stays": ([(0, "half"), (30, "half")], [ViewState.HALF_WRITTEN, ViewState.BROKEN]),
    "a broken file that is mended": (
        [(0, "half"), (30, "half"), (31, "whole"), (40, "half")],
        [ViewState.HALF_WRITTEN, ViewState.BROKEN, ViewState.CURRENT, ViewState.HALF_WRITTEN],
    ),
    "a file that is removed and made again": (
        [(0, "gone"), (29, "gone"), (30, "whole")],
        [ViewState.VANISHING, ViewState.VANISHING, ViewState.CURRENT],
    ),
    "a file that stays away": (
        [(0, "gone"), (30, "gone"), (31, "whole")],
        [ViewState.VANISHING, ViewState.CURRENT, ViewState.CURRENT],
    ),
    "removed, then half-written: the writer has its time from the first byte on": (
        [(0, "gone"), (20, "half"), (40, "half"), (50, "half")],
        [ViewState.VANISHING, ViewState.HALF_WRITTEN, ViewState.HALF_WRITTEN, ViewState.BROKEN],
    ),
    "emptied and half-written in turn is no way to stay unnoticed": (
        [(0, "half"), (10, "gone"), (20, "half"), (25, "gone"), (30, "half")],
        [
            ViewState.HALF_WRITTEN,
            ViewState.VANISHING,
            ViewState.HALF_WRITTEN,
            ViewState.VANISHING,
            ViewState.BROKEN,
        ],
    ),
    "a broken file that is removed": (
        [(0, "half"), (30, "half"), (60, "gone"), (89, "gone"), (90, "gone"), (91, "half")],
        [
            ViewState.HALF_WRITTEN,
            ViewState.BROKEN,
            ViewState.VANISHING,
            ViewState.VANISHING,
            ViewState.CURRENT,
            ViewState.HALF_WRITTEN,
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_states_follow_the_table(name: str) -> None:
    """Each story of polls, in seconds, leads through the states that the table names."""
    polls, expected = CASES[name]
    machine, states = ViewMachine(), []
    for at, found in polls:
        machine, _ = poll(machine, at, found)
        states.append(machine.state)
    assert states == expected


def test_empty_view_is_not_waited_for() -> None:
    """A missing file is believed at once where the view has no experiences."""
    machine, found = poll(ViewMachine(), 0, "gone", has_experiences=False)
    assert (machine.state, found) == (ViewState.CURRENT, PollResult.GONE_FOR_LONG)


@pytest.mark.parametrize("found", [PollResult.WHOLE, PollResult.UNCHANGED, PollResult.GONE_FOR_LONG])
def test_a_certain_result_stops_all_timers(found: PollResult) -> None:
    """What is known for sure leaves no trouble behind that a later one would inherit."""
    machine = ViewMachine(since={Timer.GONE: 1.0, Timer.HALF: 2.0})
    assert machine.after(found, 3.0) == ViewMachine(state=ViewState.CURRENT)


def test_torn_line_waits_from_change() -> None:
    """The same torn line keeps its time, a longer one begins anew, an ended one is forgotten."""
    first = torn_line(None, start=100, length=20, line=4, now=5.0)
    assert first is not None
    assert first.skipped.position == "line 4"
    assert torn_line(first, start=100, length=20, line=4, now=9.0) is first
    assert not first.is_due(34.9, patience=PATIENCE)
    assert first.is_due(35.0, patience=PATIENCE)
    longer = torn_line(first, start=100, length=25, line=4, now=9.0)
    assert longer is not None
    assert longer.since == 9.0
    assert torn_line(longer, start=140, length=0, line=5, now=10.0) is None
