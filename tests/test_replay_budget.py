"""Tests of which learned experiences a cycle replays, where a budget has no room for all."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.experience import Experience, id_hash
from sleepd.cycles.running.planning import Order
from sleepd.policy.selecting.replay_budget import (
    CHARACTERS_A_TOKEN,
    TOKENS_AROUND,
    ReplayBudget,
    beyond_budget,
    by_worth,
    draw,
    estimated_tokens,
    left_out_text,
    lost_ids,
    most_worthwhile,
)
from sleepd.protocol.chat_example import Message
from sleepd.protocol.evidence import LossPair
from sleepd.protocol.job import Job, Role, decode_examples
from tests.agents import changed
from tests.kept import kept
from tests.stages import OpenSleeper, Stage

COST = 50
"""Of each experience below, in tokens."""


def experience(number: int, role: Role = "replay", tokens: int = COST) -> tuple[Experience, Role]:
    reply = "x" * ((tokens - TOKENS_AROUND) * CHARACTERS_A_TOKEN - len("ask"))
    return Experience(id=f"e{number}", prompt="ask", response=reply, salience=0.8), role


def budget(tokens: int, longest: int = 2048, before: int = 0, lost: frozenset[str] = frozenset()) -> ReplayBudget:
    return ReplayBudget(tokens=tokens, longest=longest, trained_before=before, lost=lost)


OLD = [experience(number) for number in range(20)]
NEW = [experience(number, "train") for number in range(20, 24)]
JUDGING = [experience(24, "holdout")]


async def staged(sleeper: OpenSleeper) -> tuple[Job, int]:
    """The job of the third cycle, and how many experiences the lineage learned before it."""
    await sleeper.refresh()
    await sleeper.begin(Order())
    job = (sleeper.parts.checkpoints.staging_path(3) / "work/job.json").read_bytes()
    return msgspec.json.decode(job, type=Job), len(sleeper.parts.ledger.learned(2))


@pytest.mark.parametrize(
    ("found", "given_", "replayed"),
    [
        ([], budget(1000), 0),
        (OLD, budget(20 * COST), 20),
        (OLD, budget(20 * COST - 1), 19),
        (OLD, budget(10 * COST), 10),
        (OLD, budget(COST - 1), 0),
        ([*OLD, *NEW, *JUDGING], budget(10 * COST), 10),
        ([experience(0, tokens=9000), *OLD[1:11]], budget(10 * COST), 10),
        ([experience(0, tokens=9000)], budget(2048), 1),
        ([experience(0, tokens=9000)], budget(2047), 0),
        (OLD, budget(COST, before=10), 8),
        ([*OLD, *NEW], budget(COST, before=10), 4),
        ([*OLD, *NEW], budget(COST, before=5), 1),
        (OLD, budget(COST, before=100), 20),
        (OLD, budget(10 * COST, before=10), 10),
    ],
    ids=[
        "nothing learned",
        "room for all",
        "one too many",
        "room for half",
        "room for none",
        "new and held-out ones count for nothing",
        "what is too long is passed over",
        "a long one costs what it is cut to",
        "a long one has no room",
        "four fifths of the champion's",
        "new ones are among these",
        "new ones are enough",
        "fewer are there",
        "the budget has room for more than these",
    ],
)
def test_budget_limits_what_is_replayed(
    found: list[tuple[Experience, Role]], given_: ReplayBudget, replayed: int
) -> None:
    """So many learned experiences stay; nothing else is ever left out."""
    left_out = beyond_budget(found, given_)
    assert sum(role == "replay" and one.id not in left_out for one, role in found) == replayed
    assert left_out <= {one.id for one, role in found if role == "replay"}


def test_half_of_the_budget_is_recent() -> None:
    """Of ten that stay among twenty at least five are the newest; the others are of all ages."""
    left_out = beyond_budget(OLD, budget(10 * COST))
    stay = {one.id for one, _ in OLD} - left_out
    assert {"e19", "e18", "e17", "e16", "e15"} <= stay
    assert stay & {f"e{number}" for number in range(10)}


@pytest.mark.parametrize(("tokens", "facts", "long"), [(4000, 10, 20), (800, 10, 2), (480, 8, 1), (160, 4, 0)])
def test_facts_have_half_of_the_budget(tokens: int, facts: int, long: int) -> None:
    """Of facts of 40 tokens that are older than long replies of 160, as many stay as half of the budget has room for,
    and of the others those that fit into what the long ones leave.
    """
    told = [experience(number, tokens=40) for number in range(10)]
    later = [experience(number, tokens=160) for number in range(10, 30)]
    left_out = beyond_budget([*told, *later], budget(tokens))
    stay = [sum(one.id not in left_out for one, _ in part) for part in (told, later)]
    assert stay == [facts, long]


def test_lost_ones_come_first() -> None:
    """What the champion lost is replayed before newer ones, also where there is room for nothing else."""
    lost = frozenset({"e3", "e7", "not learned"})
    assert {one.id for one, _ in OLD} - beyond_budget(OLD, budget(2 * COST, lost=lost)) == {"e3", "e7"}
    assert "e7" not in beyond_budget(OLD, budget(COST, lost=lost))


@pytest.mark.parametrize(("parent", "candidate", "is_lost"), [(1.0, 1.2, True), (1.0, 1.05, False), (1.0, 0.5, False)])
def test_grown_loss_is_a_loss(parent: float, candidate: float, is_lost: bool) -> None:
    """A replayed reply is lost where the cycle made it less likely by more than a tenth of a nat a token."""
    pair = LossPair(id="e1", tokens=9, base=3.0, parent=parent, candidate=candidate)
    assert lost_ids([pair]) == ({"e1"} if is_lost else frozenset())


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.floats(0, 1)), max_size=40), st.integers(0, 50))
def test_few_of_many_are_the_first(rows: list[tuple[int, float]], most: int) -> None:
    """Chosen without looking at all orders, they are the first ones of the order of all."""
    places = list(range(100, 100 + len(rows)))
    found = most_worthwhile(places, lambda place: rows[place - 100], most)
    assert found == [100 + place for place in by_worth(rows)[:most]]


def test_salient_ones_stay_oftener() -> None:
    """Of two thousand, half with twice the salience, the hundred smallest draws are two to one of the salient half."""
    keys = [(id_hash(f"e{number}"), 0.9 if number % 2 else 0.45) for number in range(2000)]
    salient = sum(salience == 0.9 for _, salience in sorted(keys, key=lambda row: draw(*row))[:100])
    assert 55 <= salient <= 78


def test_the_same_stay_as_more_come() -> None:
    """What a cycle left out stays out as more come, so that an adapter does not forget something else each time."""
    found = [experience(number) for number in range(60)]
    left_out: set[str] = set()
    for size in accumulate([12] * 5):
        now = beyond_budget(found[:size], budget(12 * COST))
        assert left_out <= now
        left_out = now
    assert len(left_out) == 48


def test_context_costs_tokens_too() -> None:
    """All that goes through the model counts, so a reply within a long conversation costs more."""
    alone = Experience(id="a", prompt="ask", response="so it is", salience=0.8)
    within = Experience(
        id="a", prompt="ask", response="so it is", salience=0.8, context=(Message(role="user", text="y" * 400),)
    )
    assert estimated_tokens(within) > estimated_tokens(alone) + 90


@pytest.mark.parametrize("most", [500, 18])
def test_next_cycle_keeps_to_the_budget(tmp_path: Path, most: int) -> None:
    """A lineage that the budget has no room for, or a cycle none, is replayed in part, and the job says how much of it
    is not.
    """
    stage = Stage(tmp_path)
    stage.config = changed(stage.config, "training", replay_tokens=1000)
    stage.make_champions(25, 50)
    stage.write(70)
    stage.config = changed(stage.config, "training", max_experiences=most)
    job, learned = stage.play(staged)
    examples = decode_examples((Path(job.staging) / "work/experiences.jsonl").read_bytes())
    costs = [TOKENS_AROUND + one.characters // CHARACTERS_A_TOKEN for one in examples if one.role == "replay"]
    assert sum(costs) <= 1000
    assert len(costs) == most or sum(costs) > 1000 - max(costs)
    assert job.unreplayed == left_out_text(learned - len(costs), len(costs), 1000)


def test_report_says_what_is_left_out() -> None:
    """The sentence has how many are not trained again, of how many, and the key that says so."""
    said = left_out_text(198, 45, 7000)
    assert said == kept("replay_limited", said)
