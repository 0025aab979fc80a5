"""The export of a LibreChat conversation: one object with ``messages``, or with ``messagesTree`` (with children).

The newest message is the current one, and the way to it counts; an export without branches has no other.

Salience: ``feedback.rating`` thumbsUp is 1.0, thumbsDown is not trained; the reply that was chosen among regenerated
ones is 0.8 where nobody rated it. A reply beside the current way is learned only if it was rated up.
``options.promptPrefix`` is the system message. Left out: replies that failed or are unfinished. Images and files
cannot be learned.

Source: github.com/danny-avila/LibreChat, client/src/hooks/Conversations/useExportConversation.ts and
packages/data-schemas/src/types/message.ts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    Format,
    NotRead,
    Record,
    call_of,
    identifier_of,
    list_of,
    object_of,
    rated,
    shown,
    text_of,
)
from sleepd.buffer.formats.shared_parts.message_tree import (
    NO_LINK,
    MessageTree,
    beside,
    chosen,
    only_last,
    place_of,
    read_path,
    turn_id,
)
from sleepd.buffer.formats.shared_parts.reply_parts import ReplyParts
from sleepd.buffer.reply_origin import UNKNOWN, origin_of
from sleepd.protocol.chat_example import Message

_NO_PARENT = "00000000-0000-0000-0000-000000000000"


def _recognises(record: Record) -> bool:
    if "messagesTree" in record:
        return True
    listed = record.get("messages")
    first = listed[0] if isinstance(listed, list) and listed else None
    is_one = isinstance(first, Mapping) and ("isCreatedByUser" in first or "parentMessageId" in first)
    return is_one or ("conversationId" in record and isinstance(listed, list))


def _conversations(record: Record) -> Iterator[Conversation | NotRead]:
    name = identifier_of(record.get("conversationId"))
    options = record.get("options")
    system = text_of(options.get("promptPrefix") if isinstance(options, Mapping) else None, "options.promptPrefix")
    tree, turns, replies, dates = MessageTree(), dict[str, list[Turn]](), list[str](), dict[str, str]()
    for number, (each, above) in enumerate(_listed(record), 1):
        message = each if isinstance(each, Mapping) else {}
        key = identifier_of(message.get("messageId")) or f"#{number}"
        if key in tree:
            yield NotRead(f"{place_of(key)}: its messageId stands above already")
            continue
        follows = message.get("parentMessageId", above or NO_LINK)
        tree.add(key, None if follows == _NO_PARENT else follows)
        dates[key] = identifier_of(message.get("createdAt"))
        try:
            turns[key] = _turns(object_of(each, "message"), turn_id(name, key))
            if message.get("isCreatedByUser") is not True:
                replies.append(key)
        except NotRead as error:
            yield NotRead(f"{place_of(key)}: {error}")
    _, problems = tree.settle()
    yield from problems
    path = tree.path(_newest(dates))
    yield from read_path(path, chosen(path, turns, tree.regenerated(replies)), name, system=system)
    liked = [one for one in replies if any(turn.salience == 1 for turn in turns[one])]
    ways, problems = beside(tree, path, liked)
    yield from problems
    for way in ways:
        yield from read_path(way, only_last(way, turns), name, system=system)


def _newest(dates: dict[str, str]) -> str:
    """The message with the latest date, the last of several; where one has no date, the last of the file."""
    listed = [*dates][::-1]
    if not listed or not all(dates.values()):
        return listed[0] if listed else ""
    return max(listed, key=lambda key: dates[key])


def _listed(record: Record) -> Iterator[tuple[Any, str]]:
    """Each message with the name of the one whose child it is."""
    listed = record.get("messagesTree", record.get("messages"))
    left: list[tuple[Any, str]] = [(each, "") for each in reversed(list_of(listed, "messages"))]
    while left:
        each, above = left.pop()
        yield each, above
        if isinstance(each, Mapping):
            own, children = identifier_of(each.get("messageId")), each.get("children")
            left.extend((child, own) for child in reversed(children if isinstance(children, list) else []))


def _turns(message: Record, id_: str) -> list[Turn]:
    parts = ReplyParts()
    parts.is_opaque = bool(message.get("files") or message.get("attachments"))
    content = message.get("content")
    if isinstance(content, list) and content:
        for part in content:
            _add_part(parts, object_of(part, "content"))
    else:
        parts.text(text_of(message.get("text"), "text"))
    is_users = message.get("isCreatedByUser")
    if is_users is True:
        said = parts.turns("", salience=None, is_supervised=False, origin=UNKNOWN)
        text = "\n".join(turn.message.text for turn in said)
        return [Turn(message=Message(role="user", text=text), is_opaque=parts.is_opaque)]
    if is_users is not False:
        raise NotRead(f"isCreatedByUser: expected true or false, found {shown(is_users)}")
    feedback = message.get("feedback")
    rating = feedback.get("rating") if isinstance(feedback, Mapping) else None
    is_whole = not message.get("error") and not message.get("unfinished")
    origin = origin_of(message.get("model"), message.get("createdAt"))
    return parts.turns(id_, salience=rated(rating), is_supervised=is_whole, origin=origin)


def _add_part(parts: ReplyParts, part: Record) -> None:
    match part.get("type"):
        case "text":
            text = part.get("text")
            parts.text(text_of(text.get("value") if isinstance(text, Mapping) else text, "content.text"))
        case "think":
            thought = part.get("think")
            parts.thought(text_of(thought.get("value") if isinstance(thought, Mapping) else thought, "content.think"))
        case "tool_call":
            call = object_of(part.get("tool_call"), "content.tool_call")
            function = call.get("function")
            called = function if isinstance(function, Mapping) else call
            output, arguments = called.get("output"), called.get("args", called.get("arguments"))
            result = None if output is None else text_of(output, "content.tool_call.output")
            parts.call(call_of(called.get("name"), arguments or {}, call.get("id")), result)
        case _:
            parts.is_opaque = True


FORMAT = Format(
    name="librechat",
    title="LibreChat export",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="an export as JSON",
    feedback="thumbs up 1.0; thumbs down: not trained; chosen among regenerated ones 0.8",
)
