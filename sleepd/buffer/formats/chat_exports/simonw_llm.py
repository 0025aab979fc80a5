"""The log of the command ``llm`` as ``llm logs -n 0 --json --expand`` prints it.

Shape: an array of responses with ``prompt``, ``system``, ``response`` and ``conversation_id``, the oldest first. The
responses of one conversation are its turns. ``tool_calls`` belong to the response, ``tool_results`` to the prompt;
``prompt_fragments`` stand before the prompt.
Nothing becomes the salience. A prompt with an attachment, or with a fragment that was not expanded, is opaque: the
response to it is context only.
Source: https://llm.datasette.io/en/stable/logging.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    Format,
    NotRead,
    Record,
    call_of,
    identifier_of,
    list_of,
    object_of,
    openai_tools,
    text_of,
)
from sleepd.buffer.reply_origin import origin_of
from sleepd.protocol.chat_example import Message

_SHORTENED: Final = 100
"""Characters of a fragment that was not expanded, an ellipsis of three points at its end."""

_NAME: Final = 64
"""Characters of an id in a reason."""


def _recognises(record: Record) -> bool:
    return "conversation_id" in record and "prompt" in record and "response" in record and "datetime_utc" in record


class LlmLogReader:
    """Takes the responses in and sorts them by conversation."""

    def __init__(self) -> None:
        self._turns: dict[str, list[Turn]] = {}
        self._tools: dict[str, str] = {}
        self._systems: dict[str, str] = {}
        self._said: dict[str, list[Turn]] = {}
        """By the id of the response."""

    def add(self, record: Record) -> None:
        """See ``SessionReader``."""
        name = identifier_of(record.get("conversation_id")) or identifier_of(record.get("id"))
        if not name:
            raise NotRead("conversation_id: expected text, found nothing")
        system = _with_fragments(record, "system")
        turns = [*_asked(record), _reply(record)]
        own = identifier_of(record.get("id"))
        if own and own in self._said:
            if self._said[own] == turns:
                return  # printed twice
            raise NotRead(f"id: {own[:_NAME]} stands above with another text")
        self._said[own] = [*turns]
        tools = openai_tools(record.get("tools"))
        if system.message.text and system.message.text != self._systems.get(name):
            self._systems[name] = system.message.text
            turns.insert(0, system)
        self._tools[name] = self._tools.get(name) or tools
        self._turns.setdefault(name, []).extend(turns)

    def conversations(self) -> Iterator[Conversation]:
        """See ``SessionReader``."""
        for name, turns in self._turns.items():
            yield Conversation(turns=turns, id=name, tools=self._tools[name])


def _with_fragments(record: Record, name: str) -> Turn:
    """The prompt or the system message, with the fragments that stand before it."""
    listed = list_of(record.get(f"{name}_fragments"), f"{name}_fragments")
    fragments = [text_of(object_of(each, name).get("content"), f"{name}_fragments") for each in listed]
    is_shortened = any(len(text) == _SHORTENED and text.endswith("...") for text in fragments)
    text = "\n".join(part for part in (*fragments, text_of(record.get(name), name)) if part)
    role: Any = "user" if name == "prompt" else name
    return Turn(message=Message(role=role, text=text), is_opaque=is_shortened)


def _asked(record: Record) -> Iterator[Turn]:
    for value in list_of(record.get("tool_results"), "tool_results"):
        result = object_of(value, "tool_results")
        text, call = text_of(result.get("output"), "tool_results"), identifier_of(result.get("tool_call_id"))
        yield Turn(message=Message(role="tool", text=text, call_id=call, name=identifier_of(result.get("name"))))
    prompt = _with_fragments(record, "prompt")
    has_attachment = bool(list_of(record.get("attachments"), "attachments"))
    if prompt.message.text or has_attachment:
        yield Turn(message=prompt.message, is_opaque=prompt.is_opaque or has_attachment)


def _reply(record: Record) -> Turn:
    asked = [object_of(each, "tool_calls") for each in list_of(record.get("tool_calls"), "tool_calls")]
    calls = tuple(call_of(each.get("name"), each.get("arguments"), each.get("tool_call_id")) for each in asked)
    message = Message(role="assistant", text=text_of(record["response"], "response"), calls=calls)
    written = record.get("datetime_utc")  # as its name says, whether the zone stands in it or not
    times = (written, f"{written}Z") if isinstance(written, str) else ()
    return Turn(message=message, id=identifier_of(record.get("id")), origin=origin_of(record.get("model"), *times))


FORMAT = Format(
    name="simonw_llm",
    title="Log of the command `llm`",
    recognises=_recognises,
    session=LlmLogReader,
    usual_place="`llm logs -n 0 --json --expand > FILE`",
)
