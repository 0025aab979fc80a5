"""The conversations of a ChatGPT export: a tree (``mapping``), of which the way to ``current_node`` counts.

Messages of the assistant that follow each other are one reply. One that is addressed to a tool (``recipient``) is a
call, and the tool's message is its result. The user's own instructions (``user_editable_context``) are a system
message.

Salience: the reply that was chosen among regenerated ones is 0.8; ``weight`` 0 is context only. Left out: hidden
messages of the system, and thoughts, which are summaries by another model. Images and files cannot be learned.

Source: none is official; github.com/mitkury/chatgpt-export-parser, docs/chatgpt-data-export-format.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    Content,
    Format,
    NotRead,
    Record,
    call_of,
    identifier_of,
    list_of,
    object_of,
    shown,
    text_of,
    weighted,
)
from sleepd.buffer.formats.shared_parts.message_tree import NO_LINK, MessageTree, chosen, place_of, read_path, turn_id
from sleepd.protocol.chat_example import Message, ToolCall

_SUMMED_UP: Final = ("thoughts", "reasoning_recap")
_TEXT_PARTS: Final = ("text", "audio_transcription")


def _recognises(record: Record) -> bool:
    return isinstance(record.get("mapping"), Mapping)


def _conversations(record: Record) -> Iterator[Conversation | NotRead]:
    name = identifier_of(record.get("conversation_id")) or identifier_of(record.get("id"))
    tree, turns, replies, leaf = MessageTree(), dict[str, list[Turn]](), list[str](), ""
    for key, each in object_of(record.get("mapping"), "mapping").items():
        node = each if isinstance(each, Mapping) else {"message": NO_LINK}
        tree.add(key, node.get("parent", NO_LINK if turns else None))
        leaf = key
        is_root = node.get("parent") is None or turns.get(identifier_of(node["parent"])) == []
        try:
            turns[key] = _turns(object_of(each, "node"), turn_id(name, key), may_be_empty=is_root)
            if any(turn.message.role != "user" for turn in turns[key]):
                replies.append(key)
        except NotRead as error:
            yield NotRead(f"{place_of(key)}: {error}")
    current = record.get("current_node")
    if isinstance(current, str) and current in tree:
        leaf = current
    elif leaf:
        problem = f"current_node: expected the name of a message, found {shown(current)}"
        yield NotRead(f"{problem}; the way to the last message is read")
    _, problems = tree.settle()
    yield from problems
    path = tree.path(leaf)
    for part in read_path(path, chosen(path, turns, tree.regenerated(replies)), name):
        yield part if isinstance(part, NotRead) else Conversation(turns=_joined(part.turns), id=part.id)


def _turns(node: Record, id_: str, *, may_be_empty: bool) -> list[Turn]:
    """What a node holds: one message, or nothing where the tree begins."""
    if node.get("message") is None and may_be_empty:
        return []
    message = object_of(node.get("message"), "message")
    content, metadata = object_of(message.get("content"), "message.content"), message.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    role = object_of(message.get("author"), "message.author").get("role")
    kind = content.get("content_type")
    if kind == "user_editable_context":
        about = (text_of(content.get(key), key) for key in ("user_profile", "user_instructions"))
        text = "\n\n".join(each for each in about if each.strip())
        return [Turn(message=Message(role="system", text=text))] if text else []
    if kind in _SUMMED_UP or (role == "system" and metadata.get("is_visually_hidden_from_conversation") is True):
        return []
    if role not in ("system", "user", "assistant", "tool"):
        raise NotRead(f"author.role: expected system, user, assistant or tool, found {shown(role)}")
    said = _content(content)
    is_opaque = said.is_opaque or bool(metadata.get("attachments"))
    if role == "assistant":
        return [_reply(message, said.text, id_, is_opaque=is_opaque, is_cut_off=_is_cut_off(message, metadata))]
    if role == "tool":
        name = identifier_of(object_of(message.get("author"), "message.author").get("name"))
        return [Turn(message=Message(role="tool", text=said.text, name=name), is_opaque=is_opaque)]
    return [Turn(message=Message(role="user" if role == "user" else "system", text=said.text), is_opaque=is_opaque)]


def _reply(message: Record, text: str, id_: str, *, is_opaque: bool, is_cut_off: bool) -> Turn:
    tool = message.get("recipient", "all")
    calls: tuple[ToolCall, ...] = ()
    if tool != "all" and tool is not None:
        calls, text = (call_of(tool, text if text.lstrip().startswith("{") else {"input": text}),), ""
    return Turn(
        message=Message(role="assistant", text=text, calls=calls),
        id=id_,
        is_supervised=weighted(message.get("weight")) and not is_cut_off,
        is_opaque=is_opaque,
    )


def _is_cut_off(message: Record, metadata: Record) -> bool:
    details = metadata.get("finish_details")
    kind = details.get("type") if isinstance(details, Mapping) else None
    return message.get("status") == "in_progress" or kind in ("max_tokens", "interrupted")


def _content(content: Record) -> Content:
    """Its text: in ``parts``, or in a key that depends on the kind."""
    if "parts" not in content:
        text = next((content[key] for key in ("text", "result", "content") if key in content), None)
        return Content(text_of(text, "content"), is_opaque=text is None)
    texts, is_opaque = [], False
    for part in list_of(content["parts"], "content.parts"):
        if isinstance(part, str):
            texts.append(text_of(part, "content.parts"))
        elif isinstance(part, Mapping) and part.get("content_type", "text") in _TEXT_PARTS and "text" in part:
            texts.append(text_of(part["text"], "content.parts"))
        else:
            is_opaque = True
    return Content("\n".join(text for text in texts if text), is_opaque)


def _joined(turns: Iterable[Turn]) -> list[Turn]:
    """With messages of the assistant that follow each other as one."""
    joined: list[Turn] = []
    for turn in turns:
        last = joined[-1] if joined else None
        if last is None or turn.message.role != "assistant" or last.message.role != "assistant":
            joined.append(turn)
            continue
        text = "\n\n".join(each for each in (last.message.text, turn.message.text) if each)
        joined[-1] = Turn(
            message=Message(role="assistant", text=text, calls=last.message.calls + turn.message.calls),
            id=turn.id,
            salience=last.salience if turn.salience is None else turn.salience,
            is_supervised=last.is_supervised and turn.is_supervised,
            is_opaque=last.is_opaque or turn.is_opaque,
        )
    return joined


FORMAT = Format(
    name="chatgpt_export",
    title="ChatGPT export",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="conversations.json of the export",
    feedback="chosen among regenerated ones 0.8; `weight` 0: context only",
)
