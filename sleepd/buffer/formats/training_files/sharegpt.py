"""ShareGPT: a conversation as a list of ``from`` and ``value``, or of ``role`` and ``content``.

Shape: ``conversations``; ``system`` and ``tools`` beside it. The roles ``function_call`` and ``observation`` are a
call of a tool and its result. ``chosen`` and ``rejected`` may follow: then only the chosen reply is learned.
Salience: a message with ``weight``, ``loss`` or ``train`` of 0 or false is context only; a chosen reply has 0.8.
Left out: ``rejected``.
Source: https://github.com/hiyouga/LLaMA-Factory (data/README.md, ShareGPT format), and Axolotl's ``chat_template``
data sets
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    CHOSEN,
    ROLES,
    Format,
    NotRead,
    Record,
    call_of,
    content_of,
    identifier_of,
    json_value,
    list_of,
    object_of,
    openai_message,
    openai_tools,
    shown,
    text_of,
    weighted,
)
from sleepd.protocol.chat_example import Message, MessageRole, ToolCall

_ROLES: Final[dict[str, MessageRole]] = {
    **ROLES,
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "function_call": "assistant",
    "observation": "tool",
}
_FLAGS: Final = ("weight", "loss", "train", "training")


def _recognises(record: Record) -> bool:
    return isinstance(record.get("conversations"), list)


def _turn(value: Any, name: str) -> Turn:
    record = object_of(value, name)
    is_supervised = all(weighted(record.get(flag)) for flag in _FLAGS)
    kind = record.get("from", record.get("role"))
    role = _ROLES.get(str(kind))
    if role is None:
        raise NotRead(f"{name}.from: expected human, gpt, system or a tool's role, found {shown(kind)}")
    if record.get("tool_calls"):
        message, content = openai_message({**record, "role": role}, name)
        return Turn(message=message, is_supervised=is_supervised, is_opaque=content.is_opaque)
    content = content_of(record.get("value", record.get("content")), f"{name}.value")
    calls = _calls(content.text) if kind == "function_call" else ()
    message = Message(role=role, text="" if calls else content.text, calls=calls)
    return Turn(message=message, is_supervised=is_supervised, is_opaque=content.is_opaque)


def _calls(text: str) -> tuple[ToolCall, ...]:
    """The calls that a text writes as JSON; none where it does not, so that it stays text."""
    value = json_value(text)
    asked = value if isinstance(value, list) else [value]
    if not all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in asked):
        return ()
    return tuple(call_of(each["name"], each.get("arguments")) for each in asked)


def _conversations(record: Record) -> Iterator[Conversation]:
    turns = []
    if system := text_of(record.get("system"), "system"):
        turns.append(Turn(message=Message(role="system", text=system)))
    listed = list_of(record["conversations"], "conversations")
    turns += [_turn(each, f"conversations[{place}]") for place, each in enumerate(listed)]
    if isinstance(record.get("chosen"), Mapping):
        chosen = _turn(record["chosen"], "chosen").message
        turns = [Turn(message=turn.message, is_supervised=False, is_opaque=turn.is_opaque) for turn in turns]
        turns.append(Turn(message=chosen, salience=CHOSEN))
    if not any(turn.message.role == "assistant" for turn in turns):
        raise NotRead("conversations: expected a message from gpt, found none")
    yield Conversation(
        turns=turns,
        id=identifier_of(record.get("id")),
        tools=openai_tools(record.get("tools") or None),
    )


FORMAT = Format(
    name="sharegpt",
    title="ShareGPT",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="a data set",
    feedback="`weight`, `loss`, `train` of 0: context only; `chosen`: 0.8",
)
