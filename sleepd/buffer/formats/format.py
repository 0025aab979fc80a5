"""The face of a format, and what the formats have in common. Pure.

A new format is a copy of a neighbour, in the package of its kind, and an entry in ``known_formats``.

A format says whether a decoded record is one of its own, and reads conversations from it. Where one record is one
message of a conversation, as in the sessions of coding agents, it gives a :class:`SessionReader`, which takes in the
records of one file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from sleepd.buffer.conversation import Conversation
from sleepd.buffer.rating.rating_names import REJECTED
from sleepd.errors import DECODE_ERRORS
from sleepd.protocol.chat_example import Message, MessageRole, ToolCall

Record = Mapping[str, Any]
CHOSEN: Final = 0.8
"""The salience of the reply that was chosen among regenerated ones, where nobody rated it."""
ROLES: Final[dict[str, MessageRole]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "toolResult": "tool",
}
_RATINGS: Final = {
    **dict.fromkeys(
        ("thumbsup", "thumbs_up", "up", "like", "liked", "positive", "good", "correct", "pass", "👍", "1", "+1"), 1
    ),
    **dict.fromkeys(("thumbsdown", "thumbs_down", "down", "dislike", "disliked", "negative", "bad", "incorrect"), -1),
    **dict.fromkeys(("fail", "wrong", "👎", "_1"), -1),
}
"""What people and programs write for a good and a bad reply, in lower case."""
_TINTS: Final = dict.fromkeys([0xFE0F, *range(0x1F3FB, 0x1F400)])
"""What makes a thumb one of a colour."""
_NONE: Final = re.compile(r"\s*(?:-.*|[+]?0+(?:[.]0*)?)\s*")
_TEXT_PARTS: Final = ("text", "input_text", "output_text")


class NotRead(Exception):
    """A record, or a part of it, cannot be read; the message says what was expected and what was found."""


class SessionReader(Protocol):
    """The records of one file, of which all together make up a conversation."""

    def add(self, record: Record) -> None:
        """Take one in.

        Raises:
            NotRead: it is none of the format, or damaged; the others are read nevertheless.
        """

    def conversations(self) -> Iterable[Conversation | NotRead]:
        """What they make up, and what of it cannot be read.

        Raises:
            NotRead: nothing.
        """


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format."""

    name: str
    """In ``buffer.format``."""
    title: str
    recognises: Callable[[Record], bool]
    """Whether a decoded object is a record of this format, whatever is wrong with its parts."""
    conversations: Callable[[Record], Iterable[Conversation | NotRead]] | None = None
    """What one record holds; it raises ``NotRead``, or gives it for one of several parts. None: see ``session``."""
    session: Callable[[], SessionReader] | None = None
    """For the records of one file. None: each record stands for itself."""
    usual_place: str = ""
    """Where the program keeps its files."""
    feedback: str = ""
    """What becomes the salience; empty: the format has nothing of that kind."""


@dataclass(frozen=True)
class Content:
    """The content of a message."""

    text: str
    is_opaque: bool = False
    """It holds a part that is no text, such as an image."""


def shown(value: Any) -> str:
    """What was found, for a reason: never a text, which nobody has screened."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, bool):
        return str(value).lower()
    return "a number" if isinstance(value, int | float) else type(value).__name__


def text_of(value: Any, name: str) -> str:
    """A text; nothing is an empty one.

    Raises:
        NotRead: it is none, or no valid Unicode.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise NotRead(f"{name}: expected text, found {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotRead(f"{name}: is not valid Unicode") from None
    return value


def identifier_of(value: Any) -> str:
    """The program's own name of something; empty where it gives none that can be used."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    return value if isinstance(value, str) and len(value) <= 256 and value.isprintable() else ""


def object_of(value: Any, name: str) -> Record:
    """An object.

    Raises:
        NotRead: it is none.
    """
    if not isinstance(value, Mapping):
        raise NotRead(f"{name}: expected an object, found {shown(value)}")
    return value


def list_of(value: Any, name: str) -> list[Any]:
    """A list; nothing is an empty one.

    Raises:
        NotRead: it is none.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise NotRead(f"{name}: expected a list, found {shown(value)}")
    return value


def content_of(value: Any, name: str) -> Content:
    """The content of a message: a text, nothing, or a list of parts.

    Raises:
        NotRead: it is none of these.
    """
    if not isinstance(value, list):
        return Content(text_of(value, name))
    texts, is_opaque = [], False
    for part in value:
        if isinstance(part, str):
            texts.append(text_of(part, name))
        elif isinstance(part, Mapping) and part.get("type", "text") in _TEXT_PARTS and "text" in part:
            texts.append(text_of(part["text"], name))
        else:
            is_opaque = True
    return Content("\n".join(text for text in texts if text), is_opaque)


def with_thought(thought: str, text: str) -> str:
    """A reply as one text, with the thought that came before it."""
    return f"<think>\n{thought.strip()}\n</think>\n\n{text}" if thought.strip() else text


def json_text(value: Any) -> str:
    """A value as JSON text; a text is JSON text already.

    Raises:
        NotRead: it is nested too deeply.
    """
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise NotRead("a value is nested too deeply") from None


def json_value(text: str) -> Any:
    """What JSON text says; None where it is no JSON."""
    try:
        return msgspec.json.decode(text)
    except (*DECODE_ERRORS, UnicodeEncodeError):
        return None


def call_of(name: Any, arguments: Any, id_: Any = None) -> ToolCall:
    """A call of a tool.

    Raises:
        NotRead: it has no name.
    """
    if not isinstance(name, str) or not name:
        raise NotRead(f"tool call: expected a name, found {shown(name)}")
    arguments = {} if arguments is None else arguments
    return ToolCall(
        name=text_of(name, "tool call"),
        arguments=text_of(json_text(arguments), "arguments"),
        id=identifier_of(id_),
    )


def openai_message(record: Any, name: str) -> tuple[Message, Content]:
    """A message in the form of OpenAI's chat completions.

    Raises:
        NotRead: it is none.
    """
    record = object_of(record, name)
    role = ROLES.get(str(record.get("role")))
    if role is None:
        raise NotRead(f"{name}.role: expected system, user, assistant or tool, found {shown(record.get('role'))}")
    content = content_of(record.get("content"), f"{name}.content")
    calls = []
    if role == "assistant" and isinstance(older := record.get("function_call"), Mapping):
        calls.append(call_of(older.get("name"), older.get("arguments")))
    for each in list_of(record.get("tool_calls"), f"{name}.tool_calls"):
        call = object_of(each, f"{name}.tool_calls")
        custom = call.get("custom")
        if isinstance(custom, Mapping):
            calls.append(call_of(custom.get("name"), {"input": custom.get("input")}, call.get("id")))
            continue
        function = object_of(call.get("function", call), f"{name}.tool_calls.function")
        calls.append(call_of(function.get("name"), function.get("arguments"), call.get("id")))
    thought = record.get("reasoning_content", record.get("reasoning"))
    text = with_thought(thought, content.text) if isinstance(thought, str) and role == "assistant" else content.text
    message = Message(
        role=role,
        text=text_of(text, name),
        calls=tuple(calls) if role == "assistant" else (),
        call_id=identifier_of(record.get("tool_call_id")) if role == "tool" else "",
        name=identifier_of(record.get("name")) if role == "tool" else "",
    )
    return message, content


def openai_tools(value: Any) -> str:
    """The tools that were offered, as JSON text in the form of OpenAI's chat completions; empty: none.

    Each may be in that form, or flat with ``parameters`` or ``input_schema``. One without a name, such as a search that
    the server does itself, is left out.

    Raises:
        NotRead: they are no list of objects.
    """
    value = json_value(value) if isinstance(value, str) else value
    tools = [_openai_tool(object_of(tool, "tools")) for tool in list_of(value, "tools")]
    named = [tool for tool in tools if tool is not None]
    return text_of(json_text(named), "tools") if named else ""


def _openai_tool(tool: Record) -> Record | None:
    if isinstance(tool.get("function"), Mapping):
        return tool
    if not isinstance(tool.get("name"), str):
        return None
    schema = tool.get("parameters", tool.get("input_schema"))
    schema = json_value(schema) if isinstance(schema, str) else schema
    described = {"name": tool["name"], "description": tool.get("description") or "", "parameters": schema or {}}
    return {"type": "function", "function": described}


def rated(value: Any) -> float | None:
    """The salience that a rating stands for: thumbs up 1, thumbs down ``REJECTED``, nothing None."""
    if isinstance(value, str):
        value = _RATINGS.get(value.translate(_TINTS).strip().lower().replace(" ", "").replace("-", "_"))
    if not isinstance(value, int | float) or value == 0 or value != value:
        return None
    return 1.0 if value > 0 else REJECTED


def scored(value: Any) -> float | None:
    """The salience that a score from 0 to 1 stands for: itself; 0 and less ``REJECTED``. None: it is no such score."""
    if not isinstance(value, int | float) or not value <= 1:
        return None
    return float(value) if value > 0 else REJECTED


def weighted(value: Any) -> bool:
    """Whether a ``weight`` lets a message be learned: all but 0 and less do, whether number or text."""
    return not ((isinstance(value, int | float) and value <= 0) or (isinstance(value, str) and _NONE.fullmatch(value)))
