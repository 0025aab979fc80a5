"""Records as programs write them beside what their format says: what is whole is read, the rest is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sleepd.buffer.experience import Experience
from sleepd.buffer.learnables import HalfWritten
from sleepd.buffer.rating.rating_names import REJECTED
from tests.format_samples import ANSWER, ASKED, CALL, CALLED, RESULT, SYSTEM, spoken, understood, understood_file
from tests.tree_samples import chatgpt_export, open_webui

USE = {"type": "tool_use", "id": "t1", "name": "get_wind", "input": {"place": "Oban"}}
RESULT_BLOCK = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "12"}]}
BLOCKS = [
    {"role": "user", "content": [{"type": "text", "text": "How strong?"}]},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "I ask.", "signature": "s"}, USE]},
    {"role": "user", "content": [RESULT_BLOCK, {"type": "text", "text": "In knots."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Twelve."}]},
]
NO_TEXT = "it or what it answers is not there as text"


def replies(*records: Any) -> list[Experience]:
    """What is learned, where nothing is complained of."""
    found = understood(records)
    assert [each for each in found if isinstance(each, str)] == []
    return [each for each in found if isinstance(each, Experience)]


def reasons(*records: Any) -> list[str]:
    """Why something is not learned."""
    return [each for each in understood(records) if isinstance(each, str)]


def test_messages_of_blocks_are_read() -> None:
    """Messages in Anthropic's form are read with their calls, results and thoughts, and the system text beside them."""
    called, answered = replies({"system": [{"type": "text", "text": "Be brief."}], "messages": BLOCKS})
    assert spoken(called) == [
        ("system", "Be brief."),
        ("user", "How strong?"),
        ("assistant", '<think>\nI ask.\n</think>\n\n\nget_wind({"place":"Oban"})'),
    ]
    assert [role for role, _ in spoken(answered)] == ["system", "user", "assistant", "tool", "user", "assistant"]
    assert (answered.asked, answered.response) == ("In knots.", "Twelve.")


@pytest.mark.parametrize(
    ("system", "listed", "said"),
    [
        ("Be brief.", [ASKED, ANSWER], ["Be brief."]),
        ("Be brief.", [SYSTEM, ASKED, ANSWER], [SYSTEM["content"]]),
        ("Be brief.", [{**SYSTEM, "role": "developer"}, ASKED, ANSWER], [SYSTEM["content"]]),
        ({"os": "linux"}, [ASKED, ANSWER], []),
        (None, [ASKED, ANSWER], []),
    ],
)
def test_system_text_beside_messages_counts(system: Any, listed: list[Any], said: list[str]) -> None:
    """Only where no system message stands among them, and where it is a text."""
    (one,) = replies({"system": system, "messages": listed})
    assert [message.text for message in one.messages if message.role == "system"] == said


@pytest.mark.parametrize("role", ["assistant", "model", "gpt"])
def test_reply_by_another_role_is_learned(role: str) -> None:
    """Whatever word a program has for the assistant."""
    (one,) = replies({"messages": [ASKED, {**ANSWER, "role": role}]})
    assert one.response == ANSWER["content"]


@pytest.mark.parametrize("weight", [0, 0.0, -1, -0.5, False, "0", "0.0", " -1 ", "+0"])
def test_weight_of_nothing_is_context_only(weight: Any) -> None:
    """A weight of 0 or less, as a number or as text."""
    (one,) = replies({"messages": [ASKED, {**ANSWER, "weight": weight}, ASKED, {**ANSWER, "content": "Ten."}]})
    assert one.response == "Ten."
    assert len(one.messages) == 3


@pytest.mark.parametrize("weight", [1, 0.5, "1", "0.5", None, "x", ""])
def test_other_weight_is_learned(weight: Any) -> None:
    """Whatever else stands there."""
    assert len(replies({"messages": [ASKED, {**ANSWER, "weight": weight}]})) == 1


@pytest.mark.parametrize(
    ("rating", "salience"),
    [
        ("1", 1.0),
        ("+1", 1.0),
        (" -1 ", REJECTED),
        ("👍🏽", 1.0),
        ("👎\ufe0f", REJECTED),
        ("2", 0.7),
        ("-", 0.7),
        ("", 0.7),
    ],
)
def test_rating_as_text_counts(rating: str, salience: float) -> None:
    """A rating that was written as text, and a thumb of any colour."""
    chat = open_webui()
    chat["chat"]["history"]["messages"]["w2"]["annotation"] = {"rating": rating}
    assert {one.id: one.salience for one in replies(chat)}["dock/w2"] == salience


@pytest.mark.parametrize("part", [{"asset": 1}, {"image_url": "x"}, {"type": "image"}, {"type": "text"}, 7, None, {}])
def test_part_without_text_is_not_learned_from(part: Any) -> None:
    """A part of a message that holds no text is none, whatever it is: what answers it is not learned, and named."""
    asked = {"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}
    assert [NO_TEXT in reason for reason in reasons({"messages": [asked, ANSWER]})] == [True]
    chat = chatgpt_export()
    chat["mapping"]["g3"]["message"]["content"] = {"content_type": "multimodal_text", "parts": [part, "What is it?"]}
    found = understood([chat])
    assert NO_TEXT in str(found[0])
    assert [one.id for one in found if isinstance(one, Experience)] == ["slip/g9"]


def test_reply_of_no_text_among_others_is_named() -> None:
    """A reply that is an image alone is not left out in silence."""
    picture = {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    found = understood([{"messages": [ASKED, picture, ASKED, ANSWER]}])
    assert [each.partition(": ")[0] if isinstance(each, str) else each.response for each in found] == [
        "reply 1",
        ANSWER["content"],
    ]


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ([ASKED, RESULT, CALLED, ANSWER], ["tool result of the call call_1: no call before it"]),
        (
            [ASKED, CALLED, {**RESULT, "tool_call_id": "x" * 60}, ANSWER],
            [f"tool result of the call {'x' * 40}: no call"],
        ),
        ([ASKED, {"role": "tool", "content": "12"}, ANSWER], ["tool result without the name of a call: no call"]),
        ([ASKED, CALLED, {"role": "tool", "content": "12"}, ANSWER], []),
        ([ASKED, {**CALLED, "tool_calls": [{**CALL, "id": None}]}, RESULT, ANSWER], []),
        ([ASKED, CALLED, RESULT, RESULT, ANSWER], []),
    ],
)
def test_result_of_no_call_is_named(listed: list[Any], told: list[str]) -> None:
    """It is neither context nor learned, and the rest is read; a program may leave the names of calls out."""
    found = understood([{"messages": listed}])
    reasons = [each for each in found if isinstance(each, str)]
    assert [each.startswith(start) for each, start in zip(reasons, told, strict=True)] == [True] * len(told)
    last = [each for each in found if isinstance(each, Experience)][-1]
    results = sum(one["role"] == "tool" for one in listed)
    assert [message.role for message in last.messages].count("tool") == results - len(told)


def test_call_with_free_text_is_read() -> None:
    """A call of a tool that takes any text, and not an object of arguments."""
    call = {"id": "call_1", "type": "custom", "custom": {"name": "run", "input": "ls -l"}}
    called, _ = replies({"messages": [ASKED, {"role": "assistant", "tool_calls": [call]}, RESULT, ANSWER]})
    assert [(one.name, one.arguments) for one in called.calls] == [("run", '{"input":"ls -l"}')]


def test_array_on_a_line_is_read() -> None:
    """A file whose form changes from lines to an array loses nothing; messages on a line are a conversation."""
    own = [{"id": f"e{number}", "prompt": "p", "response": f"r{number}"} for number in range(3)]
    data = "\n".join(json.dumps(each) for each in (own[0], own[1:], [SYSTEM, ASKED, ANSWER], [], [[own[0]]])) + "\n"
    found = understood_file(data.encode())
    assert [(place, one.response) for place, one in found if isinstance(one, Experience)] == [
        ("line 1", "r0"),
        ("line 2", "r1"),
        ("line 2", "r2"),
        ("line 3", ANSWER["content"]),
    ]
    assert [place for place, each in found if isinstance(each, str)] == ["line 5"]


def test_secret_key_of_an_unknown_record_is_not_shown() -> None:
    """Of the keys of a record that is not read those are named that are words; others may be anything."""
    secret, person = "ghp_a8Kd02LmQzX91vTbR4yWc7NeUf35JhGpSoD6", "alice@example.org"
    with pytest.raises(HalfWritten, match="a record with user_name, part_2: convert"):
        understood([{secret: 1, "user_name": 2, person: 3, "part_2": 4, "447700900123": 5, "x" * 30: 6}])


def test_exchange_of_an_unknown_server_is_named_once() -> None:
    """A log of requests in a form that is not read is named in one sentence, and not by what our own form lacks."""
    parts = [{"text": "How strong is the wind?"}]
    record = {
        "request": {"contents": [{"role": "user", "parts": parts}]},
        "response": {"candidates": [{"content": {"role": "model", "parts": parts}}]},
    }
    with pytest.raises(HalfWritten, match="with request, response: convert"):
        understood([record, record])
