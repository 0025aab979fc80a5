"""Tests of which experiences an epoch trains: all, save those of a frequent prompt, which take turns."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.worker.data.examples import Encoded
from sleepd.worker.training.batches import answers_beside
from sleepd.worker.training.schedule import epoch_ends, epoch_order, planned_epochs, repeats

from .conftest import quick


def some(count: int, share: float = 1.0, *, name: str = "e") -> list[Encoded]:
    return [Encoded(id=f"{name}{n}", ids=(1, 2, 3), prompt_tokens=1, sampling_share=share) for n in range(count)]


def test_epochs_without_shares_have_all() -> None:
    """Each epoch holds each experience once; the order is the seed's and the epoch's."""
    experiences = some(20)
    orders = [tuple(epoch_order(quick(), experiences, 1, epoch)) for epoch in range(3)]
    assert all(sorted(order) == sorted(one.id for one in experiences) for order in orders)
    assert len(set(orders)) == 3
    assert orders[0] == tuple(epoch_order(quick(), list(reversed(experiences)), 1, 0))
    assert orders[0] != tuple(epoch_order(quick(), experiences, 2, 0))


@given(st.integers(1, 40), st.floats(0.01, 0.99), st.integers(1, 30), st.integers(0, 99))
def test_frequent_prompt_takes_turns(count: int, share: float, epochs: int, seed: int) -> None:
    """An epoch holds their share of them, none twice, and over all epochs none was in two more often than another."""
    frequent, others = some(count, share, name="f"), some(3)
    turns = Counter({one.id: 0 for one in frequent})
    for epoch in range(epochs):
        order = epoch_order(quick(), [*frequent, *others], seed, epoch)
        assert len(set(order)) == len(order)
        assert {one.id for one in others} <= set(order)
        assert abs(len(order) - 3 - share * count) < 1 + 1e-9
        turns.update(id_ for id_ in order if id_.startswith("f"))
    assert max(turns.values()) - min(turns.values()) <= 1


def test_an_epoch_is_never_empty() -> None:
    """Where all are frequent and their share makes less than one, all are in."""
    assert sorted(epoch_order(quick(), some(2, 0.01), 1, 0)) == ["e0", "e1"]


@pytest.mark.parametrize(("count", "share", "expected"), [(8, 1.0, [2, 4]), (9, 1.0, [3, 6]), (8, 0.5, [1, 2])])
def test_where_the_epochs_end(count: int, share: float, expected: list[int]) -> None:
    """After as many steps as their experiences make, four a step."""
    assert epoch_ends(quick(batch_size=4), some(count, share), 1) == expected


@pytest.mark.parametrize(("reply_tokens", "times"), [(1, 10), (16, 10), (17, 4), (28, 4), (29, 1), (2000, 1)])
def test_short_replies_are_repeated(reply_tokens: int, times: int) -> None:
    """The shorter a reply, the more often it is trained: ten times as often as a long one, at most."""
    assert repeats(quick(most_repeats=10), reply_tokens) == times
    assert repeats(quick(most_repeats=2), reply_tokens) == min(times, 2)


def test_mixed_buffer_repeats_short_only() -> None:
    """Beside short replies, trained 30 times, each long reply is still trained three times."""
    long = [Encoded(id=f"long{n}", ids=(1,) * 101, prompt_tokens=1) for n in range(5)]
    strategy = quick(epochs=3, most_repeats=10, batch_size=4)
    experiences = [*some(4), *long]
    orders = [epoch_order(strategy, experiences, 1, epoch) for epoch in range(planned_epochs(strategy, experiences))]
    times = Counter(id_ for order in orders for id_ in order)
    assert {times[one.id] for one in some(4)} == {30}
    assert {times[one.id] for one in long} == {3}


@pytest.mark.parametrize(("tokens", "answers"), [(30, 4), (160, 4), (200, 5), (240, 6), (900, 6)])
def test_answers_grow_with_replies(tokens: int, answers: int) -> None:
    """A step of short replies holds four reference answers, a step of long ones as many as the strategy says."""
    assert answers_beside(quick(kl_batch_size=6, kl_batch_least=4), tokens) == answers
    assert answers_beside(quick(kl_batch_size=6, kl_batch_least=0), tokens) == 6
