"""Chats of SillyTavern: a header line, then one message a line, in order. The file is written anew with each message.

Salience: a reply that was chosen among several (``swipes``) is 0.8. Its text is ``mes``, as the person may have
changed it; ``extra.reasoning`` is the thought. Left out: messages that are hidden from the model (``is_system``),
except for the calls of tools that they hold. The character's greeting answers nobody and is not learned. Images and
files cannot be learned. The character's card is not in the file, so that it is missing in the context.

Source: github.com/SillyTavern/SillyTavern, public/script.js (saveChat) and public/scripts/tool-calling.js.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    CHOSEN,
    Format,
    NotRead,
    Record,
    call_of,
    identifier_of,
    list_of,
    object_of,
    shown,
    text_of,
)
from sleepd.buffer.formats.shared_parts.reply_parts import ReplyParts
from sleepd.buffer.reply_origin import UNKNOWN
from sleepd.protocol.chat_example import Message

_FILES: Final = ("image", "media", "file", "files", "video", "audio")


def _recognises(record: Record) -> bool:
    is_header = "chat_metadata" in record or ("user_name" in record and "character_name" in record)
    return is_header or ("mes" in record and ("is_user" in record or "send_date" in record))


class _SillyTavernChat:
    """A header's messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._has_question = False
        self._stretches: list[list[Turn]] = [[]]
        """Cut where a message could not be read: no reply is learned as the answer to another message than its own."""
        self._replies = 0

    def add(self, record: Record) -> None:
        """Take a message in."""
        try:
            self._stretches[-1] += self._turns(record)
        except NotRead:
            self._stretches.append([])
            raise

    def _turns(self, record: Record) -> list[Turn]:
        extra = record.get("extra")
        extra = extra if isinstance(extra, Mapping) else {}
        invocations = list_of(extra.get("tool_invocations"), "extra.tool_invocations")
        if record.get("is_system") is True and not invocations:
            return []
        parts = ReplyParts()
        parts.is_opaque = any(extra.get(key) for key in _FILES)
        for each in invocations:
            _add_call(parts, object_of(each, "extra.tool_invocations"))
        if not invocations:
            parts.thought(text_of(extra.get("reasoning"), "extra.reasoning"))
            parts.text(text_of(record["mes"], "mes"))
        is_user = record.get("is_user")
        if is_user is True:
            self._has_question = True
            text = text_of(record["mes"], "mes")
            return [Turn(message=Message(role="user", text=text), is_opaque=parts.is_opaque)]
        if is_user is not False:
            raise NotRead(f"is_user: expected true or false, found {shown(is_user)}")
        self._replies += 1
        swipes = record.get("swipes")
        salience = CHOSEN if isinstance(swipes, list) and len(swipes) > 1 else None
        name = f"{self._name}#{self._replies}" if self._name else ""
        return parts.turns(name, salience=salience, is_supervised=self._has_question, origin=UNKNOWN)

    def conversations(self) -> Iterator[Conversation | NotRead]:
        """What they make up."""
        for turns in self._stretches:
            if turns:
                yield Conversation(turns=turns, id=self._name)


class _SillyTavernFile:
    """The records of one file: most often one chat. One that stands there twice gives each reply the same name."""

    def __init__(self) -> None:
        self._chats = [_SillyTavernChat("")]

    def add(self, record: Record) -> None:
        """Take one in."""
        if "mes" in record:
            self._chats[-1].add(record)
        else:
            self._chats.append(_SillyTavernChat(_name(record)))

    def conversations(self) -> Iterator[Conversation | NotRead]:
        """What they make up."""
        for chat in self._chats:
            yield from chat.conversations()


def _name(header: Record) -> str:
    """The chat's own name, or the character's with the date at which it began."""
    metadata = header.get("chat_metadata")
    own = identifier_of(metadata.get("integrity")) if isinstance(metadata, Mapping) else ""
    both = [identifier_of(header.get(key)) for key in ("character_name", "create_date")]
    return own or (" ".join(both) if all(both) else "")


def _add_call(parts: ReplyParts, called: Record) -> None:
    result: Any = called.get("result")
    call = call_of(called.get("name"), called.get("parameters"), called.get("id"))
    parts.call(call, None if result is None else text_of(result, "extra.tool_invocations.result"))


FORMAT = Format(
    name="sillytavern",
    title="SillyTavern chats",
    recognises=_recognises,
    session=_SillyTavernFile,
    usual_place="data/*/chats/*/*.jsonl",
    feedback="chosen among swipes 0.8",
)
