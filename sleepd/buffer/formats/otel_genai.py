"""Spans of OpenTelemetry with the attributes of generative AI, as OTLP JSON lines.

Shape: ``resourceSpans`` > ``scopeSpans`` > ``spans``; in a span ``gen_ai.input.messages``,
``gen_ai.output.messages``, ``gen_ai.system_instructions`` and ``gen_ai.tool.definitions``, structured or as JSON
text; in older ones the events ``gen_ai.content.prompt`` and ``gen_ai.content.completion``, or attributes with an
index (``gen_ai.prompt.0.content``, as OpenLLMetry writes them). Each span of a call repeats what was said before, so
that only its output is learned, of several choices the first.
Salience: the least of the events ``gen_ai.evaluation.result`` of the span, by label or score (0 to 1).
Left out: spans of agents, tools and embeddings; named: calls that failed, calls without their texts, and those in the
attributes of OpenInference.
Source: open-telemetry/semantic-conventions, docs/gen-ai (gen-ai-spans.md, gen-ai-events.md and the JSON schemas)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.protocol.chat_example import Message

from .api_bodies import check_end, turns_of_messages
from .format import (
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
    rated,
    scored,
    shown,
    text_of,
    with_thought,
)

_CALLS: Final = ("chat", "text_completion", "generate_content")
_SAID: Final = ("gen_ai.output.messages", "gen_ai.completion.0.role", "gen_ai.completion.0.content")
"""Of these a span has one, of which the operation is not named and which is a call of a model nevertheless."""
_DEEPEST: Final = 64
_LONGEST_INDEX: Final = 8


def _recognises(record: Record) -> bool:
    return "resourceSpans" in record or "resource_spans" in record


def _plain(value: Any, depth: int = 0) -> Any:
    """A value of OTLP as the value that it stands for."""
    if depth > _DEEPEST:
        raise NotRead("attributes: a value is nested too deeply")
    value = object_of(value, "attributes")
    if "arrayValue" in value:
        listed = list_of(object_of(value["arrayValue"], "arrayValue").get("values"), "arrayValue")
        return [_plain(each, depth + 1) for each in listed]
    if "kvlistValue" in value:
        return _attributes(object_of(value["kvlistValue"], "kvlistValue").get("values"), depth + 1)
    return next(iter(value.values()), None)


def _attributes(value: Any, depth: int = 0) -> dict[str, Any]:
    pairs = [object_of(each, "attributes") for each in list_of(value, "attributes")]
    return {str(pair.get("key")): _plain(pair.get("value", {}), depth) for pair in pairs}


def _listed(value: Any, name: str) -> list[Any]:
    return list_of(json_value(value) if isinstance(value, str) else value, name)


def _spans(record: Record) -> Iterator[Any]:
    for resource in list_of(record.get("resourceSpans", record.get("resource_spans")), "resourceSpans"):
        found = object_of(resource, "resourceSpans")
        for scope in list_of(found.get("scopeSpans", found.get("scope_spans")), "scopeSpans"):
            yield from list_of(object_of(scope, "scopeSpans").get("spans"), "spans")


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
    found = []
    for name, attributes in events:
        if name == "gen_ai.evaluation.result":
            label = rated(attributes.get("gen_ai.evaluation.score.label"))
            found.append(scored(attributes.get("gen_ai.evaluation.score.value")) if label is None else label)
    return min((each for each in found if each is not None), default=None)


def _texts(attributes: Mapping[str, Any], events: Iterable[tuple[str, dict[str, Any]]]) -> tuple[list[Any], list[Any]]:
    """The messages of the request and those of the response."""
    older = {name: values for name, values in events if name.startswith("gen_ai.content.")}
    asked = attributes.get("gen_ai.input.messages", older.get("gen_ai.content.prompt", {}).get("gen_ai.prompt"))
    said = attributes.get("gen_ai.output.messages", older.get("gen_ai.content.completion", {}).get("gen_ai.completion"))
    if asked is None or said is None:
        asked, said = _indexed(attributes, "gen_ai.prompt."), _indexed(attributes, "gen_ai.completion.")
    if not asked or not said:
        raise NotRead("gen_ai.input.messages: the span has no texts, let the instrumentation capture message content")
    return _listed(asked, "gen_ai.input.messages"), _listed(said, "gen_ai.output.messages")


def _indexed(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """The objects of a list whose parts are attributes: ``gen_ai.prompt.0.role``, ``gen_ai.prompt.0.content`` …"""
    found: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        index, _, name = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix) and len(index) < _LONGEST_INDEX and index.isascii() and index.isdigit():
            found.setdefault(int(index), {})[name] = value
    for each in found.values():
        if calls := _indexed(each, "tool_calls."):
            each["tool_calls"] = calls
        content = each.get("content")
        if isinstance(content, str) and content.startswith('[{"type"'):
            each["content"] = json_value(content) or content
    return [each for _, each in sorted(found.items())]


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
    attributes = _attributes(span.get("attributes"))
    if attributes.get("openinference.span.kind") == "LLM" and not _is_call(attributes):
        raise NotRead("llm.input_messages: OpenInference is not read, let the instrumentation write gen_ai attributes")
    if not _is_call(attributes):
        return None
    if object_of(span.get("status") or {}, "status").get("code") in (2, "STATUS_CODE_ERROR"):
        raise NotRead("status: the call failed")
    listed = [object_of(each, "events") for each in list_of(span.get("events"), "events")]
    events = [(str(each.get("name")), _attributes(each.get("attributes"))) for each in listed]
    asked, said = _texts(attributes, events)
    before = [turn for place, each in enumerate(asked) for turn in _turns(each, f"gen_ai.input.messages[{place}]")]
    given = identifier_of(attributes.get("gen_ai.response.id"))
    reply = Turn(
        message=_reply(said),
        id=given or identifier_of(span.get("spanId")),
        is_id_unique=not given,
        salience=_salience(events),
    )
    return Conversation(
        turns=[*_system(attributes.get("gen_ai.system_instructions")), *before, reply],
        id=identifier_of(attributes.get("gen_ai.conversation.id")),
        tools=openai_tools(attributes.get("gen_ai.tool.definitions") or _indexed(attributes, "llm.request.functions.")),
        is_whole=False,
    )


def _conversations(record: Record) -> Iterator[Conversation | NotRead]:
    for span in _spans(record):
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
    feedback="event `gen_ai.evaluation.result`",
)
