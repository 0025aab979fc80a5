"""Attributes of OpenTelemetry, as OTLP JSON writes them, and those of OpenInference in the names of GenAI. Pure.

Source: open-telemetry/opentelemetry-proto (common.proto), and
https://arize-ai.github.io/openinference/spec/attributes/semantic-conventions.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sleepd.buffer.formats.format import NotRead, Record, identifier_of, json_value, list_of, object_of, rated, scored

EVALUATION: Final = "gen_ai.evaluation.result"
_DEEPEST: Final = 64
_LONGEST_INDEX: Final = 8


def plain(value: Any, depth: int = 0) -> Any:
    """A value of OTLP as the value that it stands for.

    Raises:
        NotRead: it is none, or nested too deeply.
    """
    if depth > _DEEPEST:
        raise NotRead("attributes: a value is nested too deeply")
    value = object_of(value, "attributes")
    if "arrayValue" in value:
        listed = list_of(object_of(value["arrayValue"], "arrayValue").get("values"), "arrayValue")
        return [plain(each, depth + 1) for each in listed]
    if "kvlistValue" in value:
        return attributes_of(object_of(value["kvlistValue"], "kvlistValue").get("values"), depth + 1)
    return next(iter(value.values()), None)


def attributes_of(value: Any, depth: int = 0) -> dict[str, Any]:
    """A list of attributes by their names.

    Raises:
        NotRead: it is none.
    """
    pairs = [object_of(each, "attributes") for each in list_of(value, "attributes")]
    return {str(pair.get("key")): plain(pair.get("value", {}), depth) for pair in pairs}


def each_of(record: Record, signal: str, inner: str, name: str) -> Iterator[Any]:
    """The spans, or the log records, of one line.

    Raises:
        NotRead: it is none.
    """
    for resource in list_of(record.get(f"resource{signal}", record.get(f"resource_{signal.lower()}")), signal):
        found = object_of(resource, f"resource{signal}")
        for scope in list_of(found.get(f"scope{signal}", found.get(f"scope_{signal.lower()}")), inner):
            yield from list_of(object_of(scope, f"scope{signal}").get(name), name)


def indexed(attributes: Mapping[str, Any], prefix: str, within: str = "") -> list[dict[str, Any]]:
    """The objects of a list whose parts are attributes: ``gen_ai.prompt.0.role``, ``gen_ai.prompt.0.content`` …

    Args:
        attributes: all.
        prefix: of the list's ones.
        within: what stands before each part's own name.
    """
    found: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        index, _, name = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix) and len(index) < _LONGEST_INDEX and index.isascii() and index.isdigit():
            found.setdefault(int(index), {})[name.removeprefix(within)] = value
    return [each for _, each in sorted(found.items())]


def salience_of(attributes: Mapping[str, Any]) -> float | None:
    """What an evaluation says, by its label or its score (0 to 1); None: nothing that is known."""
    label = rated(attributes.get("gen_ai.evaluation.score.label"))
    return scored(attributes.get("gen_ai.evaluation.score.value")) if label is None else label


def as_genai(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of OpenInference's span of a model's call, with those of GenAI that say the same."""
    tools = [json_value(str(each.get("tool.json_schema", ""))) for each in indexed(attributes, "llm.tools.")]
    return {
        **attributes,
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": [*map(_message, indexed(attributes, "llm.input_messages.", "message."))],
        "gen_ai.output.messages": [*map(_message, indexed(attributes, "llm.output_messages.", "message."))],
        "gen_ai.tool.definitions": [tool for tool in tools if isinstance(tool, Mapping)],
        "gen_ai.conversation.id": attributes.get("session.id"),
        "gen_ai.request.model": attributes.get("llm.model_name"),
    }


def _message(found: Mapping[str, Any]) -> dict[str, Any]:
    """A message in the form of OpenAI."""
    parts = indexed(found, "contents.", "message_content.")
    texts = [{"type": each.get("type"), "text": each.get("text")} for each in parts]
    calls = [
        {
            "id": identifier_of(each.get("id")),
            "function": {"name": each.get("function.name"), "arguments": each.get("function.arguments")},
        }
        for each in indexed(found, "tool_calls.", "tool_call.")
    ]
    return {
        "role": found.get("role"),
        "content": texts or found.get("content"),
        "tool_calls": calls,
        "tool_call_id": found.get("tool_call_id"),
        "name": found.get("name"),
    }


def evaluations(record: Record) -> Iterator[tuple[str, str, float]]:
    """The evaluations in a line of log records: what each rates, its name, and the salience that it stands for.

    Each counts for the response that it names, and for the span that it belongs to.

    Raises:
        NotRead: an evaluation says nothing, or of nothing.
    """
    for value in each_of(record, "Logs", "scopeLogs", "logRecords"):
        log = object_of(value, "logRecords")
        attributes = attributes_of(log.get("attributes"))
        if EVALUATION not in (log.get("eventName"), attributes.get("event.name")):
            continue
        salience = salience_of(attributes)
        if salience is None:
            raise NotRead("gen_ai.evaluation.score: expected a label such as 'pass', or a value up to 1")
        keys = [identifier_of(attributes.get("gen_ai.response.id")), identifier_of(log.get("spanId"))]
        if not any(keys):
            raise NotRead("gen_ai.response.id, spanId: expected text, found nothing")
        for key in filter(None, keys):
            yield key, identifier_of(attributes.get("gen_ai.evaluation.name")), salience
