"""``messages`` in the form of OpenAI, one conversation a record, with tools and weights; and our own longer form.

Ours has further keys: ``salience`` for the record and for a message, ``supervised`` (``all`` or ``last``),
``conversation``, ``said_under``, an ``id`` for each message, and ``conversation_hash``, by which an import keeps
together what was one conversation. A ``system`` beside the messages, and messages of blocks, are those of Anthropic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.experience import said_under, salience_of
from sleepd.buffer.formats.format import (
    ROLES,
    Format,
    NotRead,
    Record,
    identifier_of,
    list_of,
    openai_tools,
    weighted,
)
from sleepd.buffer.formats.shared_parts.api_bodies import message_turns, system_turns
from sleepd.buffer.reply_origin import ReplyOrigin
from sleepd.buffer.said_at import said_at

_HASH: Final = re.compile(r"[0-9a-f]{16}")


def _recognises(record: Record) -> bool:
    return isinstance(record.get("messages"), list) and "response" not in record and "output" not in record


def _conversations(record: Record) -> Iterator[Conversation]:
    listed = list_of(record.get("messages"), "messages")
    supervised = record.get("supervised", "all")
    if supervised not in ("all", "last"):
        raise NotRead("supervised: expected 'all' or 'last'")
    last = max((place for place, each in enumerate(listed) if _is_reply(each)), default=-1)
    salience, under = _salience(record, "salience"), said_under({"adapter": record.get("said_under")})
    told = ReplyOrigin(under or said_under(record.get("metadata")))
    # Of a conversation that grows, the record's id names the conversation, and not what is its last reply today.
    names_reply = supervised == "last" or sum(map(_is_reply, listed)) == 1
    turns, identifier = _beside(record, listed), identifier_of(record.get("id"))
    # The record has one time: where several replies are learned of it, it is not known whose.
    at = None if record.get("said_under", "") is None else said_at(record.get("timestamp"))
    timed = msgspec.structs.replace(told, at=at, model=record.get("model") or None)
    for place, each in enumerate(listed):
        name = f"messages[{place}]"
        found = message_turns(each, name)
        own = _salience(each, f"{name}.salience")
        is_last = place == last
        noted: dict[str, Any] = {
            "id": identifier_of(each.get("id")) or (identifier if is_last and names_reply else ""),
            "salience": salience if own is None else own,
            "is_supervised": weighted(each.get("weight")) and (supervised == "all" or is_last),
            "origin": timed if is_last and names_reply else told,
        }
        turns += [msgspec.structs.replace(turn, **noted) for turn in found]
    if last < 0:
        raise NotRead("messages: expected a message of the assistant, found none")
    yield Conversation(
        turns=turns,
        id=identifier_of(record.get("conversation")),
        tools=openai_tools(record.get("tools")),
        side=_side(record.get("conversation_hash")),
        is_whole=supervised == "all",
        is_only=False,
    )


def _beside(record: Record, listed: list[Any]) -> list[Turn]:
    """The system message beside the others, where none stands among them."""
    system = record.get("system")
    has_own = any(isinstance(each, dict) and ROLES.get(str(each.get("role"))) == "system" for each in listed)
    return system_turns(system) if isinstance(system, str | list) and not has_own else []


def _side(value: Any) -> int | None:
    return int(value, 16) if isinstance(value, str) and _HASH.fullmatch(value) else None


def _is_reply(message: Any) -> bool:
    return isinstance(message, dict) and ROLES.get(str(message.get("role"))) == "assistant"


def _salience(record: Record, name: str) -> float | None:
    if record.get("salience") is None:
        return None
    found = salience_of(record["salience"], name)
    if isinstance(found, str):
        raise NotRead(found)
    return found


FORMAT = Format(
    name="openai_messages",
    title="OpenAI messages, and our own conversations",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="the agent's own file",
    feedback="`weight` 0: context only; `salience`",
)
