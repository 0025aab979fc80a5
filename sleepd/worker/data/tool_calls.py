"""Tools, calls and their results in the form in which chat templates want them: that of OpenAI, with three variants.

Most templates want the arguments of a call as an object, which they write as JSON or as XML; some as JSON text. Some
want no text at all (``None``) in a message that only calls tools. Some want ids of nine letters or digits, and vLLM
then gives them the last nine. Which of these a template wants is found out by trying (``tool_probing``).

A template that has no place for calls is given none: what it would be asked with is not known. Ollama refuses tools for
such a model ("does not support tools"), llama.cpp writes a form of its own ("Chat format: Generic"), and vLLM needs
another template. So an example that calls tools, or has results of tools before it, is left out with that reason. Tools
that were only offered are left out instead of the example, for so is the reply generated where templates decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

from sleepd.protocol.chat_example import Message, ToolCall

from .control_tokens import Refused
from .marks import Marks
from .messages import Said, ThinkingMessage, Turn

_DEEPEST = 100
_ID_LENGTH = 9


@dataclass(frozen=True)
class CallForm:
    """How a template wants calls."""

    is_text: bool = False
    """Whether it wants the arguments as JSON text."""
    empty: str | None = ""
    """What it wants as the text of a message that has none."""
    has_short_ids: bool = False
    """Whether it wants ids of nine letters or digits."""


USUAL_FORM = CallForm()


def call_entries(calls: Iterable[ToolCall], form: CallForm, marks: Marks, label: str) -> list[dict[str, Any]]:
    """What a message has as ``tool_calls``, with marks around each string of the arguments.

    Raises:
        Refused: the arguments of a call are no JSON object.
    """
    entries = []
    for number, call in enumerate(calls, start=1):
        arguments = parsed_arguments(call)
        name = f"{label} {number}"
        entry = {
            "id": marks.escaped(short_id(call.id) if form.has_short_ids else call.id),
            "type": "function",
            "function": {
                "name": marks.escaped(call.name),
                "arguments": marks.around(name, call.arguments.strip() or "{}")
                if form.is_text
                else marks.within(name, arguments),
            },
        }
        entries.append(entry)
    return entries


def result_keys(message: Message, form: CallForm, marks: Marks) -> dict[str, str]:
    """What a tool's message has beside its role and its text."""
    id_ = short_id(message.call_id) if form.has_short_ids else message.call_id
    keys = {"tool_call_id": id_, "name": message.name}
    return {key: marks.escaped(text) for key, text in keys.items() if text}


def short_id(id_: str) -> str:
    """Nine letters or digits: the last ones of ``id_``, or where it has fewer, some that follow from it."""
    kept = "".join(char for char in id_ if char.isascii() and char.isalnum())
    kept = kept if len(kept) >= _ID_LENGTH else sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()
    return kept[-_ID_LENGTH:]


def parsed_arguments(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call.

    Raises:
        Refused: they are no JSON object.
    """
    found = _parsed(call.arguments.strip() or "{}")
    if not isinstance(found, dict):
        raise Refused(f"the arguments of its call of {call.name[:80]!r} are no JSON object")
    return found


def parsed_tools(tools: str) -> list[dict[str, Any]] | None:
    """The tools that were offered; None: none were.

    Raises:
        Refused: they are no JSON array of objects.
    """
    if not tools.strip():
        return None
    found = _parsed(tools)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refused("its tools are no JSON array of objects")
    return found or None


@lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """The value; None where it is no JSON."""
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
        _check_depth(found, 0)
    except (ValueError, RecursionError):
        return None
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _check_depth(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(each, depth + 1)


def strings_in(value: Any) -> Iterator[str]:
    """Every string and every key in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from strings_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings_in(each)


def texts_of(turn: Turn) -> Iterator[str]:
    """Every text of a turn that may stand in what a template writes."""
    if isinstance(turn, Said):
        yield from (turn.answer, turn.thought)
    else:
        yield from (turn.text, turn.call_id, turn.name)
        if isinstance(turn, ThinkingMessage):
            yield turn.thought
    for call in turn.calls:
        yield from (call.name, call.id, call.arguments)
        yield from strings_in(parsed_arguments(call))
