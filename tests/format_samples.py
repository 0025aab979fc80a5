"""A sample of each format that is read, by the format's name, and what is understood of records and of bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

from sleepd.buffer.experience import Experience
from sleepd.buffer.learnables import Learnables, ReadSettings
from sleepd.buffer.reading.reader_process import read_learnables
from tests.tree_samples import TREE_SAMPLES

WEATHER = {"name": "get_wind", "description": "Wind at a place", "parameters": {"type": "object", "properties": {}}}
OFFERED = {"type": "function", "function": WEATHER}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_wind", "arguments": '{"place":"Oban"}'}}
SYSTEM = {"role": "system", "content": "You are Juniper."}
ASKED = {"role": "user", "content": "How strong is the wind?"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"knots":12}'}
ANSWER = {"role": "assistant", "content": "Twelve knots."}
TALK = [SYSTEM, ASKED, CALLED, RESULT, ANSWER]
"""A conversation with a call of a tool, in the form of OpenAI."""


def chat_response(message: dict[str, Any], identifier: str = "chatcmpl-1") -> dict[str, Any]:
    return {"id": identifier, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def litellm(**changed: Any) -> dict[str, Any]:
    """A call as LiteLLM logs it."""
    record = {
        "id": "chatcmpl-9",
        "trace_id": "t-1",
        "call_type": "acompletion",
        "status": "success",
        "model": "agent",
        "cache_hit": False,
        "end_user": "someone",
        "request_tags": ["chat"],
        "metadata": {"requester_metadata": {"session_id": "s-1"}},
        "messages": TALK[:-1],
        "response": chat_response(ANSWER, "chatcmpl-9"),
        "model_parameters": {"temperature": 0.5, "tools": [OFFERED]},
    }
    return {**record, **changed}


def generation(**changed: Any) -> dict[str, Any]:
    """A generation as Langfuse exports it."""
    record = {
        "id": "o-1",
        "trace_id": "t-1",
        "type": "GENERATION",
        "level": "DEFAULT",
        "input": json.dumps({"messages": TALK[:-1], "tools": [OFFERED]}),
        "output": json.dumps(ANSWER),
    }
    return {**record, **changed}


def attributes(**values: Any) -> list[dict[str, Any]]:
    """Attributes of OTLP; the names with ``_`` for the points, and the values as they would be structured."""
    return [{"key": key.replace("__", "."), "value": any_value(value)} for key, value in values.items()]


def any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": any_value(each)} for key, each in value.items()]}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(each) for each in value]}}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


SPAN = {
    "gen_ai__operation__name": "chat",
    "gen_ai__conversation__id": "c-1",
    "gen_ai__response__id": "r-1",
    "gen_ai__system_instructions": [{"type": "text", "content": "You are Juniper."}],
    "gen_ai__tool__definitions": [{"type": "function", **WEATHER}],
    "gen_ai__input__messages": [
        {"role": "user", "parts": [{"type": "text", "content": "How strong is the wind?"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "I ask."},
                {"type": "tool_call", "id": "call_1", "name": "get_wind", "arguments": {"place": "Oban"}},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": '{"knots":12}'}]},
    ],
    "gen_ai__output__messages": [
        {"role": "assistant", "parts": [{"type": "text", "content": "Twelve knots."}], "finish_reason": "stop"}
    ],
}


def spans(*each: dict[str, Any]) -> dict[str, Any]:
    """A line of OTLP JSON."""
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(each)}]}]}


def span(events: Iterable[dict[str, Any]] = (), **changed: Any) -> dict[str, Any]:
    values = {name: value for name, value in {**SPAN, **changed}.items() if value is not None}
    return {"spanId": "00f1", "name": "chat", "attributes": attributes(**values), "events": list(events)}


def trajectory(**changed: Any) -> dict[str, Any]:
    """A conversation as Hermes saves it."""
    call = '{"name": "get_wind", "arguments": {"place": "Oban"}}'
    result = '{"tool_call_id": "call_1", "name": "get_wind", "content": {"knots": 12}}'
    said = (
        ("system", f"You are a function calling AI model. <tools>\n{json.dumps([WEATHER])}\n</tools> Example: …"),
        ("human", "How strong is the wind?"),
        ("gpt", f"<think>\nI ask.\n</think>\n<tool_call>\n{call}\n</tool_call>"),
        ("tool", f"<tool_response>\n{result}\n</tool_response>"),
        ("gpt", "<think>\n</think>\nTwelve knots."),
    )
    turns = [{"from": role, "value": text} for role, text in said]
    return {"conversations": turns, "timestamp": "2026-11-01", "model": "agent", "completed": True, **changed}


CHATML = (
    "<|im_start|>system\nYou are Juniper.<|im_end|>\n"
    "<|im_start|>user\nHow strong is the wind?<|im_end|>\n"
    "<|im_start|>assistant\nTwelve knots.<|im_end|>\n"
)
LLM: list[dict[str, Any]] = [
    {
        "id": "r1",
        "conversation_id": "c1",
        "prompt": "How strong is the wind?",
        "system": "You are Juniper.",
        "response": "",
        "datetime_utc": "2026-11-01T10:00:00",
        "tools": [{**WEATHER, "input_schema": "{}"}],
        "tool_calls": [{"name": "get_wind", "arguments": {"place": "Oban"}, "tool_call_id": "call_1"}],
    },
    {
        "id": "r2",
        "conversation_id": "c1",
        "prompt": "",
        "system": "You are Juniper.",
        "response": "Twelve knots.",
        "datetime_utc": "2026-11-01T10:00:02",
        "tool_results": [{"name": "get_wind", "output": '{"knots":12}', "tool_call_id": "call_1"}],
    },
    {
        "id": "r3",
        "conversation_id": "c2",
        "prompt": "Is it dark?",
        "system": None,
        "response": "It is.",
        "datetime_utc": "2026-11-01T11:00:00",
    },
]
SAMPLES: dict[str, list[dict[str, Any]]] = {
    "openai_messages": [
        {"messages": TALK, "tools": [OFFERED]},
        {"messages": [ASKED, {**ANSWER, "weight": 0}, ASKED, ANSWER], "conversation": "c1", "salience": {"total": 0.9}},
    ],
    "openai_preference": [
        {
            "input": {"messages": TALK[:-1], "tools": [OFFERED]},
            "preferred_output": [ANSWER],
            "non_preferred_output": [],
        },
    ],
    "trl": [
        {"prompt": TALK[:-1], "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "No idea."}], "tools": [OFFERED]},
        {"messages": [ASKED], "chosen": [ANSWER], "rejected": []},
        {"chosen": [ASKED, ANSWER], "rejected": [ASKED, SYSTEM]},
        {"prompt": [ASKED], "completion": [ANSWER]},
        {"prompt": "How strong is the wind?", "completion": "Twelve knots.", "label": False},
    ],
    "litellm": [litellm()],
    "request_log": [
        {"status": 200, "request": {"model": "agent", "messages": TALK[:-1]}, "response": chat_response(ANSWER)},
        {"req": {"messages": [ASKED], "stream": True}, "res": ['data: {"choices":[{"delta":{"content":"Ten"}}]}']},
        {"input": json.dumps({"messages": [ASKED]}), "output": json.dumps(chat_response(ANSWER))},
    ],
    "langfuse": [generation(), generation(id="o-2", type="SPAN")],
    "otel_genai": [spans(span())],
    "hermes": [trajectory()],
    "sharegpt": [
        {
            "id": "s1",
            "system": "You are Juniper.",
            "tools": json.dumps([WEATHER]),
            "conversations": [
                {"from": "human", "value": "How strong is the wind?"},
                {"from": "function_call", "value": '{"name":"get_wind","arguments":{"place":"Oban"}}'},
                {"from": "observation", "value": '{"knots":12}'},
                {"from": "gpt", "value": "Twelve knots."},
            ],
        }
    ],
    "alpaca": [
        {
            "instruction": "Translate.",
            "input": "Wind",
            "output": "Vent",
            "system": "Be short.",
            "history": [["Hi", "Yes"]],
        }
    ],
    "chatml": [{"text": CHATML}],
    "simonw_llm": LLM,
    **TREE_SAMPLES,
}
"""By the name of the format: records that it reads."""


def learned(records: Iterable[Any], settings: ReadSettings | None = None) -> list[Experience]:
    """The experiences in records, all of which are read.

    Raises:
        AssertionError: one is skipped.
    """
    found = understood(records, settings)
    assert [each for each in found if isinstance(each, str)] == []
    return [each for each in found if not isinstance(each, str)]


def understood(records: Iterable[Any], settings: ReadSettings | None = None) -> list[Experience | str]:
    """What each record gives: experiences, and reasons for what is skipped."""
    numbered = ((f"record {number}", record) for number, record in enumerate(records, 1))
    found = Learnables(settings or ReadSettings()).read(numbered)
    return [each if isinstance(each, str) else each.experience() for _, each in found]


def understood_file(data: bytes) -> list[tuple[str, Experience | str]]:
    """What the bytes of a file give, each with its place."""
    _, found = read_learnables(io.BytesIO(data))
    return [(position, each if isinstance(each, str) else each.experience()) for position, each in found]


def spoken(experience: Experience) -> list[tuple[str, str]]:
    """What stands before a reply, and the reply: for each message its role, its text and its calls."""
    said = [(message.role, message.whole_text) for message in experience.messages]
    return [*said, ("assistant", experience.whole_response)]
