"""Observations exported from Langfuse, one a record.

Shape: ``type``, ``trace_id``, ``input`` and ``output`` as JSON text or as values. Only a ``GENERATION`` is a call of
a model. Each repeats what was said before, so that only its output is learned. Its id is that of the observation; the
trace is its conversation, so that a score of the trace counts for each generation in it.
Salience: the scores, which Langfuse exports as a file of their own (``ratings``).
Left out: other observations; named: a generation that failed or has no output.
Source: https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    Format,
    NotRead,
    Record,
    identifier_of,
    json_value,
    openai_tools,
    shown,
    text_of,
)
from sleepd.buffer.formats.shared_parts.api_bodies import reply_turn, request_turns, turns_of_messages
from sleepd.buffer.reply_origin import origin_of
from sleepd.protocol.chat_example import Message

_TYPES: Final = frozenset(
    ("GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL")
)

_MODELS: Final = ("model", "provided_model_name", "providedModelName")
_TIMES: Final = ("end_time", "endTime", "start_time", "startTime")


def _recognises(record: Record) -> bool:
    kind = record.get("type")
    has_trace = "trace_id" in record or "traceId" in record
    return isinstance(kind, str) and kind in _TYPES and has_trace and "prompt" not in record


def _value(value: Any) -> Any:
    """What was logged; a text that is JSON stands for what it says."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[", '"')):
        found = json_value(value)
        return value if found is None else found
    return value


def _input(value: Any) -> list[Turn]:
    if isinstance(value, list):
        return turns_of_messages(value, "input")
    if isinstance(value, Mapping):
        return request_turns(value)
    if not isinstance(value, str):
        raise NotRead(f"input: expected messages or text, found {shown(value)}")
    return [Turn(message=Message(role="user", text=text_of(value, "input")), is_supervised=False)]


def _conversations(record: Record) -> Iterator[Conversation]:
    if record["type"] != "GENERATION":
        return
    if record.get("level") == "ERROR":
        raise NotRead("level: the generation failed")
    asked, said = _value(record.get("input")), _value(record.get("output"))
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if said is None:
        raise NotRead("output: expected a message or text, found nothing")
    tools = asked.get("tools") if isinstance(asked, Mapping) else None
    model = next((record[name] for name in _MODELS if name in record), None)
    origin = origin_of(model, *(record.get(name) for name in _TIMES))
    reply = msgspec.structs.replace(reply_turn(said), id=identifier_of(record.get("id")), origin=origin)
    yield Conversation(
        turns=[*_input(asked), reply],
        id=identifier_of(record.get("trace_id", record.get("traceId"))),
        tools=openai_tools(tools or _value(record.get("tool_definitions"))),
        is_whole=False,
    )


FORMAT = Format(
    name="langfuse",
    title="Langfuse observations",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="an export of `observations`",
    feedback="the scores file beside it",
)
