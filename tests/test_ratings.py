"""Tests of the ratings that come after the replies: what a line says, what it may not be, and how much is read."""

from __future__ import annotations

import io
import json
import math
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.learnables import ReadSettings
from sleepd.buffer.rating import ratings
from sleepd.buffer.rating.rating_names import REJECTED, WHOLE, rating_key
from sleepd.buffer.rating.ratings import Ratings, read_ratings
from tests.faults.mutations import mutated_lines
from tests.format_samples import ANSWER, ASKED, attributes, learned, span, spans

LINES = [
    {"id": "a", "rating": 1},
    {"id": 7, "rating": "Thumbs Up"},
    {"conversation": "c", "turn": 2, "salience": 0.25},
    {"conversation": "c", "rating": False},
]
SCORE = {"id": "s", "trace_id": "t", "observation_id": "o", "name": "user", "data_type": "NUMERIC", "value": 1}


def read(*records: Any) -> Ratings:
    return read_ratings(
        [("feedback.jsonl", io.BytesIO(b"".join(json.dumps(each).encode() + b"\n" for each in records)))]
    )


def test_feedback_names_a_reply() -> None:
    """By its id, or by its conversation and number; without a number it counts for the whole conversation."""
    found = read(*LINES)
    assert found.by_key == {
        "a": 1.0,
        "7": 1.0,
        rating_key("c", 2): 0.25,
        rating_key("c", WHOLE): REJECTED,
    }
    assert found.skipped == []


def test_last_feedback_wins() -> None:
    """The last line about a reply counts, whichever file it stands in; 0 and null withdraw those before."""
    assert read({"id": "a", "rating": 1}, {"id": "a", "rating": -1}).by_key == {"a": REJECTED}
    for nothing in (0, None):
        assert read({"id": "a", "rating": 1}, {"id": "a", "rating": nothing}).by_key == {}
    two = [(name, io.BytesIO(json.dumps({"id": "a", "rating": each}).encode())) for name, each in (("x", 1), ("y", -1))]
    assert read_ratings(two).by_key == {"a": REJECTED}


def test_feedback_changes_salience() -> None:
    """What is read is what the reader of the conversations takes: number 2 of the conversation is rated down."""
    record = {"conversation": "c", "messages": [ASKED, ANSWER, {**ASKED, "content": "Sure?"}, ANSWER, ASKED, ANSWER]}
    settings = ReadSettings(ratings=read({"conversation": "c", "turn": 2, "rating": -1}).by_key)
    assert [each.salience for each in learned([record], settings)] == [0.7, REJECTED, 0.7]
    whole = ReadSettings(
        ratings=read({"conversation": "c", "rating": -1}, {"conversation": "c", "turn": 2, "rating": 1}).by_key
    )
    assert [each.salience for each in learned([record], whole)] == [REJECTED, 1.0, REJECTED]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (5, "line: expected an object"),
        ({"rating": 1}, "expected an id, or a conversation and a turn"),
        ({"id": "a"}, "expected a rating or a salience"),
        ({"id": ["a"], "rating": 1}, "expected an id, or a conversation and a turn"),
        ({"id": "a", "rating": 4}, "rating: expected 1, -1 or a word"),
        ({"id": "a", "rating": 0.5}, "rating: expected 1, -1 or a word"),
        ({"id": "a", "rating": "so so"}, "rating: expected 1, -1 or a word"),
        ({"id": "a", "salience": 2}, "salience: expected a number from 0 to 1"),
        ({"conversation": "c", "turn": 0, "rating": 1}, "turn: expected a number from 1"),
        ({"conversation": "c", "turn": True, "rating": 1}, "turn: expected a number from 1"),
        ({**SCORE, "source": "EVAL"}, "source: a model gave this score"),
        ({**SCORE, "value": 5}, "value: expected a number up to 1"),
        ({**SCORE, "data_type": "TEXT", "value": 1}, "value: expected a number up to 1"),
        ({**SCORE, "trace_id": None, "observation_id": None}, "observation_id, trace_id: expected text"),
    ],
)
def test_wrong_line_is_named(record: Any, reason: str) -> None:
    """A line that says nothing usable is skipped with file, line and reason; the others count."""
    found = read({"id": "x", "rating": 1}, record, {"id": "y", "rating": 1})
    assert found.by_key == {"x": 1.0, "y": 1.0}
    assert [each.position for each in found.skipped] == ["feedback.jsonl line 2"]
    assert found.skipped[0].reason.startswith(reason)


@pytest.mark.parametrize(
    ("score", "salience"),
    [
        ({"value": 1}, 1.0),
        ({"value": 0.4}, 0.4),
        ({"value": 0}, REJECTED),
        ({"value": -1}, REJECTED),
        ({"data_type": "BOOLEAN", "value": 0, "string_value": "False"}, REJECTED),
        ({"data_type": "BOOLEAN", "value": 1, "string_value": "True"}, 1.0),
        ({"data_type": "CATEGORICAL", "value": None, "string_value": "positive"}, 1.0),
        ({"data_type": "CATEGORICAL", "value": "thumbs-down"}, REJECTED),
    ],
)
def test_langfuse_score_becomes_salience(score: dict[str, Any], salience: float) -> None:
    """A number is the salience itself, and 0 or less is a reply rated down; a category is a word."""
    assert read({**SCORE, **score}).by_key == {"o": salience}


def test_langfuse_scores_are_joined() -> None:
    """Of each name the last score counts, and of several names the least; without an observation it rates the trace."""
    later = {**SCORE, "id": "s2", "value": 0.9}
    other = {**SCORE, "name": "tone", "value": 0.5}
    assert read({**SCORE, "value": -1}, later, other).by_key == {"o": 0.5}
    assert read({**SCORE, "observation_id": None}).by_key == {rating_key("t", WHOLE): 1.0}
    camel = {"traceId": "t", "observationId": "o", "dataType": "NUMERIC", "value": 1}
    assert read(camel).by_key == {"o": 1.0}


def log_line(**changed: Any) -> dict[str, Any]:
    """A line of a collector's log file with one evaluation."""
    values = {"gen_ai__evaluation__name": "Help", "gen_ai__evaluation__score__label": "fail", **changed}
    log = {"eventName": "gen_ai.evaluation.result", "spanId": "00f1", "attributes": attributes(**values)}
    other = {"eventName": "something.else", "attributes": []}
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [other, log]}]}]}


def test_otel_evaluations_are_ratings() -> None:
    """Evaluations that come as log records rate a response and a span; of several names the least counts."""
    named = {"gen_ai__response__id": "r-1"}
    passed = log_line(**named, gen_ai__evaluation__score__label="pass")
    assert read(log_line(**named), passed).by_key == {"r-1": 1.0, "00f1": 1.0}
    found = read(log_line(**named, gen_ai__evaluation__name="Truth"), passed).by_key
    assert found == {"r-1": REJECTED, "00f1": REJECTED}
    for key in found:
        assert learned([spans(span())], ReadSettings(ratings={key: REJECTED}))[0].salience == REJECTED
    blue = read(log_line(gen_ai__evaluation__score__label="blue"))
    assert (blue.by_key, [one.reason[:29] for one in blue.skipped]) == ({}, ["gen_ai.evaluation.score: expe"])


def test_torn_line_is_named() -> None:
    """A last line that is not whole, stray bytes and a line that is too long are named; the rest counts."""
    data = b'{"id":"a","rating":1}\n\xff\xfe\n\n"' + b"x" * (2**20 + 5) + b'"\n{"id":"b","rating":1}\n{"id":"c","rat'
    found = read_ratings([("f", io.BytesIO(data))])
    assert found.by_key == {"a": 1.0, "b": 1.0}
    assert [each.position for each in found.skipped] == ["f line 2", "f line 4", "f line 6"]


def test_last_line_may_lack_its_end() -> None:
    """A whole last line counts although no line end follows."""
    assert read_ratings([("f", io.BytesIO(b'{"id":"a","rating":1}'))]).by_key == {"a": 1.0}


def test_ratings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many ratings and so many bytes are read, and what is left is named; a known reply can still be rated anew."""
    monkeypatch.setattr(ratings, "MOST_RATINGS", 3)
    found = read(*({"id": str(number), "rating": 1} for number in range(5)), {"id": "0", "rating": -1})
    assert found.by_key == {"0": REJECTED, "1": 1.0, "2": 1.0}
    assert len(found.skipped) == 2
    monkeypatch.setattr(ratings, "MOST_BYTES", 60)
    found = read(*({"id": str(number), "rating": 1} for number in range(9)))
    assert len(found.by_key) == 2
    assert [each.position for each in found.skipped] == ["feedback.jsonl line 3"]


@given(seed=st.integers(0, 2**32))
def test_damaged_feedback_is_read_or_named(seed: int) -> None:
    """Whatever was changed, what comes out are saliences under usable keys, and reasons that can be shown."""
    random = Random(seed)
    scores = [SCORE, {**SCORE, "data_type": "CATEGORICAL", "string_value": "good"}, log_line()]
    data = mutated_lines(random, b"".join(json.dumps(each).encode() + b"\n" for each in (*LINES, *scores)))
    found = read_ratings([("f", io.BytesIO(data))])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Ratings) == found
    assert all(each == REJECTED or (math.isfinite(each) and 0 <= each <= 1) for each in found.by_key.values())
    assert all(each.reason.isprintable() and len(each.reason) < 250 for each in found.skipped)
