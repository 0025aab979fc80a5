"""Chats of Open WebUI, and its feedback export, which holds the chat of each rating.

A chat is a tree (``history.messages``), of which the way to ``currentId`` counts. Thoughts and calls of tools stand in
a reply's text as ``<details>``; a call that cannot be read makes the reply one that is not learned, as files do.

Salience: ``annotation.rating`` 1 is 1.0, -1 is not trained; without it ``details.rating`` 6 to 10 is 1.0, 1 to 5 is
not trained, for Open WebUI asks for these after thumbs up and thumbs down. The reply that was chosen among regenerated
ones is 0.8 where nobody rated it. A reply beside the current way is learned only if it was rated 1. Left out: replies
that failed or are still being written.

Source: github.com/open-webui/open-webui, backend/open_webui/utils/middleware.py and models/feedbacks.py.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    Format,
    NotRead,
    Record,
    call_of,
    content_of,
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
from sleepd.buffer.reply_origin import origin_of
from sleepd.protocol.chat_example import Message

_OPENING: Final = re.compile(r'<details type="(reasoning|tool_calls|code_interpreter)"')
_CLOSING: Final = "</details>"
_ATTRIBUTE: Final = re.compile(r'(?<!\w)(\w+)="([^"]*)"')
_SUMMARY: Final = re.compile(r"\s*<summary>[^<]*</summary>")
_LIKED: Final = 6


def _recognises_chat(record: Record) -> bool:
    chat = record.get("chat")
    return isinstance(chat, Mapping) and ("history" in chat or "messages" in chat)


def _recognises_feedback(record: Record) -> bool:
    return "snapshot" in record and "data" in record and "meta" in record


def _chat(record: Record) -> Iterator[Conversation | NotRead]:
    yield from _ChatTree(record, {}).conversations()


def _feedback(record: Record) -> Iterator[Conversation | NotRead]:
    meta, snapshot = object_of(record.get("meta"), "meta"), object_of(record.get("snapshot"), "snapshot")
    tree = _ChatTree(
        object_of(snapshot.get("chat"), "snapshot.chat"),
        {identifier_of(meta.get("message_id")): object_of(record.get("data"), "data")},
    )
    yield from tree.conversations()


class _ChatTree:
    """One chat; ``ratings`` holds what people said of messages, beside what stands in the messages themselves."""

    def __init__(self, record: Record, ratings: Mapping[str, Record]) -> None:
        chat = object_of(record.get("chat"), "chat")
        self._name = identifier_of(record.get("id")) or identifier_of(chat.get("id"))
        params = chat.get("params")
        self._system = text_of(params.get("system") if isinstance(params, Mapping) else None, "chat.params.system")
        self._tree = MessageTree()
        self._turns: dict[str, list[Turn]] = {}
        self._replies: list[str] = []
        self._problems: list[NotRead] = []
        self._leaf = ""
        history = chat.get("history")
        messages = history.get("messages") if isinstance(history, Mapping) else None
        if messages or "messages" not in chat:
            self._add_tree(object_of(history, "chat.history"), ratings)
        else:
            self._add_flat(list_of(chat.get("messages"), "chat.messages"), ratings)

    def _add_tree(self, history: Record, ratings: Mapping[str, Record]) -> None:
        for name, each in object_of(history.get("messages"), "chat.history.messages").items():
            self._add(name, each.get("parentId", NO_LINK) if isinstance(each, Mapping) else NO_LINK, each, ratings)
        current = history.get("currentId")
        if isinstance(current, str) and current in self._tree:
            self._leaf = current
        elif self._leaf:
            problem = f"chat.history.currentId: expected the name of a message, found {shown(current)}"
            self._problems.append(NotRead(f"{problem}; the way to the last message is read"))

    def _add_flat(self, messages: list[Any], ratings: Mapping[str, Record]) -> None:
        for number, each in enumerate(messages, 1):
            own = identifier_of(each.get("id")) if isinstance(each, Mapping) else ""
            self._add(own or f"#{number}", self._leaf, each, ratings)

    def _add(self, name: str, follows: object, each: Any, ratings: Mapping[str, Record]) -> None:
        self._leaf = name
        self._tree.add(name, follows)
        try:
            record = object_of(each, "message")
            if record.get("role") == "assistant":
                self._replies.append(name)
                rating = ratings.get(name) or record.get("annotation")
                self._turns[name] = _reply(record, turn_id(self._name, name), _salience(rating))
            else:
                self._turns[name] = [_said(record)]
        except NotRead as error:
            self._problems.append(NotRead(f"{place_of(name)}: {error}"))

    def conversations(self) -> Iterator[Conversation | NotRead]:
        """The current way, and the ways to the replies beside it that were rated up."""
        yield from self._problems
        _, problems = self._tree.settle()
        yield from problems
        path = self._tree.path(self._leaf)
        turns = chosen(path, self._turns, self._tree.regenerated(self._replies))
        yield from read_path(path, turns, self._name, system=self._system)
        liked = [name for name in self._replies if any(turn.salience == 1 for turn in self._turns.get(name, ()))]
        ways, problems = beside(self._tree, path, liked)
        yield from problems
        for way in ways:
            yield from read_path(way, only_last(way, self._turns), self._name, system=self._system)


def _salience(rating: Any) -> float | None:
    if not isinstance(rating, Mapping):
        return None
    details = rating.get("details")
    fine = details.get("rating") if isinstance(details, Mapping) else None
    if rated(rating.get("rating")) is None and isinstance(fine, int | float):
        return rated(1 if fine >= _LIKED else -1)
    return rated(rating.get("rating"))


def _said(record: Record) -> Turn:
    role = record.get("role")
    if role not in ("user", "system"):
        raise NotRead(f"role: expected user, assistant or system, found {shown(role)}")
    content = content_of(record.get("content"), "content")
    message = Message(role="user" if role == "user" else "system", text=content.text)
    return Turn(message=message, is_opaque=content.is_opaque or bool(record.get("files")))


def _reply(record: Record, id_: str, salience: float | None) -> list[Turn]:
    content = content_of(record.get("content"), "content")
    parts = ReplyParts()
    parts.is_opaque = content.is_opaque or bool(record.get("files"))
    _take_apart(content.text, parts)
    is_whole = record.get("done") is not False and not record.get("error")
    origin = origin_of(record.get("model"), record.get("timestamp"))
    return parts.turns(id_, salience=salience, is_supervised=is_whole, origin=origin)


def _take_apart(text: str, parts: ReplyParts) -> None:
    """The thoughts, calls and texts of a reply, in order. What begins and does not end is a part that is no text."""
    place = 0
    for opening in _OPENING.finditer(text):
        if opening.start() < place:
            continue  # inside of another one
        parts.text(text[place : opening.start()].strip())
        body = text.find(">", opening.end()) + 1
        end = text.find(_CLOSING, body)
        if not body or end < 0:
            parts.is_opaque = True
            return
        attributes = dict(_ATTRIBUTE.findall(text, opening.end(), body))
        _add_detail(opening[1], attributes, text[body:end], parts)
        place = end + len(_CLOSING)
    rest = text[place:]
    parts.text(rest.strip() if place else rest)


def _add_detail(kind: str, attributes: dict[str, str], body: str, parts: ReplyParts) -> None:
    summary = _SUMMARY.match(body)
    body = html.unescape(body[summary.end() :] if summary else body).strip()
    if kind == "reasoning":
        parts.thought("\n".join(line.removeprefix(">").removeprefix(" ") for line in body.split("\n")))
    elif kind == "tool_calls" and attributes.get("name") and attributes.get("done") != "false":
        arguments = _value(attributes.get("arguments", ""))
        result = _value(attributes["result"]) if "result" in attributes else body
        name, id_ = html.unescape(attributes["name"]), html.unescape(attributes.get("id", ""))
        parts.call(call_of(name, arguments or "{}", id_), result)
    else:
        parts.is_opaque = True


def _value(attribute: str) -> str:
    """What an attribute holds: JSON text, or JSON text as a JSON string."""
    text = html.unescape(attribute)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str) else text


CHATS = Format(
    name="open_webui",
    title="Open WebUI chats",
    recognises=_recognises_chat,
    conversations=_chat,
    usual_place="an export of chats",
    feedback="thumbs up 1.0; thumbs down: not trained; chosen among regenerated ones 0.8",
)
FEEDBACK = Format(
    name="open_webui_feedback",
    title="Open WebUI feedback, with its chats",
    recognises=_recognises_feedback,
    conversations=_feedback,
    usual_place="an export of the evaluations",
    feedback="thumbs up 1.0; thumbs down: not trained; chosen among regenerated ones 0.8",
)
