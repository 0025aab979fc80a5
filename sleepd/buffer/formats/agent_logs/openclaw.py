"""Sessions of OpenClaw and pi: a header, then one entry a line, each with the entry that it follows (``parentId``).

The last entry is where the conversation stands; branches that were left are not read. Entries before version 2 have no
names and follow each other.

Salience: nothing is rated. Left out: replies that failed or were stopped; a summary (``compaction``) of messages that
stand in the file themselves; commands of the user that the model did not see. A branch's summary and what an extension
injects are messages of the user, as the model saw them. A reply cut off by the limit of tokens is context only.

Source: github.com/badlogic/pi-mono, packages/coding-agent/docs/session.md and session-format.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

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
    shown,
    text_of,
)
from sleepd.buffer.formats.shared_parts.message_tree import MessageTree, last_of_each, place_of, read_path, turn_id
from sleepd.buffer.formats.shared_parts.reply_parts import ReplyParts
from sleepd.buffer.reply_origin import origin_of
from sleepd.protocol.chat_example import Message

_VERSIONS: Final = (None, 1, 2, 3)
_KINDS: Final = frozenset(
    {"message", "compaction", "branch_summary", "custom_message", "custom", "label", "model_change", "session_info"}
)
_SUMMARIES: Final = {
    "compaction": "The conversation history before this point was compacted into the following summary:",
    "branch_summary": "The following is a summary of a branch that this conversation came back from:",
}
_LEFT_OUT: Final = ("error", "aborted")


def _recognises(record: Record) -> bool:
    kind = record.get("type")
    if kind == "session":
        return "cwd" in record or "version" in record
    if not isinstance(kind, str) or "payload" in record or "sessionId" in record:
        return False
    return (
        ("parentId" in record and "id" in record)
        or (kind == "message" and "message" in record)
        or (kind in _KINDS and "timestamp" in record)
    )


class _OpenClawBranches:
    """The entries of one session."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.tree = MessageTree()
        self.turns: dict[str, list[Turn]] = {}
        self.summaries: dict[str, Turn] = {}
        """Of what may stand in the file itself."""
        self.names: list[str] = []

    def add(self, record: Record) -> None:
        last = self.names[-1] if self.names else ""
        name = identifier_of(record.get("id")) or f"entry {len(self.names) + 1}"
        if name in self.tree:
            raise NotRead(f"{place_of(name)}: its id stands above already")
        self.tree.add(name, record.get("parentId", last))
        self.names.append(name)
        if record.get("type") == "compaction":
            self.summaries[name] = _user(_summary(record))
            self.turns[name] = []
        else:
            self.turns[name] = _turns(record, turn_id(self.session, record.get("id")))

    def conversations(self) -> Iterator[Conversation | NotRead]:
        firsts, problems = self.tree.settle()
        yield from problems
        for leaf in last_of_each(self.names, firsts):
            path = self.tree.path(leaf)
            first = next((name for name in path if self.turns.get(name) or name in self.summaries), "")
            if first in self.summaries:
                self.turns[first] = [self.summaries[first]]
            yield from read_path(path, self.turns, self.session)


class _OpenClawSession:
    """The records of one file: most often one session."""

    def __init__(self) -> None:
        self._sessions = [_OpenClawBranches("")]

    def add(self, record: Record) -> None:
        """Take one in."""
        if record.get("type") != "session":
            self._sessions[-1].add(record)
            return
        self._sessions.append(_OpenClawBranches(identifier_of(record.get("id"))))
        if record.get("version") not in _VERSIONS:
            version = record.get("version")
            found = version if isinstance(version, int) and abs(version) < 10**6 else shown(version)
            raise NotRead(f"version: expected 1 to 3, found {found}; the session is read as one of version 3")

    def conversations(self) -> Iterator[Conversation | NotRead]:
        """What they make up."""
        for session in self._sessions:
            yield from session.conversations()


def _summary(record: Record) -> str:
    summary = text_of(record.get("summary"), "summary")
    return f"{_SUMMARIES[record['type']]}\n\n<summary>\n{summary}\n</summary>" if summary else ""


def _user(text: str) -> Turn:
    return Turn(message=Message(role="user", text=text))


def _turns(record: Record, id_: str) -> list[Turn]:
    """What an entry says to the model, or what the model said; nothing for one that only keeps the books."""
    kind = record.get("type")
    if kind == "branch_summary":
        text = _summary(record)
        return [_user(text)] if text else []
    if kind == "custom_message":
        return [_said(record, "user")]
    if kind != "message":
        return []
    return _message(object_of(record.get("message"), "message"), id_, at=record.get("timestamp"))


def _message(message: Record, id_: str, *, at: object) -> list[Turn]:
    role = message.get("role")
    if role in ("user", "custom", "hookMessage"):
        return [_said(message, "user")]
    if role == "toolResult":
        return [_said(message, "tool")]
    if role == "assistant":
        return [] if message.get("stopReason") in _LEFT_OUT else _reply(message, id_, at)
    if role == "bashExecution":
        ran = (
            f"Ran `{text_of(message.get('command'), 'command')}`\n```\n{text_of(message.get('output'), 'output')}\n```"
        )
        return [] if message.get("excludeFromContext") is True else [_user(ran)]
    raise NotRead(f"message.role: expected user, assistant or toolResult, found {shown(role)}")


def _said(message: Record, role: str) -> Turn:
    content = content_of(message.get("content"), "content")
    if role == "user":
        return Turn(message=Message(role="user", text=content.text), is_opaque=content.is_opaque)
    said = Message(
        role="tool",
        text=content.text,
        call_id=identifier_of(message.get("toolCallId")),
        name=identifier_of(message.get("toolName")),
    )
    return Turn(message=said, is_opaque=content.is_opaque)


def _reply(message: Record, id_: str, at: object) -> list[Turn]:
    parts, content = ReplyParts(), message.get("content")
    if isinstance(content, str):
        parts.text(text_of(content, "content"))
    else:
        for each in list_of(content, "content"):
            part = object_of(each, "content")
            match part.get("type"):
                case "text":
                    parts.text(text_of(part.get("text"), "text"))
                case "thinking":
                    parts.thought(text_of(part.get("thinking"), "thinking"))
                case "toolCall":
                    parts.call(call_of(part.get("name"), part.get("arguments"), part.get("id")))
                case _:
                    parts.is_opaque = True
    origin = origin_of(message.get("model"), message.get("timestamp"), at)
    return parts.turns(id_, salience=None, is_supervised=message.get("stopReason") != "length", origin=origin)


FORMAT = Format(
    name="openclaw",
    title="OpenClaw and pi sessions",
    recognises=_recognises,
    session=_OpenClawSession,
    usual_place="~/.openclaw/agents/*/sessions/, ~/.pi/agent/sessions/",
)
