"""Tests of the formats of data sets: OpenAI's, TRL's, Hermes, ShareGPT, Alpaca and ChatML."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sleepd.buffer.formats.format import CHOSEN
from sleepd.buffer.rating.rating_names import REJECTED
from tests.format_samples import (
    ANSWER,
    ASKED,
    CHATML,
    OFFERED,
    SAMPLES,
    WEATHER,
    learned,
    spoken,
    trajectory,
    understood,
    understood_file,
)

CALL_TEXT = 'get_wind({"place":"Oban"})'


# --- OpenAI messages ---


def test_weight_zero_is_context_only() -> None:
    """Of OpenAI's messages each reply is learned whose weight is not 0; one with 0 stays in the context."""
    record = {"messages": [ASKED, {**ANSWER, "weight": 0}, ASKED, {**ANSWER, "weight": 1}, ASKED, ANSWER]}
    found = learned([record])
    assert [len(each.context) for each in found] == [3, 5]
    assert found[0].context[1].text == "Twelve knots."


def test_older_function_calls_are_read() -> None:
    """``function_call``, the form before ``tool_calls``, is a call too."""
    older = {"role": "assistant", "content": None, "function_call": {"name": "get_wind", "arguments": "{}"}}
    result = {"role": "function", "name": "get_wind", "content": "12"}
    found = learned([{"messages": [ASKED, older, result, ANSWER]}])
    assert [each.whole_response for each in found] == ["get_wind({})", "Twelve knots."]
    assert found[1].context[2].name == "get_wind"


# --- preferences ---


def test_preferred_output_is_learned() -> None:
    """The preferred output has the salience of a chosen reply; the other one and the earlier replies teach nothing."""
    (found,) = learned(SAMPLES["openai_preference"])
    assert found.salience == CHOSEN
    assert found.response == "Twelve knots."
    assert len(found.context) == 4
    assert json.loads(found.tools) == [OFFERED]


def test_trl_shapes_are_read() -> None:
    """The prompt, the messages or the beginning of a whole conversation stand before what is learned."""
    found = learned(SAMPLES["trl"])
    assert [each.response for each in found] == ["Twelve knots."] * 5
    assert [each.salience for each in found] == [CHOSEN, CHOSEN, CHOSEN, 0.7, REJECTED]
    assert [len(each.messages) for each in found] == [4, 1, 1, 1, 1]


def test_whole_conversations_differ_in_the_last_reply() -> None:
    """Where ``chosen`` is a whole conversation, its last reply alone was chosen."""
    (found,) = learned([{"chosen": [ASKED, {**ANSWER, "content": "Wait."}, ASKED, ANSWER], "rejected": []}])
    assert (found.response, len(found.context)) == ("Twelve knots.", 3)


@pytest.mark.parametrize(
    "record",
    [
        {"input": {"messages": [ASKED]}, "preferred_output": []},
        {"input": [], "preferred_output": [ANSWER]},
        {"input": {"messages": [ASKED]}, "preferred_output": [ASKED]},
        {"prompt": [ASKED], "chosen": [], "rejected": []},
        {"prompt": [ASKED], "chosen": 5, "rejected": []},
        {"prompt": [ASKED], "completion": [ASKED]},
        {"chosen": [], "rejected": []},
    ],
)
def test_broken_preferences_are_named(record: dict[str, Any]) -> None:
    """A comparison without a reply to learn has a reason."""
    (reason,) = understood([record])
    assert isinstance(reason, str)


# --- Hermes ---


def test_hermes_tags_become_calls() -> None:
    """Tools, calls, results and thoughts are read out of the tags; the made-up system message is left out."""
    first, second = learned(SAMPLES["hermes"])
    assert first.response == "<think>\nI ask.\n</think>"
    assert [call.text for call in first.calls] == [CALL_TEXT]
    assert [(message.role, message.text) for message in first.messages] == [("user", "How strong is the wind?")]
    assert json.loads(first.tools) == [OFFERED]
    result = second.context[-1]
    assert (result.role, result.text, result.call_id, result.name) == ("tool", '{"knots":12}', "call_1", "get_wind")
    assert second.response == "Twelve knots."


def said(*texts: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": text} for role, text in texts], "completed": True}


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{not JSON}</tool_call>",
        "<tool_call>[]</tool_call>",
        '<tool_call>{"arguments":{}}</tool_call>',
        '<tool_call>{"name":"get_wind"}',
        '<tool_call>{"name":"a","arguments":"\\ud800"}</tool_call>',
        "<think>never ends",
    ],
)
def test_unparsed_tags_stay_text(text: str) -> None:
    """What is no call stays the text that the agent gave."""
    (found,) = learned([said(("human", "Hi"), ("gpt", text))])
    assert (found.response, found.calls) == (text, ())


def test_several_tags_are_several_calls() -> None:
    """One reply may call several tools; their results come back as a message each."""
    call, result = '<tool_call>{"name":"get_wind"}</tool_call>', "<tool_response>12</tool_response>"
    found = learned(
        [said(("human", "Hi"), ("gpt", f"Wait.\n{call}\n{call}"), ("tool", f"{result}\n{result}"), ("gpt", "12"))]
    )
    assert (found[0].response, len(found[0].calls)) == ("Wait.", 2)
    assert [message.text for message in found[1].context[2:]] == ["12", "12"]


def test_own_system_message_stays() -> None:
    """A system message of the agent's own keeps its text; only the list of tools goes where tools belong."""
    system = f"You are Juniper.\n<tools>{json.dumps([WEATHER])}</tools>"
    (found,) = learned([said(("system", system), ("human", "Hi"), ("gpt", "Hello."))])
    assert found.context[0].text == "You are Juniper."
    assert json.loads(found.tools) == [OFFERED]
    (found,) = learned([said(("system", "You are Juniper. <tools>none</tools>"), ("human", "Hi"), ("gpt", "Hello."))])
    assert found.context[0].text == "You are Juniper. <tools>none</tools>"


def test_failed_run_is_left_out() -> None:
    """A run that failed or was interrupted teaches nothing, and says so."""
    for changed in ({"completed": False}, {"partial": True}):
        (reason,) = understood([trajectory(**changed)])
        assert str(reason).startswith("completed: the run failed")


def test_growing_trajectory_is_learned_once() -> None:
    """Hermes saves the whole conversation after each turn: what stood there before keeps its id and its side."""
    whole = trajectory()["conversations"]
    more = [*whole, {"from": "human", "value": "And now?"}, {"from": "gpt", "value": "Ten."}]
    before, after = learned([trajectory()]), learned([trajectory(conversations=more)])
    assert [each.id for each in before] == [each.id for each in after[:2]]
    assert len({each.conversation for each in [*before, *after]}) == 1
    assert len(after) == 3


def test_talk_about_tags_is_sharegpt() -> None:
    """A conversation with roles that Hermes does not have stays ShareGPT, whatever its texts mention."""
    listed = [{"from": "user", "value": "What is <tools>?"}, {"from": "chatgpt", "value": "A tag."}]
    (found,) = learned([{"conversations": listed}])
    assert spoken(found) == [("user", "What is <tools>?"), ("assistant", "A tag.")]


# --- ShareGPT ---


def test_sharegpt_is_read() -> None:
    """System message and tools stand beside the conversation; calls and results have roles of their own."""
    first, second = learned(SAMPLES["sharegpt"])
    assert [each.id for each in (first, second)] == ["s1#1", "s1#2"]
    assert [call.text for call in first.calls] == [CALL_TEXT]
    assert spoken(second) == [
        ("system", "You are Juniper."),
        ("user", "How strong is the wind?"),
        ("assistant", CALL_TEXT),
        ("tool", '{"knots":12}'),
        ("assistant", "Twelve knots."),
    ]
    assert json.loads(first.tools) == [OFFERED]


@pytest.mark.parametrize("flag", [{"weight": 0}, {"loss": False}, {"train": False}, {"training": False}])
def test_flagged_reply_is_context_only(flag: dict[str, Any]) -> None:
    """A reply that a flag takes out of training stays in the context of the next."""
    listed = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Go.", **flag}]
    listed += [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]
    (found,) = learned([{"conversations": listed}])
    assert found.response == "Hello."
    assert found.context[1].text == "Go."


def test_chosen_sharegpt_reply_is_learned() -> None:
    """Where a chosen and a rejected reply follow, the chosen one alone is learned."""
    record = said(("human", "Hi"), ("gpt", "Yes?"), ("human", "Go."))
    del record["completed"]
    (found,) = learned(
        [{**record, "chosen": {"from": "gpt", "value": "Gone."}, "rejected": {"from": "gpt", "value": "No."}}]
    )
    assert (found.response, found.salience, len(found.context)) == ("Gone.", CHOSEN, 3)


@pytest.mark.parametrize(
    "listed", [[], [5], [{"value": "Hi"}], [{"from": "cat", "value": "Hi"}], [{"from": "human", "value": 5}]]
)
def test_broken_sharegpt_is_named(listed: list[Any]) -> None:
    """A conversation without a reply, or with a damaged message, has a reason."""
    (reason,) = understood([{"conversations": listed}])
    assert str(reason).startswith("conversations")


# --- Alpaca ---


def test_alpaca_is_read() -> None:
    """The input follows the instruction; the history comes before and is learned too."""
    first, second = learned(SAMPLES["alpaca"])
    assert spoken(first) == [("system", "Be short."), ("user", "Hi"), ("assistant", "Yes")]
    assert (second.prompt, second.response, len(second.context)) == ("Translate.\nWind", "Vent", 4)


@pytest.mark.parametrize(
    "changed", [{"output": " "}, {"output": 5}, {"instruction": []}, {"history": [["one"]]}, {"history": "x"}]
)
def test_broken_alpaca_is_named(changed: dict[str, Any]) -> None:
    """An empty output and damaged parts have a reason."""
    (reason,) = understood([{**SAMPLES["alpaca"][0], **changed}])
    assert isinstance(reason, str)


# --- ChatML ---


def test_chatml_file_is_cut_into_conversations() -> None:
    """A system message begins a conversation, and so does a message after a blank line; each has its line."""
    plain = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
    found = understood_file(f"{CHATML}{CHATML}\n{plain}\n{plain}".encode())
    assert [position for position, _ in found] == ["line 1", "line 7", "line 14", "line 19"]
    assert [len(each.messages) for _, each in found] == [2, 2, 1, 1]


def test_chatml_blank_line_inside_stays() -> None:
    """A blank line within a message belongs to it."""
    text = "<|im_start|>user\nHi\n\n\nthere<|im_end|>\n<|im_start|>assistant\nHello.\n\nYou?<|im_end|>"
    ((_, found),) = understood_file(text.encode())
    assert (found.prompt, found.response) == ("Hi\n\n\nthere", "Hello.\n\nYou?")


def test_torn_chatml_keeps_what_is_whole() -> None:
    """A message without its end is named; an empty one, which asks for a reply, is not."""
    torn = understood_file(CHATML.encode() + b"<|im_start|>user\nAnd n")
    ((_, whole), (_, reason)) = torn
    assert (whole.response, *reason.split()[::5]) == ("Twelve knots.", "text:", "<|im_end|>")
    assert len(understood_file(CHATML.encode() + b"<|im_start|>assistant\n")) == 1
    assert re.match("text: .* between ", understood([{"text": CHATML + "stray"}])[1])


def test_damaged_chatml_loses_no_other() -> None:
    """Stray bytes and an unknown role lose the conversation in which they stand, not the next one."""
    bad = CHATML.encode().replace(b"Twelve", b"\xff\xfe")
    cat = CHATML.encode().replace(b"assistant", b"cat")
    found = understood_file(bad + cat + CHATML.encode())
    assert [isinstance(each, str) for _, each in found] == [True, True, False]


def test_chatml_calls_are_read() -> None:
    """Tags of tools in ChatML are calls as those of Hermes are."""
    call = '<tool_call>\n{"name":"get_wind","arguments":{"place":"Oban"}}\n</tool_call>'
    text = f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{call}<|im_end|>"
    (found,) = learned([{"text": text}])
    assert [call.text for call in found.calls] == [CALL_TEXT]


def test_hundred_thousand_turns_are_read() -> None:
    """A conversation of 10^5 messages is read to its end, in sections."""
    listed = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}] * 50_000
    found = learned([{"id": "long", "conversations": listed}])
    assert len({each.id for each in found}) == 50_000
    assert max(len(each.messages) for each in found) < 40
