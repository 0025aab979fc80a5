"""Tests of the formats that log calls of a model: what is understood of each, and what is left out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sleepd.buffer.experience import Experience, conversation_of
from sleepd.buffer.learnables import ReadSettings
from sleepd.buffer.rating.rating_names import REJECTED, WHOLE, rating_key
from tests.format_samples import (
    ANSWER,
    ASKED,
    LLM,
    OFFERED,
    SYSTEM,
    TALK,
    attributes,
    chat_response,
    generation,
    learned,
    litellm,
    span,
    spans,
    spoken,
    understood,
    understood_file,
)

WHOLE_TALK = [
    ("system", "You are Juniper."),
    ("user", "How strong is the wind?"),
    ("assistant", 'get_wind({"place":"Oban"})'),
    ("tool", '{"knots":12}'),
    ("assistant", "Twelve knots."),
]
"""What is understood of ``TALK``."""


def given_id(found: Experience) -> str:
    """What the server called the reply: its id without the hash of the texts."""
    return found.id.rpartition(":")[0]


def proxied(messages: list[Any], reply: Any, **more: Any) -> dict[str, Any]:
    return {"request": {"messages": messages}, "response": reply, **more}


# --- requests and responses ---


@pytest.mark.parametrize("has_ids", [True, False])
def test_repeated_history_is_learned_once(has_ids: bool) -> None:
    """A log in which each request repeats the history gives each reply once, all on one side of the split."""
    messages, log = [SYSTEM], []
    for number in range(5):
        messages = [*messages, {"role": "user", "content": f"Question {number}?"}]
        answer = {"role": "assistant", "content": f"Answer {number}."}
        log.append(proxied(messages, chat_response(answer, f"chatcmpl-{number}" if has_ids else "")))
        messages = [*messages, answer]
    found = learned([*log, *log])
    assert [each.response for each in found[:5]] == [f"Answer {number}." for number in range(5)]
    assert [each.id for each in found[:5]] == [each.id for each in found[5:]]
    assert len({each.id for each in found}) == 5
    assert len({each.conversation for each in found}) == 1
    assert len(found[4].context) == 10


@pytest.mark.parametrize(
    "record",
    [
        proxied(TALK[:-1], chat_response(ANSWER)),
        {"req": {"body": {"messages": TALK[:-1]}}, "res": {"status": 200, "body": chat_response(ANSWER)}},
        {"input": json.dumps({"messages": TALK[:-1]}), "output": json.dumps(chat_response(ANSWER))},
        {"requestBody": json.dumps({"messages": TALK[:-1]}), "responseBody": json.dumps(chat_response(ANSWER))},
        {"messages": TALK[:-1], "response": "Twelve knots."},
        proxied(TALK[:-1], {"model": "agent", "message": ANSWER, "done": True}),
    ],
)
def test_pairs_of_names_are_read(record: dict[str, Any]) -> None:
    """Request and response stand under several names, as objects or as JSON text, with an envelope or without."""
    (found,) = learned([record])
    assert spoken(found) == WHOLE_TALK


def test_offered_tools_are_read() -> None:
    """Tools in Anthropic's flat form and in OpenAI's are the same tools."""
    flat = {"name": "get_wind", "description": "Wind at a place", "input_schema": {"type": "object", "properties": {}}}
    both = [
        learned([{"request": {"messages": [ASKED], "tools": [tool]}, "response": chat_response(ANSWER)}])[0].tools
        for tool in (OFFERED, flat, {"type": "web_search"})
    ]
    assert json.loads(both[0]) == json.loads(both[1]) == [OFFERED]
    assert both[2] == ""


def test_anthropic_bodies_are_read() -> None:
    """Blocks become thoughts, calls and results; what a tool gave stands before what the user said."""
    request = {
        "model": "agent",
        "system": [{"type": "text", "text": "You are Juniper."}],
        "messages": [
            {"role": "user", "content": "How strong is the wind?"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "call_1", "name": "get_wind", "input": {"place": "Oban"}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "12"}]},
                    {"type": "text", "text": "Quick!"},
                ],
            },
        ],
    }
    reply = [{"type": "thinking", "thinking": "Easy."}, {"type": "text", "text": "Twelve knots."}]
    response = {"id": "msg_1", "role": "assistant", "type": "message", "content": reply, "stop_reason": "end_turn"}
    (found,) = learned([{"request": request, "response": response}])
    assert given_id(found) == "msg_1"
    assert spoken(found) == [
        *WHOLE_TALK[:3],
        ("tool", "12"),
        ("user", "Quick!"),
        ("assistant", "<think>\nEasy.\n</think>\n\nTwelve knots."),
    ]


def test_responses_bodies_are_read() -> None:
    """Items of OpenAI's responses become messages: thought, text and calls in a row are one of the assistant."""
    request = {
        "instructions": "You are Juniper.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "How strong is the wind?"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I ask."}]},
            {"type": "function_call", "call_id": "call_1", "name": "get_wind", "arguments": '{"place":"Oban"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": '{"knots":12}'},
        ],
        "tools": [{"type": "function", "name": "get_wind"}],
    }
    output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Twelve knots."}]}]
    (found,) = learned([{"request": request, "response": {"id": "resp_1", "object": "response", "output": output}}])
    assert spoken(found) == [
        *WHOLE_TALK[:2],
        ("assistant", '<think>\nI ask.\n</think>\n\n\nget_wind({"place":"Oban"})'),
        *WHOLE_TALK[3:],
    ]
    assert [message.call_id for message in found.context if message.role == "tool"] == ["call_1"]
    assert json.loads(found.tools)[0]["function"]["name"] == "get_wind"


def chunk(delta: dict[str, Any], **more: Any) -> str:
    return "data: " + json.dumps({"id": "chatcmpl-5", "choices": [{"index": 0, "delta": delta, **more}]})


def piece(text: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}


@pytest.mark.parametrize("is_one_text", [True, False])
def test_streamed_response_is_put_together(is_one_text: bool) -> None:
    """Text, thought and the pieces of a call come together; other choices than the first are left out."""
    lines = [
        ": keep-alive",
        chunk({"role": "assistant", "reasoning_content": "I "}),
        chunk({"reasoning_content": "ask."}),
        chunk({"content": "One "}),
        chunk({"content": "moment."}),
        'data: {"choices":[{"index":1,"delta":{"content":"Never."}}]}',
        chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "get_wind", "arguments": ""}}]}),
        chunk(piece('{"place":')),
        chunk(piece('"Oban"}')),
        chunk({}, finish_reason="tool_calls"),
        "data: [DONE]",
    ]
    (found,) = learned([proxied([ASKED], "\n\n".join(lines[1:]) if is_one_text else lines)])
    assert given_id(found) == "chatcmpl-5"
    assert found.response == "<think>\nI ask.\n</think>\n\nOne moment."
    assert [call.text for call in found.calls] == ['get_wind({"place":"Oban"})']


def test_streamed_anthropic_response_is_put_together() -> None:
    """Blocks and their pieces become the message that would have come at once."""
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_2", "role": "assistant"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "I ask."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "call_1", "name": "get_wind", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"place":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"Oban"}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n" for event in events]
    (found,) = learned([proxied([ASKED], lines)])
    assert (given_id(found), found.response) == ("msg_2", "<think>\nI ask.\n</think>\n\n")
    assert [call.text for call in found.calls] == ['get_wind({"place":"Oban"})']


def test_streamed_responses_body_is_read() -> None:
    """The last event of OpenAI's responses holds it whole, with separators in its texts."""
    output = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Twelve\u2028knots."}]}
    ]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "resp_3", "output": []}},
        {"type": "response.output_text.delta", "delta": "Twe"},
        {"type": "response.completed", "response": {"id": "resp_3", "output": output}},
    ]
    lines = [f"event: {each['type']}\r\ndata: {json.dumps(each, ensure_ascii=False)}\r\n\r\n" for each in events]
    (found,) = learned([proxied([ASKED], "".join(lines))])
    assert (given_id(found), found.response) == ("resp_3", "Twelve\u2028knots.")
    failed = [*lines[:1], 'data: {"type":"error","error":{"message":"busy"}}']
    (reason,) = understood([proxied([ASKED], failed)])
    assert re.fullmatch("response: .* error", reason)


@pytest.mark.parametrize(
    ("noted", "salience"),
    [
        ({}, 0.7),
        ({"salience": 0.4}, 0.4),
        ({"rating": -1}, REJECTED),
        ({"feedback": "thumbs_up"}, 1.0),
        ({"rating": 0}, 0.7),
    ],
)
def test_rating_in_a_log_counts(noted: dict[str, Any], salience: float) -> None:
    """An agent of one's own may note salience or rating beside request and response."""
    assert learned([proxied([ASKED], chat_response(ANSWER), **noted)])[0].salience == salience


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (proxied([ASKED], chat_response(ANSWER), salience="high"), "salience: expected a number"),
        (proxied([ASKED], chat_response(ANSWER), status=500), "status: expected 200, found 500"),
        (proxied([ASKED], chat_response(ANSWER), status_code="429"), "status: expected 200, found 429"),
        (proxied([ASKED], {"status": 503, "body": {}}), "status: expected 200, found 503"),
        (proxied([ASKED], {"error": {"message": "no"}}), "response: the server answered with an error"),
        (proxied([ASKED], {"choices": []}), "choices[0].message: expected an object, found nothing"),
        (proxied([ASKED], None), "response: expected an object, found nothing"),
        (
            proxied([ASKED], {"choices": [{"message": ANSWER, "finish_reason": "length"}]}),
            "response: the reply is not whole (length)",
        ),
        (proxied([ASKED], [chunk({"content": "Twe"})]), "stream: it breaks off before its end"),
        (proxied([ASKED], ["data: {", "data: [DONE]"]), "stream: an event is no JSON"),
        (
            proxied([{"content": "?"}], chat_response(ANSWER)),
            "messages[0].role: expected system, user, assistant or tool",
        ),
        (
            {"request": {"input": "Hi", "previous_response_id": "resp_0"}, "response": "Yes."},
            "previous_response_id: the log does not hold the messages before",
        ),
    ],
)
def test_broken_calls_are_named(record: dict[str, Any], reason: str) -> None:
    """A call that failed, broke off or is damaged is left out with its reason, and what stands beside it is read."""
    good = proxied([ASKED], chat_response(ANSWER))
    first, second = understood([record, good])
    assert isinstance(first, str)
    assert first.startswith(reason)
    assert not isinstance(second, str)


@pytest.mark.parametrize("reason", ["length", "content_filter", "error", "max_tokens"])
def test_reply_that_broke_off_is_left_out(reason: str) -> None:
    """A reply that ended before it was whole would teach to stop in the middle."""
    response = {"choices": [{"message": ANSWER, "finish_reason": reason}]}
    (found,) = understood([proxied([ASKED], response)])
    assert re.fullmatch(rf"response: .* \({reason}\)", found)
    assert len(learned([proxied([ASKED], [chunk({"content": "Ten."}, finish_reason="stop")])])) == 1


def test_cut_history_keeps_ids_apart() -> None:
    """Agents cut the history: the number of a reply in a request is then none of the conversation."""
    questions = [{"role": "user", "content": f"Question {number}?"} for number in range(3)]
    log = [proxied([SYSTEM, each], chat_response(ANSWER, ""), session_id="s-1") for each in questions]
    assert len({each.id for each in learned(log)}) == 3


OTHER = {"role": "user", "content": "Is it dark?"}
OTHER_PARTS = [{"role": "user", "parts": [{"type": "text", "content": "Is it dark?"}]}]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (litellm(), litellm(messages=[OTHER], response=chat_response(ANSWER, "chatcmpl-2"))),
        (generation(), generation(id="o-2", input=[OTHER])),
        (spans(span()), spans(span(gen_ai__response__id="r-2", gen_ai__input__messages=OTHER_PARTS))),
        (
            proxied([ASKED], chat_response(ANSWER, "a"), session="s"),
            proxied([OTHER], chat_response(ANSWER, "b"), session="s"),
        ),
    ],
)
def test_one_session_may_hold_several_conversations(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A session or a trace is not taken for one conversation: else a log of one session were all on one side."""
    first, second = learned([one, other])
    assert conversation_of(first) != conversation_of(second)


def test_earlier_replies_are_not_supervised() -> None:
    """What a request repeats is context only, even where it calls a tool."""
    found = learned([proxied([*TALK, ASKED], chat_response({"role": "assistant", "content": "Still twelve."}))])
    assert [each.response for each in found] == ["Still twelve."]


def test_served_adapter_is_said_under() -> None:
    """A reply of a model that is served under an adapter's name was said under this adapter."""
    record = {"request": {"model": "openai/cycle_012", "messages": [ASKED]}, "response": chat_response(ANSWER)}
    assert learned([record])[0].said_under == 12
    assert learned([litellm(model="cycle_013")])[0].said_under == 13


# --- LiteLLM ---


def test_litellm_payload_is_read() -> None:
    """The response is learned with what was sent before it and the tools that were offered."""
    (found,) = learned([litellm()])
    assert (given_id(found), spoken(found)) == ("chatcmpl-9", WHOLE_TALK)
    assert json.loads(found.tools) == [OFFERED]


def test_litellm_leaves_out_what_teaches_nothing() -> None:
    """Replies out of the cache and calls that are no chat give nothing and no complaint."""
    assert (
        understood([litellm(cache_hit=True), litellm(call_type="aembedding"), litellm(call_type="aimage_edit")]) == []
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"status": "failure"}, "status: the call failed"),
        ({"response": {"text": "redacted-by-litellm"}}, "messages: LiteLLM has redacted them"),
        ({"messages": [{"role": "user", "content": "redacted-by-litellm"}]}, "messages: LiteLLM has redacted them"),
        ({"messages": None}, "messages: expected those of the request, found none: let LiteLLM log them"),
        ({"messages": []}, "messages: expected those of the request"),
        ({"messages": {"a": 1}}, "input: expected a list"),
        ({"messages": [{"role": "system", "content": "x"}]}, "expected a message of the user before the reply"),
        ({"response": ""}, "expected a reply with text or a call of a tool, found an empty one"),
        ({"response": None}, "response: expected an object"),
        ({"model_parameters": None}, ""),
    ],
)
def test_litellm_failures_are_named(changed: dict[str, Any], reason: str) -> None:
    """A failed call, a redacted one and a damaged one each have their own reason."""
    (found,) = understood([litellm(**changed)])
    assert isinstance(found, str) == bool(reason)
    assert not isinstance(found, str) or found.startswith(reason)


@pytest.mark.parametrize("missing", ["messages", "response"])
def test_litellm_without_texts_is_named(missing: str) -> None:
    """A record without the messages, or without the response, is still LiteLLM's, and its place is named."""
    record = {key: value for key, value in litellm().items() if key != missing}
    (found,) = understood_file(json.dumps(record).encode() + b"\n")
    assert (found[0], str(found[1]).partition(":")[0]) == ("line 1", missing)


def test_printed_twice_is_read_once() -> None:
    """Two exports of ``llm`` in one file give each response once; one with another text is named."""
    assert learned([*LLM, *LLM]) == learned(LLM)
    told = [each for each in understood([*LLM, {**LLM[2], "response": "No."}]) if isinstance(each, str)]
    assert [reason.split()[1] for reason in told] == ["r3"]


def test_litellm_session_can_be_rated() -> None:
    """A rating of the session finds the reply; a number does not, for a request may hold the end of a longer talk."""
    for number, salience in ((WHOLE, REJECTED), (2, 0.7)):
        ratings = {rating_key("s-1", number): REJECTED}
        assert learned([litellm()], ReadSettings(ratings=ratings))[0].salience == salience


# --- Langfuse ---


def test_langfuse_generation_is_read() -> None:
    """Input and output are JSON text; the id is that of the observation; other observations are passed over."""
    (found,) = learned([generation(), generation(id="o-2", type="SPAN")])
    assert (found.id, spoken(found)) == ("o-1", WHOLE_TALK)
    assert json.loads(found.tools) == [OFFERED]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([ASKED], ANSWER),
        (json.dumps([ASKED]), "Twelve knots."),
        ("How strong is the wind?", json.dumps("Twelve knots.")),
        ({"messages": [ASKED]}, [ANSWER]),
        ([ASKED], chat_response(ANSWER)),
    ],
)
def test_langfuse_values_of_any_kind(asked: Any, said: Any) -> None:
    """Messages, a body or a plain text are understood alike."""
    (found,) = learned([generation(input=asked, output=said)])
    assert spoken(found) == [("user", "How strong is the wind?"), ("assistant", "Twelve knots.")]


def test_langfuse_scores_become_salience() -> None:
    """A score of the observation counts before one of its trace."""
    of_trace = {rating_key("t-1", WHOLE): REJECTED}
    assert learned([generation()], ReadSettings(ratings=of_trace))[0].salience == REJECTED
    assert learned([generation()], ReadSettings(ratings={**of_trace, "o-1": 1.0}))[0].salience == 1.0


@pytest.mark.parametrize("changed", [{"output": None}, {"level": "ERROR"}, {"input": None}, {"input": 5}])
def test_langfuse_failures_are_named(changed: dict[str, Any]) -> None:
    """A generation that failed or lacks a part has a reason."""
    (reason,) = understood([generation(**changed)])
    assert isinstance(reason, str)


# --- OpenTelemetry ---


def test_otel_span_is_read() -> None:
    """Parts become text, thought, calls and results; definitions of tools take the form of OpenAI."""
    (found,) = learned([spans(span())])
    assert given_id(found) == "r-1"
    assert spoken(found) == [
        *WHOLE_TALK[:2],
        ("assistant", '<think>\nI ask.\n</think>\n\n\nget_wind({"place":"Oban"})'),
        *WHOLE_TALK[3:],
    ]
    assert json.loads(found.tools) == [OFFERED]


def test_otel_attributes_may_be_json_text() -> None:
    """Most exporters write the messages as JSON text: it says the same."""
    texts = {
        each["key"].replace(".", "__"): json.dumps(plain(each["value"]))
        for each in span()["attributes"]
        if each["key"].split(".")[1] in ("input", "output", "system_instructions", "tool")
    }
    assert learned([spans(span(**texts))]) == learned([spans(span())])


def plain(value: dict[str, Any]) -> Any:
    """The opposite of ``any_value``."""
    if "kvlistValue" in value:
        return {each["key"]: plain(each["value"]) for each in value["kvlistValue"]["values"]}
    if "arrayValue" in value:
        return [plain(each) for each in value["arrayValue"]["values"]]
    return next(iter(value.values()))


def evaluation(**values: Any) -> dict[str, Any]:
    named = {f"gen_ai__evaluation__score__{name}": value for name, value in values.items()}
    return {"name": "gen_ai.evaluation.result", "attributes": attributes(**named)}


@pytest.mark.parametrize(
    ("events", "salience"),
    [
        ([], 0.7),
        ([evaluation(value=0.9)], 0.9),
        ([evaluation(value=0.9), evaluation(value=0.2)], 0.2),
        ([evaluation(value=0.0)], REJECTED),
        ([evaluation(label="fail", value=0.9)], REJECTED),
        ([evaluation(label="pass")], 1.0),
        ([evaluation(value=4.0)], 0.7),
        ([evaluation(label="blue")], 0.7),
    ],
)
def test_otel_evaluation_becomes_salience(events: list[dict[str, Any]], salience: float) -> None:
    """The least evaluation counts, a known label before the score; a score on another scale says nothing."""
    assert learned([spans(span(events))])[0].salience == salience


def test_damaged_span_loses_no_other() -> None:
    """Of a line with many spans those that are whole are read; each other one has its reason."""
    bad = span(gen_ai__output__messages=[{"role": "assistant", "parts": [{"type": "tool_call"}]}])
    agent = span(gen_ai__operation__name="invoke_agent")
    silent = span(gen_ai__input__messages=None)
    failed = {**span(), "status": {"code": 2}}
    found = understood([spans(bad, agent, "?", silent, failed, span())])
    reasons = [each for each in found if isinstance(each, str)]
    assert [reason.split(":")[0] for reason in reasons] == ["tool call", "spans", "gen_ai.input.messages", "status"]
    assert len(found) == 5


def test_older_otel_events_are_read() -> None:
    """Spans that carry prompt and completion as events are read too."""
    events = [
        {"name": "gen_ai.content.prompt", "attributes": attributes(gen_ai__prompt=json.dumps([ASKED]))},
        {"name": "gen_ai.content.completion", "attributes": attributes(gen_ai__completion=json.dumps([ANSWER]))},
    ]
    (found,) = learned([spans(span(events, gen_ai__input__messages=None, gen_ai__output__messages=None))])
    assert spoken(found) == [WHOLE_TALK[0], WHOLE_TALK[1], WHOLE_TALK[-1]]


def test_indexed_otel_attributes_are_read() -> None:
    """Messages and tools whose parts are attributes of their own, as OpenLLMetry writes them."""
    values = {
        "gen_ai__prompt__1__role": "assistant",
        "gen_ai__prompt__1__tool_calls__0__id": "call_1",
        "gen_ai__prompt__1__tool_calls__0__name": "get_wind",
        "gen_ai__prompt__1__tool_calls__0__arguments": '{"place":"Oban"}',
        "gen_ai__prompt__2__role": "tool",
        "gen_ai__prompt__2__content": '{"knots":12}',
        "gen_ai__prompt__0__role": "user",
        "gen_ai__prompt__0__content": json.dumps([{"type": "text", "text": "How strong is the wind?"}]),
        "gen_ai__completion__0__role": "assistant",
        "gen_ai__completion__0__content": "Twelve knots.",
        "gen_ai__completion__0__finish_reason": "stop",
        "gen_ai__completion__x__content": "?",
        "llm__request__functions__0__name": "get_wind",
        "llm__request__functions__0__description": "Wind at a place",
        "llm__request__functions__0__parameters": '{"type":"object","properties":{}}',
    }
    (found,) = learned([spans({"spanId": "00f2", "attributes": attributes(**values)})])
    assert (found.id, spoken(found)) == ("00f2", WHOLE_TALK[1:])
    assert json.loads(found.tools) == [OFFERED]


def test_openinference_spans_are_read() -> None:
    """Messages, calls, results and tools of OpenInference say what those of GenAI say."""
    values = {
        "openinference__span__kind": "LLM",
        "session__id": "s-1",
        "llm__input_messages__0__message__role": "system",
        "llm__input_messages__0__message__content": "You are Juniper.",
        "llm__input_messages__1__message__role": "user",
        "llm__input_messages__1__message__contents__0__message_content__type": "text",
        "llm__input_messages__1__message__contents__0__message_content__text": "How strong is the wind?",
        "llm__input_messages__2__message__role": "assistant",
        "llm__input_messages__2__message__tool_calls__0__tool_call__id": "call_1",
        "llm__input_messages__2__message__tool_calls__0__tool_call__function__name": "get_wind",
        "llm__input_messages__2__message__tool_calls__0__tool_call__function__arguments": '{"place":"Oban"}',
        "llm__input_messages__3__message__role": "tool",
        "llm__input_messages__3__message__tool_call_id": "call_1",
        "llm__input_messages__3__message__content": '{"knots":12}',
        "llm__output_messages__0__message__role": "assistant",
        "llm__output_messages__0__message__content": "Twelve knots.",
        "llm__tools__0__tool__json_schema": json.dumps(OFFERED),
    }
    (found,) = learned([spans({"spanId": "00f3", "attributes": attributes(**values)})])
    assert (found.id, spoken(found)) == ("00f3", WHOLE_TALK)
    assert json.loads(found.tools) == [OFFERED]
    assert found.rated_as[-1] == rating_key("s-1", WHOLE)
    image = {"llm__input_messages__1__message__contents__0__message_content__type": "image"}
    (reason,) = understood([spans({"spanId": "00f3", "attributes": attributes(**{**values, **image})})])
    assert "not there as text" in str(reason)


@pytest.mark.parametrize("kind", ["CHAIN", "TOOL", "LLM"])
def test_other_openinference_spans_teach_nothing(kind: str) -> None:
    """A span of another kind is passed over; a call without its texts has a reason."""
    found = understood([spans({"attributes": attributes(openinference__span__kind=kind)})])
    assert [str(each)[:23] for each in found] == (["gen_ai.input.messages: "] if kind == "LLM" else [])
