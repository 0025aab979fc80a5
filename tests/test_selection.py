"""Tests of what is trained, replayed and held out."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterable, Sequence, Set
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.policy.selecting import holdout
from sleepd.policy.selecting.selection import (
    HashSet,
    Known,
    Selection,
    SelectionRule,
    Splits,
    held_out_keys,
    select,
)
from sleepd.policy.selecting.tally import count
from tests.agents import columns

Groups = st.lists(st.integers(0, 2**64 - 1), max_size=60)


SECRET = b"s" * 32


def is_held_out(group: int) -> bool:
    return holdout.is_held_out_by_rank(holdout.keyed_rank(group, SECRET))


def known(
    seen: Set[int] = frozenset(), learned: Set[int] = frozenset(), splits: dict[int, bool] | None = None
) -> Known:
    return Known(seen=HashSet(seen), learned=HashSet(learned), splits=splits or {}, secret=SECRET)


def choose(keys: list[int], what: Known, *, saliences: list[float] | None = None, **changes: Any) -> Selection:
    settings: dict[str, Any] = {
        "min_salience": 0.6,
        "max_experiences": 500,
        "max_holdout": 64,
        "replay_share": 0.5,
        "min_replayed": 0,
        "seed": 1,
    }
    return select(columns(keys, saliences=saliences), known=what, rule=SelectionRule(**(settings | changes)))


@given(st.sets(st.integers(0, 2**64 - 1), max_size=50), st.integers(0, 2**64 - 1))
def test_a_key_set_is_a_set(keys: set[int], probe: int) -> None:
    """Membership in the compact set is membership in the set."""
    compact = HashSet(keys)
    assert len(compact) == len(keys)
    assert all(key in compact for key in keys)
    assert (probe in compact) == (probe in keys)


def test_about_a_fifth_is_held_out() -> None:
    """Of 10,000 random groups 20 % ± 2 % are held out (a false alarm has a probability under 10^-6)."""
    generator = random.Random(3)
    held = sum(is_held_out(generator.getrandbits(64)) for _ in range(10_000))
    assert 1800 <= held <= 2200


@given(Groups)
def test_membership_does_not_depend_on_company(groups: list[int]) -> None:
    """A group that its hash holds out is held out in any buffer."""
    assert {g for g in groups if is_held_out(g)} <= holdout.divide(groups, {}, SECRET)


@given(Groups)
def test_five_different_eligible_are_enough(groups: list[int]) -> None:
    """Among five or more different groups at least one is held out, and at least one is not."""
    held = holdout.divide(groups, {}, SECRET)
    if len(set(groups)) >= 5:
        assert held
    if len(groups) < 5:
        assert all(is_held_out(group) for group in held)


@given(Groups, st.randoms())
def test_a_recorded_side_is_for_ever(groups: list[int], chance: random.Random) -> None:
    """What earlier cycles recorded outranks the hash, both ways."""
    splits = {group: chance.random() < 0.5 for group in groups if chance.random() < 0.7}
    held = holdout.divide(groups, splits, SECRET)
    for group in groups:
        if group in splits:
            assert (group in held) == splits[group]


@given(Groups, st.data())
def test_roles_never_overlap(keys: list[int], data: st.DataObject) -> None:
    """Train, replay and holdout are disjoint, and no held-out group is in the first two."""
    keys = list(dict.fromkeys(keys))
    learned = set(data.draw(st.lists(st.sampled_from(keys)))) if keys else set()
    chosen = choose(keys, known(learned=learned))
    train, replay, measured = set(chosen.train), set(chosen.replay), set(chosen.holdout)
    assert not train & replay
    assert not (train | replay) & holdout.divide(keys, {}, SECRET)
    assert measured <= holdout.divide(keys, {}, SECRET)
    assert not train & learned
    assert replay <= learned


@given(Groups, st.data())
def test_measured_was_never_trained(groups: list[int], data: st.DataObject) -> None:
    """Neither what was learned nor a copy of what is trained is measured on, whatever side it came to later."""
    keys = list(range(len(groups)))
    learned = set(data.draw(st.lists(st.sampled_from(keys)))) if keys else set()
    texts = [data.draw(st.integers(0, 9)) for _ in keys]
    buffer = columns(keys, groups=groups)
    buffer.groups = array("Q", texts)
    rule = SelectionRule(min_salience=0, max_experiences=9, max_holdout=9, replay_share=1, min_replayed=0, seed=0)
    chosen = select(buffer, known=known(learned=learned), rule=rule)
    assert not learned & set(chosen.holdout)
    assert not {texts[key] for key in chosen.train + chosen.replay} & {texts[key] for key in chosen.holdout}


def test_all_of_held_out_conversations_are_known() -> None:
    """Also of those that are not measured on: recorded ones, and those that the hash holds out."""
    keys = list(range(40))
    splits = {number: number % 2 == 0 for number in range(10)}
    held = set(held_out_keys(columns(keys, saliences=[-1.0] * 40), known(splits=splits)))
    assert held == {key for key in keys if (splits[key] if key in splits else is_held_out(key))}
    assert len(held) > 5


def test_released_conversations_may_be_shown() -> None:
    """What the cycle trains of a conversation that was held out shows the replies before it."""
    splits = dict.fromkeys(range(4), True)
    buffer = columns([10, 11, 12, 13], groups=[0, 0, 2, 3])
    assert set(held_out_keys(buffer, known(splits=splits), {11})) == {12, 13}


def test_low_salience_is_only_counted() -> None:
    """Below min_salience an experience counts as present and new, and is used for nothing."""
    keys = list(range(1, 11))
    chosen = choose(keys, known(), saliences=[0.5] * 10)
    assert (chosen.train, chosen.replay, chosen.holdout) == ([], [], [])
    figures = count(columns(keys, saliences=[0.5] * 10), known=known(), min_salience=0.6)
    assert (figures.total, figures.new, figures.eligible, figures.unlearned) == (10, 10, 0, 0)


def test_most_salient_are_preferred() -> None:
    """Of more than max_experiences the most salient are trained, and the rest stays unlearned for the next cycle."""
    held = next(key for key in range(1, 200) if is_held_out(key))
    keys = [*[key for key in range(1, 200) if not is_held_out(key)][:50], held]
    saliences = [0.6 + index / 1000 for index in range(51)]
    chosen = choose(keys, known(), saliences=saliences, max_experiences=10)
    assert chosen.train == keys[40:50]
    later = choose(keys, known(learned=set(chosen.train)), saliences=saliences, max_experiences=100)
    assert later.train == keys[:40]
    assert len(later.replay) == 10


def test_new_means_unseen_by_judged_cycle() -> None:
    """A buffer cleaned from 333 to 328 that then gained 3 has 3 new ones, whatever its length was before."""
    before = list(range(1, 334))
    now = [*range(6, 334), 1001, 1002, 1003]
    assert count(columns(now), known=known(seen=set(before)), min_salience=0.6).new == 3


def test_copies_are_measured_once() -> None:
    """Five ids with one text are one group: all on one side, and counted once in the measurement."""
    group = next(g for g in range(1000) if is_held_out(g))
    keys = [1, 2, 3, 4, 5]
    rule = SelectionRule(min_salience=0.6, max_experiences=9, max_holdout=9, replay_share=0.0, min_replayed=0, seed=0)
    chosen = select(columns(keys, groups=[group] * 5), known=known(), rule=rule)
    assert chosen.train == []
    assert chosen.holdout == [1]


def test_few_new_do_not_displace_old() -> None:
    """Beside two new ones eight old ones are replayed, or as many as there are."""
    held = next(key for key in range(1, 300) if is_held_out(key))
    keys = [held, *[key for key in range(1, 300) if not is_held_out(key)][:30]]
    assert len(choose(keys, known(learned=set(keys[3:])), min_replayed=8).replay) == 8
    assert len(choose(keys[:6], known(learned=set(keys[3:6])), min_replayed=8).replay) == 3


def test_retraining_replays_the_lineage() -> None:
    """An infinite share takes every learned one, however few are new, and never more than one cycle may have."""
    held = next(key for key in range(1, 300) if is_held_out(key))
    keys = [*[key for key in range(1, 300) if not is_held_out(key)][:60], held]
    everything = choose(keys, known(learned=set(keys[1:])), replay_share=math.inf, max_experiences=500)
    assert everything.replay == keys[1:-1]
    assert len(choose(keys, known(learned=set(keys[1:])), replay_share=math.inf, max_experiences=20).replay) == 20


@pytest.mark.parametrize("seed", [1, 2])
def test_seed_decides_replay_sample(seed: int) -> None:
    """The same cycle chooses the same sample; another one chooses another."""
    keys = [key for key in range(1, 300) if not is_held_out(key)]
    learned = set(keys[:100])
    once, again = choose(keys, known(learned=learned), seed=seed), choose(keys, known(learned=learned), seed=seed)
    assert once.replay == again.replay
    assert once.replay != choose(keys, known(learned=learned), seed=seed + 1).replay


@pytest.mark.parametrize(
    ("held_out", "recorded", "expected"),
    [
        (range(13), range(13), {0}),
        (range(20), range(20), set(range(8))),
        (range(12), range(12), set()),
        (range(20), range(3), {0, 1, 2}),
        (range(20), range(8, 20), set()),
        (range(20), (), set()),
        ([*range(13), 0], range(13), {1}),
        ([0, 0, 0, *range(12)], range(12), set()),
    ],
    ids=[
        "the oldest beyond twelve",
        "all beyond twelve",
        "twelve stay",
        "only what has judged",
        "the twelve youngest stay",
        "nothing has judged",
        "a group that grew is young",
        "a group counts once",
    ],
)
def test_oldest_judges_are_released(held_out: Sequence[int], recorded: Iterable[int], expected: set[int]) -> None:
    """A group that has judged is released, oldest first, once twelve younger ones are held out."""
    assert holdout.released(held_out, dict.fromkeys(recorded, True)) == expected


def test_released_experiences_are_trained() -> None:
    """What is released counts as unlearned, and the next cycle trains it; the others go on judging."""
    held = [key for key in range(1, 1000) if is_held_out(key)][:15]
    keys = [*held, 2000]
    recorded = known(splits=dict.fromkeys(held, True) | {2000: False}, learned={2000})
    chosen = choose(keys, recorded)
    assert chosen.train == held[:3]
    assert chosen.holdout == held[3:]
    figures = count(columns(keys), known=recorded, min_salience=0.6)
    assert (figures.unlearned, figures.held_out) == (3, 12)


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=12), st.randoms())
def test_nothing_trained_ever_judges(nights: list[tuple[int, bool]], chance: random.Random) -> None:
    """Whatever is promoted, rejected or rolled back, no cycle measures on what an earlier cycle or itself trained."""
    keys: list[int] = []
    trained: set[int] = set()
    measured: set[int] = set()
    lineage: set[int] = set()
    for arrived, is_promoted in nights:
        keys += [chance.getrandbits(64) for _ in range(arrived)]
        splits = Splits(held_out=measured - trained, trained=trained)
        chosen = choose(keys, Known(seen=HashSet(), learned=HashSet(lineage), splits=splits, secret=SECRET))
        trained |= {*chosen.train, *chosen.replay}
        measured |= set(chosen.holdout)
        assert not trained & set(chosen.holdout)
        if is_promoted:
            lineage |= set(chosen.train)
        elif chance.random() < 0.5:
            lineage = set()  # rolled back to the base


def test_waiting_for_judgement_is_bounded() -> None:
    """With sixteen new experiences a night nothing is held out for more than twelve nights, and twelve are kept."""
    chance = random.Random(5)
    keys: list[int] = []
    trained: set[int] = set()
    measured: dict[int, int] = {}
    for night in range(40):
        keys += [chance.getrandbits(64) for _ in range(16)]
        splits = Splits(held_out=measured.keys() - trained, trained=trained)
        chosen = choose(keys, Known(seen=HashSet(), learned=HashSet(trained), splits=splits, secret=SECRET))
        trained |= set(chosen.train)
        for key in chosen.holdout:
            measured.setdefault(key, night)
            assert night - measured[key] <= 12
        assert night < 12 or len(chosen.holdout) >= 12
