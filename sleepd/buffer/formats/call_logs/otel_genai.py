"""Spans of OpenTelemetry with the attributes of generative AI, as OTLP JSON lines.

Shape: ``resourceSpans`` > ``scopeSpans`` > ``spans``; in a span ``gen_ai.input.messages``,
``gen_ai.output.messages``, ``gen_ai.system_instructions`` and ``gen_ai.tool.definitions``, structured or as JSON
text; in older ones the events ``gen_ai.content.prompt`` and ``gen_ai.content.completion``, or attributes with an
index (``gen_ai.prompt.0.content``, as OpenLLMetry writes them). Spans of OpenInference (``llm.input_messages``) are
read as those that say the same. Each span of a call repeats what was said before, so that only its output is learned,
of several choices the first.
Salience: the least of the events ``gen_ai.evaluation.result`` of the span, by label or score (0 to 1); those that come
as log records stand in a file of their own (``ratings``).
Left out: spans of agents, tools and embeddings; named: calls that failed, and calls without their texts.
Source: open-telemetry/semantic-conventions, docs/gen-ai (gen-ai-spans.md, gen-ai-events.md and the JSON schemas)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    ROLES,
    Format,
    NotRead,
    Record,
    call_of,
    content_of,
    identifier_of,
    json_text,
    json_value,
    list_of,
    object_of,
    openai_tools,
    shown,
    text_of,
    with_thought,
)
from sleepd.buffer.formats.shared_parts.api_bodies import check_end, turns_of_messages
from sleepd.buffer.reply_origin import origin_of
from sleepd.protocol.chat_example import Message

from .otel_attributes import EVALUATION, as_genai, attributes_of, each_of, indexed, salience_of

_CALLS: Final = ("chat", "text_completion", "generate_content")
_SAID: Final = ("gen_ai.output.messages", "gen_ai.completion.0.role", "gen_ai.completion.0.content")
"""Of these a span has one, of which the operation is not named and which is a call of a model nevertheless."""


def _recognises(record: Record) -> bool:
    return "resourceSpans" in record or "resource_spans" in record


def _listed(value: Any, name: str) -> list[Any]:
    return list_of(json_value(value) if isinstance(value, str) else value, name)


def _turns(value: Any, name: str) -> list[Turn]:
    """A message of the conventions as turns: what tools gave stands among its parts."""
    record = object_of(value, name)
    check_end(record.get("finish_reason"))
    if "parts" not in record:
        return turns_of_messages([record], name)
    role = ROLES.get(str(record.get("role")))
    if role is None:
        raise NotRead(f"{name}.role: expected system, user, assistant or tool, found {shown(record.get('role'))}")
    texts, thoughts, calls, results, is_opaque = [], [], [], [], False
    for each in list_of(record["parts"], f"{name}.parts"):
        part = object_of(each, f"{name}.parts")
        kind = part.get("type")
        if kind == "text":
            texts.append(text_of(part.get("content"), f"{name}.text"))
        elif kind == "reasoning":
            thoughts.append(text_of(part.get("content"), f"{name}.reasoning"))
        elif kind == "tool_call":
            calls.append(call_of(part.get("name"), part.get("arguments"), part.get("id")))
        elif kind == "tool_call_response":
            result = text_of(json_text(part.get("response", part.get("result"))), f"{name}.response")
            results.append(Message(role="tool", text=result, call_id=identifier_of(part.get("id"))))
        else:
            is_opaque = True
    text = "\n".join(texts)
    turns = [Turn(message=result, is_supervised=False) for result in results]
    if role == "assistant":
        text = with_thought("\n".join(thoughts), text)
    if text or calls or is_opaque:
        message = Message(role=role, text=text, calls=tuple(calls) if role == "assistant" else ())
        turns.append(Turn(message=message, is_supervised=False, is_opaque=is_opaque))
    return turns


def _salience(events: Iterable[tuple[str, Mapping[str, Any]]]) -> float | None:
    found = (salience_of(attributes) for name, attributes in events if name == EVALUATION)
    return min((each for each in found if each is not None), default=None)


def _texts(attributes: Mapping[str, Any], events: Iterable[tuple[str, dict[str, Any]]]) -> tuple[list[Any], list[Any]]:
    """The messages of the request and those of the response."""
    older = {name: values for name, values in events if name.startswith("gen_ai.content.")}
    asked = attributes.get("gen_ai.input.messages", older.get("gen_ai.content.prompt", {}).get("gen_ai.prompt"))
    said = attributes.get("gen_ai.output.messages", older.get("gen_ai.content.completion", {}).get("gen_ai.completion"))
    if asked is None or said is None:
        asked, said = _messages(attributes, "gen_ai.prompt."), _messages(attributes, "gen_ai.completion.")
    if not asked or not said:
        raise NotRead("gen_ai.input.messages: the span has no texts, let the instrumentation capture message content")
    return _listed(asked, "gen_ai.input.messages"), _listed(said, "gen_ai.output.messages")


def _messages(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """Messages whose parts are attributes, as OpenLLMetry writes them."""
    found = indexed(attributes, prefix)
    for each in found:
        if calls := indexed(each, "tool_calls."):
            each["tool_calls"] = calls
        content = each.get("content")
        if isinstance(content, str) and content.startswith('[{"type"'):
            each["content"] = json_value(content) or content
    return found


def _is_call(attributes: Mapping[str, Any]) -> bool:
    operation = attributes.get("gen_ai.operation.name")
    return operation in _CALLS or (operation is None and any(name in attributes for name in _SAID))


def _reply(said: list[Any]) -> Message:
    turns = _turns(said[0], "gen_ai.output.messages[0]") if said else []
    reply = next((turn.message for turn in turns if turn.message.role == "assistant"), None)
    if reply is None:
        raise NotRead("gen_ai.output.messages: expected a message of the assistant, found none")
    return reply


def _system(value: Any) -> list[Turn]:
    parts = [object_of(each, "gen_ai.system_instructions") for each in _listed(value, "gen_ai.system_instructions")]
    text = content_of([part.get("content") for part in parts], "gen_ai.system_instructions").text
    return [Turn(message=Message(role="system", text=text))] if text else []


def _conversation(value: Any) -> Conversation | None:
    span = object_of(value, "spans")
    attributes = attributes_of(span.get("attributes"))
    if attributes.get("openinference.span.kind") == "LLM" and not _is_call(attributes):
        attributes = as_genai(attributes)
    if not _is_call(attributes):
        return None
    if object_of(span.get("status") or {}, "status").get("code") in (2, "STATUS_CODE_ERROR"):
        raise NotRead("status: the call failed")
    listed = [object_of(each, "events") for each in list_of(span.get("events"), "events")]
    events = [(str(each.get("name")), attributes_of(each.get("attributes"))) for each in listed]
    asked, said = _texts(attributes, events)
    before = [turn for place, each in enumerate(asked) for turn in _turns(each, f"gen_ai.input.messages[{place}]")]
    if not any(turn.message.role == "user" for turn in before):
        raise NotRead("gen_ai.input.messages: expected a message of the user, found none")
    given = identifier_of(attributes.get("gen_ai.response.id"))
    model = attributes.get("gen_ai.request.model") or attributes.get("gen_ai.response.model")
    reply = Turn(
        message=_reply(said),
        id=given or identifier_of(span.get("spanId")),
        is_id_unique=not given,
        salience=_salience(events),
        rated_as=identifier_of(span.get("spanId")),
        origin=origin_of(model, span.get("endTimeUnixNano")),
    )
    return Conversation(
        turns=[*_system(attributes.get("gen_ai.system_instructions")), *before, reply],
        id=identifier_of(attributes.get("gen_ai.conversation.id")),
        tools=openai_tools(attributes.get("gen_ai.tool.definitions") or indexed(attributes, "llm.request.functions.")),
        is_whole=False,
    )


def _conversations(record: Record) -> Iterator[Conversation | NotRead]:
    for span in each_of(record, "Spans", "scopeSpans", "spans"):
        try:
            conversation = _conversation(span)
        except NotRead as error:
            yield error
        else:
            if conversation is not None:
                yield conversation


FORMAT = Format(
    name="otel_genai",
    title="OpenTelemetry GenAI spans",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="the file exporter of a collector (OTLP JSON)",
    feedback="event `gen_ai.evaluation.result` of the span, or of a log file beside it",
)
