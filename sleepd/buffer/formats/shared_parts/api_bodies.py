"""The bodies of requests to a model and of its answers, as servers take and give them. Pure.

Three forms are read, and a body may mix them: OpenAI's chat completions (``messages``; ``choices``; Ollama's
``message``), Anthropic's messages (``system``, ``messages`` of blocks; ``content``) and OpenAI's responses
(``instructions``, ``input``; ``output``). What a request holds is context: a reply in it was the response to an
earlier request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    ROLES,
    Content,
    NotRead,
    Record,
    call_of,
    content_of,
    identifier_of,
    json_text,
    json_value,
    list_of,
    object_of,
    openai_message,
    shown,
    text_of,
    with_thought,
)
from sleepd.protocol.chat_example import Message

from .event_stream import whole_response

_BLOCKS: Final = ("tool_use", "tool_result", "thinking", "redacted_thinking")
"""Parts of a message's content that only Anthropic's form has."""
_CUT: Final = frozenset({"length", "max_tokens", "max_output_tokens", "content_filter", "error"})
"""Why a reply ended before it was whole."""


def request_turns(body: Record) -> list[Turn]:
    """The messages of a request; none of them is supervised.

    Raises:
        NotRead: it has none, or one is damaged.
    """
    if body.get("previous_response_id"):
        raise NotRead("previous_response_id: the log does not hold the messages before")
    turns = system_turns(body.get("system", body.get("instructions")))
    if "messages" in body:
        turns += turns_of_messages(body["messages"], "messages")
    elif isinstance(body.get("input"), str):
        turns.append(_turn(Message(role="user", text=text_of(body["input"], "input"))))
    elif "input" in body:
        turns += _item_turns(list_of(body["input"], "input"))
    else:
        raise NotRead("request: expected messages or input, found neither")
    return turns


def completed(
    record: Record, before: list[Turn], learned: list[Turn], name: str, *, salience: float | None
) -> Conversation:
    """Context, and behind it the replies of ``name``, which are learned with a salience.

    Raises:
        NotRead: no message to learn is the assistant's.
    """
    if not any(turn.message.role == "assistant" for turn in learned):
        raise NotRead(f"{name}: expected a message of the assistant, found none")
    supervised = [msgspec.structs.replace(turn, is_supervised=True, salience=salience) for turn in learned]
    return Conversation(turns=before + supervised, id=identifier_of(record.get("conversation")), is_whole=False)


def turns_of_messages(value: Any, name: str) -> list[Turn]:
    """The messages of a list, in OpenAI's or Anthropic's form; none of them is supervised.

    Raises:
        NotRead: one is damaged.
    """
    listed = list_of(value, name)
    return [turn for place, each in enumerate(listed) for turn in message_turns(each, f"{name}[{place}]")]


def reply_turn(body: Any) -> Turn:
    """The supervised reply that a response holds, under the id of the response; of several choices the first.

    Raises:
        NotRead: it holds none, it holds an error, or the reply broke off.
    """
    if isinstance(body, str):
        body = _decoded_response(body)
    if isinstance(body, list):
        body = whole_response(body)
    if isinstance(body, str):
        return Turn(message=Message(role="assistant", text=text_of(body, "response")))
    body = object_of(body, "response")
    if body.get("error"):
        raise NotRead("response: the server answered with an error")
    turns = _reply_turns(body)
    reply = turns[-1] if turns else None
    if reply is None or reply.message.role != "assistant":
        raise NotRead("response: expected a message of the assistant, found none")
    return Turn(message=reply.message, id=identifier_of(body.get("id")))


def _decoded_response(text: str) -> Any:
    start = text.lstrip()
    if start.startswith(("data:", "event:")):
        return [text]
    return json_value(text) or text if start.startswith(("{", "[")) else text


def _reply_turns(body: Record) -> list[Turn]:
    if "choices" in body:
        choices = list_of(body["choices"], "choices")
        choice = object_of(choices[0], "choices[0]") if choices else {}
        check_end(choice.get("finish_reason"))
        if isinstance(choice.get("text"), str) and "message" not in choice:
            return [_turn(Message(role="assistant", text=text_of(choice["text"], "choices[0].text")))]
        return message_turns(choice.get("message"), "choices[0].message")
    if "output" in body:
        incomplete = body.get("incomplete_details")
        check_end(incomplete.get("reason") if isinstance(incomplete, Mapping) else None)
        return _item_turns(list_of(body["output"], "output"))
    check_end(body.get("stop_reason", body.get("done_reason")))
    return message_turns(body.get("message", body), "message")


def check_end(reason: Any) -> None:
    """Whether a reply is whole, by the reason for which it ended.

    Raises:
        NotRead: it broke off.
    """
    if isinstance(reason, str) and reason in _CUT:
        raise NotRead(f"response: the reply is not whole ({reason})")


def _turn(message: Message, *, is_opaque: bool = False) -> Turn:
    return Turn(message=message, is_supervised=False, is_opaque=is_opaque)


def system_turns(value: Any) -> list[Turn]:
    """The system message that stands beside the others in Anthropic's form; none where it says nothing.

    Raises:
        NotRead: it is neither text nor parts.
    """
    text = content_of(value, "system").text
    return [_turn(Message(role="system", text=text))] if text else []


def message_turns(value: Any, name: str) -> list[Turn]:
    """What one message holds, in OpenAI's or Anthropic's form: the latter's may be several turns.

    Raises:
        NotRead: it is damaged.
    """
    record = object_of(value, name)
    content = record.get("content")
    if isinstance(content, list) and any(isinstance(one, Mapping) and one.get("type") in _BLOCKS for one in content):
        return _block_turns(record, content, name)
    message, found = openai_message(record, name)
    return [_turn(message, is_opaque=found.is_opaque)]


def _block_turns(record: Record, blocks: Iterable[Any], name: str) -> list[Turn]:
    """A message of Anthropic's form: what tools gave stands in a message of the user there."""
    results, calls, thoughts, others = [], [], [], []
    for block in blocks:
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "tool_use":
            calls.append(call_of(block.get("name"), block.get("input"), block.get("id")))
        elif kind == "tool_result":
            found = content_of(block.get("content"), f"{name}.tool_result")
            results.append(_result(found, block.get("tool_use_id")))
        elif kind == "thinking":
            thoughts.append(text_of(block.get("thinking"), f"{name}.thinking"))
        elif kind != "redacted_thinking":
            others.append(block)
    found = content_of(others, f"{name}.content")
    if ROLES.get(str(record.get("role"))) == "assistant":
        text = with_thought("\n".join(thoughts), found.text)
        return [_turn(Message(role="assistant", text=text, calls=tuple(calls)), is_opaque=found.is_opaque)]
    if found.text or found.is_opaque:
        results.append(_turn(Message(role="user", text=found.text), is_opaque=found.is_opaque))
    return results


def _result(content: Content, call_id: Any) -> Turn:
    message = Message(role="tool", text=content.text, call_id=identifier_of(call_id))
    return _turn(message, is_opaque=content.is_opaque)


def _item_turns(items: Iterable[Any]) -> list[Turn]:
    """The items of OpenAI's responses: what the assistant does up to the next item of another is one message."""
    turns: list[Turn] = []
    own: list[Record] = []
    for place, value in enumerate(items):
        item = object_of(value, f"item {place}")
        kind = item.get("type", "message")
        if kind == "item_reference":
            raise NotRead("item_reference: the log does not hold the item")
        if kind in ("reasoning", "function_call") or (kind == "message" and item.get("role") == "assistant"):
            own.append(item)
        elif kind in ("message", "function_call_output"):
            turns += [*_assistant_turn(own), *_other_turn(item)]
            own = []
    return [*turns, *_assistant_turn(own)]


def _other_turn(item: Record) -> Iterator[Turn]:
    if item.get("type") == "function_call_output":
        output = item.get("output")
        content = content_of(output if isinstance(output, list) else json_text(output), "output")
        yield _result(content, item.get("call_id"))
        return
    role = ROLES.get(str(item.get("role")))
    if role is None:
        raise NotRead(f"role: expected system, user, assistant or tool, found {shown(item.get('role'))}")
    content = content_of(item.get("content"), "content")
    yield _turn(Message(role=role, text=content.text), is_opaque=content.is_opaque)


def _assistant_turn(items: Iterable[Record]) -> Iterator[Turn]:
    thoughts, texts, calls = [], [], []
    for item in items:
        if item.get("type") == "reasoning":
            parts = list_of(item.get("content"), "reasoning") or list_of(item.get("summary"), "reasoning")
            thoughts += [text_of(part.get("text"), "reasoning") for part in parts if isinstance(part, Mapping)]
        elif item.get("type") == "function_call":
            calls.append(call_of(item.get("name"), item.get("arguments"), item.get("call_id")))
        else:
            texts.append(content_of(item.get("content"), "content").text)
    text = "\n".join(text for text in texts if text)
    if text or calls:
        yield _turn(Message(role="assistant", text=with_thought("\n".join(thoughts), text), calls=tuple(calls)))
