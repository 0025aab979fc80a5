"""Tests of how many short replies are held out."""

from __future__ import annotations

import msgspec
import pytest

from sleepd.buffer.experience import Experience, content_hash_of
from sleepd.policy.selecting.facts import SHORT_CHARACTERS, divide_facts
from sleepd.policy.selecting.superseded import divided
from sleepd.protocol.chat_example import Message
from sleepd.protocol.job import Role

SECRET = bytes(32)
Taken = list[tuple[Experience, Role]]


def told(held_out: int, trained: int, *, role: Role = "train") -> Taken:
    """So many facts that are held out, then so many that are not."""
    roles: list[Role] = ["holdout" if n < held_out else role for n in range(held_out + trained)]
    return [
        (Experience(id=f"fact{n}", prompt=f"Where is thing {n}?", response=f"In room {n}.", salience=0.8), each)
        for n, each in enumerate(roles)
    ]


def ids(found: Taken, role: Role = "holdout") -> list[str]:
    return [one.id for one, each in found if each == role]


@pytest.mark.parametrize(
    ("held_out", "trained", "judging"),
    [(0, 9, 0), (6, 3, 6), (0, 10, 3), (1, 9, 3), (6, 14, 4), (2, 18, 4), (0, 25, 5), (12, 88, 5), (5, 95, 5)],
)
def test_few_facts_are_held_out(held_out: int, trained: int, judging: int) -> None:
    """Of ten or more a fifth, at least three and at most five; of fewer those that were."""
    found = told(held_out, trained)
    after = divide_facts(found, {}, SECRET)
    assert len(ids(after)) == judging
    assert [one for one, _ in after] == [one for one, _ in found]


def test_oldest_facts_are_released() -> None:
    """Of the held-out ones the newest judge on, and the others are trained."""
    after = divide_facts(told(12, 20), {}, SECRET)
    assert ids(after) == [f"fact{n}" for n in range(7, 12)]
    assert set(ids(after, "train")) >= {f"fact{n}" for n in range(7)}


def test_only_untrained_facts_are_held_out() -> None:
    """What a cycle has trained, what is replayed, and what answers a prompt that is asked twice, is not held out."""
    found = told(0, 12)
    recorded = {content_hash_of(one): False for one, _ in found[:6]}
    again = [(msgspec.structs.replace(one, id=f"again{one.id}"), role) for one, role in found[6:10]]
    assert ids(divide_facts([*found, *again], recorded, SECRET)) in (["fact10", "fact11"], ["fact11", "fact10"])
    assert ids(divide_facts(told(0, 12, role="replay"), {}, SECRET)) == []


def test_who_writes_cannot_choose() -> None:
    """Which facts are held out beyond their ranks depends on the secret."""
    assert ids(divide_facts(told(0, 40), {}, SECRET)) != ids(divide_facts(told(0, 40), {}, b"x" * 32))


def test_other_replies_keep_their_side() -> None:
    """Long replies, and replies of a conversation, are held out as their ranks say."""
    long = [(msgspec.structs.replace(one, response="x" * SHORT_CHARACTERS), role) for one, role in told(8, 8)]
    spoken = [(msgspec.structs.replace(one, conversation="00000000000000aa"), role) for one, role in told(8, 8)]
    before = (Message(role="user", text="a"), Message(role="assistant", text="b"))
    later = [(msgspec.structs.replace(one, context=before), role) for one, role in told(8, 8)]
    for found in (long, spoken, later):
        assert divide_facts(found, {}, SECRET) == found


def test_released_fact_may_be_corrected() -> None:
    """A held-out reply whose older value is released is trained with it: otherwise the old value would be learned."""
    found = told(5, 15)
    new = msgspec.structs.replace(found[0][0], id="newer", response="In the shed.")
    after = divided([*found, (new, "holdout")], {}, SECRET)
    assert {"fact0", "newer"} <= set(ids(after, "train"))
