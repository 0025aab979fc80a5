"""Tests of the cycle's table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.cycle import JUDGED_STATES, TERMINAL_STATES, TRANSITIONS, Event, State, advance
from sleepd.errors import IllegalTransition


def test_every_state_is_listed() -> None:
    """Each state stands in the table, so that a missing way out is a decision."""
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_event_follows_table_or_raises(state: State, event: Event) -> None:
    """Every state takes every event as the table says, or refuses it by name."""
    if event in TRANSITIONS[state]:
        assert advance(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition, match=f"{state}.*{event}"):
            advance(state, event)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_no_events_leave_terminal_state(events: list[Event]) -> None:
    """Once a cycle has ended it stays as it ended."""
    state = State.PLANNED
    for event in events:
        before = state
        try:
            state = advance(state, event)
        except IllegalTransition:
            continue
        assert before not in TERMINAL_STATES


def test_every_state_is_reachable_and_ends() -> None:
    """From planned every state is reached, and from every state a terminal one."""
    reached, frontier = {State.PLANNED}, [State.PLANNED]
    while frontier:
        for target in TRANSITIONS[frontier.pop()].values():
            if target not in reached:
                reached.add(target)
                frontier.append(target)
    assert reached == set(State)
    for state in set(State) - TERMINAL_STATES:
        assert set(TRANSITIONS[state].values()) & TERMINAL_STATES


def test_only_verdicts_count_as_sleep() -> None:
    """A cycle is judged only by way of the state judged; failing, cancelling and interrupting are no verdicts."""
    for state, ways in TRANSITIONS.items():
        for target in ways.values():
            if target in JUDGED_STATES:
                assert state is State.JUDGED
    assert JUDGED_STATES <= TERMINAL_STATES
