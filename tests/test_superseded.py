"""Tests of learned replies that newer ones contradict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sleepd.buffer.experience import Experience
from sleepd.policy.selecting.superseded import (
    MOST_VALUES,
    SHORT_CHARACTERS,
    SHOWN,
    Superseded,
    corrections,
    superseded,
    superseded_text,
)
from sleepd.protocol.chat_example import Message
from sleepd.protocol.job import Role
from tests.agents import experiences, write_buffer
from tests.kept import kept
from tests.stages import Stage

KEY = "Where is the key?"


def told(id_: str, reply: str, role: Role, prompt: str = KEY) -> tuple[Experience, Role]:
    return Experience(id=id_, prompt=prompt, response=reply, salience=0.8), role


CHAPEL, SHED = "It is in the chapel.", "It is in the shed now."
LONG = SHED.ljust(SHORT_CHARACTERS, "!")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], []),
        ([told("a", CHAPEL, "replay"), told("b", SHED, "train")], [("a", "b")]),
        ([told("a", CHAPEL, "replay"), told("b", SHED, "replay")], [("a", "b")]),
        ([told("a", CHAPEL, "replay"), told("b", CHAPEL, "replay")], []),
        ([told("a", CHAPEL, "train"), told("b", SHED, "train")], [("a", "b")]),
        ([told("a", CHAPEL, "replay"), told("b", SHED, "holdout")], []),
        ([told("a", CHAPEL, "replay"), told("b", SHED, "train", "Where is the axe?")], []),
        ([told("a", CHAPEL, "replay"), told("b", SHED, "train", "where is  the KEY?")], [("a", "b")]),
        ([told("a", CHAPEL, "replay"), told("b", LONG, "train")], []),
        ([told("a", LONG, "replay"), told("b", SHED, "train")], []),
        ([told("a", SHED, "replay"), told("b", CHAPEL, "replay"), told("c", SHED, "train")], [("b", "c")]),
    ],
    ids=[
        "nothing",
        "told otherwise",
        "both learned",
        "told again",
        "both new",
        "only held out",
        "another prompt",
        "the same prompt in other letters",
        "a long new reply",
        "a long old reply",
        "told back",
    ],
)
def test_older_contradicted_replies_are_found(
    found: list[tuple[Experience, Role]], expected: list[tuple[str, str]]
) -> None:
    """A trained short reply is superseded by the newest short reply to its prompt, if that says something else."""
    assert superseded(found) == [Superseded(*each) for each in expected]


def test_reply_within_conversation_stays() -> None:
    """What rests on earlier replies may differ each time it is asked."""
    older = told("a", CHAPEL, "replay")
    context = (Message(role="user", text="Hello"), Message(role="assistant", text="Hi"), Message(role="user", text=KEY))
    newer = Experience(id="b", prompt=KEY, response=SHED, salience=0.8, context=context)
    assert superseded([older, (newer, "train")]) == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([told("a", CHAPEL, "replay"), told("b", SHED, "holdout")], {"b"}),
        ([told("a", CHAPEL, "train"), told("b", SHED, "holdout")], {"b"}),
        ([told("a", CHAPEL, "replay"), told("b", CHAPEL, "holdout")], set()),
        ([told("b", SHED, "holdout"), told("a", CHAPEL, "replay")], set()),
        ([told("a", CHAPEL, "holdout"), told("b", SHED, "holdout")], set()),
        ([told("a", CHAPEL, "replay"), told("b", LONG, "holdout")], set()),
        ([told("a", CHAPEL, "replay"), told("b", SHED, "holdout"), told("c", SHED, "holdout")], {"b"}),
        ([told("a", CHAPEL, "replay"), told("b", SHED, "holdout"), told("c", CHAPEL, "holdout")], {"b", "c"}),
    ],
)
def test_corrections_are_not_held_out(found: list[tuple[Experience, Role]], expected: set[str]) -> None:
    """A held-out short reply that contradicts an older trained one, or an older correction, is to be trained; where it
    is all that is held out, it stays.
    """
    assert corrections([*found, told("z", "Rain.", "holdout", "What falls?")]) == expected
    assert corrections([each for each in found if each[0].id in {"a", *expected}]) == set()


@pytest.mark.parametrize(("ways", "is_fact"), [(MOST_VALUES, True), (MOST_VALUES + 1, False)])
def test_prompt_with_many_answers_states_none(ways: int, is_fact: bool) -> None:
    """What is answered in more ways than a fact is changes by its nature; a long reply is none of these ways."""
    trained = [told(f"a{number}", f"It is {number}.", "train") for number in range(ways)]
    found = [told("long", LONG, "train"), *trained]
    assert len(superseded(found)) == (ways - 1 if is_fact else 0)
    held_out = [told(f"a{number}", f"It is {number}.", "holdout") for number in range(1, ways)]
    rain = told("z", "Rain.", "holdout", "What falls?")
    assert len(corrections([*found[:2], *held_out, rain])) == (ways - 1 if is_fact else 0)


def test_system_message_is_no_conversation() -> None:
    """A reply that no earlier reply precedes states a fact, whatever else stands before it."""
    context = (Message(role="system", text="You keep keys."), Message(role="user", text="Hello"))
    older = Experience(id="a", prompt=KEY, response=CHAPEL, salience=0.8, context=context)
    newer = Experience(id="b", prompt=KEY, response=SHED, salience=0.8, context=context)
    assert superseded([(older, "replay"), (newer, "train")]) == [Superseded("a", "b")]


def test_correction_keeps_the_conversations_side() -> None:
    """A held-out reply of a conversation stays held out with it."""
    newer = Experience(id="b", prompt=KEY, response=SHED, salience=0.8, conversation="0" * 16)
    found = [told("a", CHAPEL, "replay"), (newer, "holdout"), told("z", "Rain.", "holdout", "What falls?")]
    assert corrections(found) == set()


def test_report_names_superseded() -> None:
    """The sentence has the number and the first five pairs."""
    old = [Superseded(f"a{n}", f"b{n}") for n in range(7)]
    said = superseded_text(old)
    assert said == kept("superseded", said)
    assert " more" not in superseded_text(old[:SHOWN])


def test_contradicted_reply_is_not_replayed(tmp_path: Path) -> None:
    """A fact that was learned and is told otherwise: the next cycle trains the new reply without the old one, and its
    job says so, also where the old one has left the buffer.
    """
    stage = Stage(tmp_path)
    stage.write(20)
    stage.sleep()
    stage.clock.advance(7 * 3600)
    trained = json.loads((stage.state / "cycle_001/lineage.json").read_text())["trained"]
    old = {each["id"] for each in trained[:6]}
    told_anew = [
        {**record, "id": f"new{record['id']}", "response": f"No longer so: {record['id']}."}
        for record in experiences(20)
        if record["id"] in old
    ]
    write_buffer(stage.buffer, [*experiences(10, start=20), *told_anew])
    stage.sleep()
    lineage = json.loads((stage.state / "cycle_002/lineage.json").read_text())
    taught = {each["id"] for each in lineage["trained"]}
    replayed = {each["id"] for each in lineage["replayed"]}
    contradicted = {each for each in old if f"new{each}" in taught}
    assert contradicted
    assert not contradicted & replayed
    assert {each["id"] for each in trained} - contradicted == replayed
