"""Sessions of Claude Code: one line for each part of a message, each with the line that it follows (``parentUuid``).

Lines with one ``message.id`` are one message of the assistant. Results of tools called side by side hang on different
lines, so that they are found by the name of their call. The last line of the user or the assistant is where the
conversation stands. A subagent's lines (``isSidechain``) are a conversation of their own. A reply at the end counts
once its end is marked (``stop_reason``) or something follows it.

Salience: nothing is rated. Left out: messages that Claude Code made up itself (errors), attachments, lines that only
people see, and a summary of messages that stand in the file themselves. What Claude Code adds as the user (``isMeta``)
is a message of the user, as the model saw it. A reply that was interrupted, or cut off by the limit of tokens, is
context only.

Source: none is official; github.com/elidickinson/cc-session-io, docs/claude-code-sessions.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Final

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import (
    Format,
    NotRead,
    Record,
    call_of,
    content_of,
    identifier_of,
    json_text,
    object_of,
    shown,
    text_of,
    with_thought,
)
from sleepd.buffer.formats.shared_parts.message_tree import (
    NO_LINK,
    MessageTree,
    last_of_each,
    place_of,
    read_path,
    turn_id,
)
from sleepd.buffer.reply_origin import UNKNOWN, origin_of
from sleepd.protocol.chat_example import Message, ToolCall

_VERSION: Final = re.compile(r"([0-9]{1,4})(?:\.[0-9A-Za-z.+-]{1,40})?\Z")
_NEWEST: Final = 2
_CUT_OFF: Final = ("max_tokens", "model_context_window_exceeded")
_INTERRUPTED: Final = "[Request interrupted by user"


def _recognises(record: Record) -> bool:
    kind = record.get("type")
    return isinstance(kind, str) and (
        "sessionId" in record
        or ("parentUuid" in record and "uuid" in record)
        or (kind == "summary" and "leafUuid" in record)
        or (kind == "file-history-snapshot" and "snapshot" in record)
    )


class _ClaudeMessage:
    """One message, from one line or from several."""

    def __init__(self, conversation: str, name: str) -> None:
        self.conversation = conversation
        self.name = name
        self.line = 0
        """The number of its last line."""
        self.thoughts: list[str] = []
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []
        self.stop: Any = None
        self.origin = UNKNOWN
        self.is_reply = self.is_summary = self.is_opaque = self.is_damaged = False
        self._parts: set[str] = set()

    @property
    def says_something(self) -> bool:
        """Whether it is more than the results of tools, and more than a note of the program."""
        return self.is_reply or bool(self.texts) or self.is_opaque

    def add_reply(self, message: Record, at: Any) -> None:
        """A line of the assistant's message, and when it was written."""
        self.is_reply = True
        self.stop = self.stop if message.get("stop_reason") is None else message.get("stop_reason")
        self.origin = origin_of(message.get("model"), at)
        content = message.get("content")
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            text = json_text(part)
            if text not in self._parts:  # else it is a copy
                self._parts.add(text)
                self._add_part(object_of(part, "message.content"))

    def _add_part(self, part: Record) -> None:
        match part.get("type"):
            case "text":
                self.texts.append(text_of(part.get("text"), "text"))
            case "thinking":
                self.thoughts.append(text_of(part.get("thinking"), "thinking"))
            case "tool_use":
                self.calls.append(call_of(part.get("name"), part.get("input"), part.get("id")))
            case "redacted_thinking":
                pass
            case _:
                self.is_opaque = True

    def turn(self, session: str, *, is_supervised: bool) -> Turn:
        """What was said."""
        text = "\n".join(self.texts)
        if not self.is_reply:
            return Turn(message=Message(role="user", text=text), is_opaque=self.is_opaque)
        text = with_thought("\n\n".join(self.thoughts), text)
        return Turn(
            message=Message(role="assistant", text=text, calls=tuple(self.calls)),
            id=turn_id(session, self.name),
            is_supervised=is_supervised and self.stop not in _CUT_OFF,
            origin=self.origin,
            is_opaque=self.is_opaque,
        )


class _ClaudeSession:
    """The records of one file."""

    def __init__(self) -> None:
        self._tree = MessageTree()
        self._messages: dict[str, _ClaudeMessage] = {}
        self._names: dict[str, str] = {}
        """Of the message, by the ``uuid`` of each of its lines."""
        self._lines: dict[str, list[Any]] = {}
        """What is read of each, by its ``uuid``."""
        self._said: list[str] = []
        """The messages of the user and the assistant, by line."""
        self._results: dict[str, tuple[int, Turn]] = {}
        """Of tools, by call, with the number of the line."""
        self._line = 0
        self._ended = 0
        """The number of the last line at which no reply is being written."""
        self._told: set[str] = set()

    def add(self, record: Record) -> None:
        """Take one in."""
        self._line += 1
        kind = record.get("type")
        is_said = kind in ("user", "assistant")
        uuid = identifier_of(record.get("uuid")) or (f"line {self._line}" if is_said else "")
        if not uuid:
            return
        said = [record.get(key) for key in ("type", "parentUuid", "message")]
        if uuid in self._lines:
            if self._lines[uuid] == said:
                return  # a copy
            raise NotRead(f"{place_of(uuid)}: its uuid stands above with another text")
        self._lines[uuid] = said
        message = self._linked(record, uuid)
        self._ended = self._line if kind == "system" else self._ended
        if is_said:
            self._said.append(message.name)
            try:
                self._take(record, message)
            except NotRead:
                message.is_damaged = True
                raise
        self._check_version(record.get("version"))

    def _linked(self, record: Record, uuid: str) -> _ClaudeMessage:
        """The message of a line, new or begun before."""
        said = record.get("message")
        own = identifier_of(said.get("id")) if record.get("type") == "assistant" and isinstance(said, dict) else ""
        name = own or uuid
        self._names[uuid] = name
        if name not in self._messages:
            parent = record.get("parentUuid", NO_LINK)
            parent = record.get("logicalParentUuid") if parent in (None, "") else parent
            parent = self._names.get(identifier_of(parent), parent)
            conversation = identifier_of(record.get("sessionId"))
            before = self._messages.get(identifier_of(parent))
            if record.get("isSidechain") is True:
                conversation = f"{conversation}/{identifier_of(record.get('agentId')) or name}"
                is_inside = before is not None and "/" in before.conversation
                parent = parent if is_inside else None
                conversation = before.conversation if before is not None and is_inside else conversation
            self._messages[name] = _ClaudeMessage(conversation, name)
            self._tree.add(name, parent)
        self._messages[name].line = self._line
        return self._messages[name]

    def _take(self, record: Record, message: _ClaudeMessage) -> None:
        said = object_of(record.get("message"), "message")
        message.is_summary = record.get("isCompactSummary") is True
        if record.get("isApiErrorMessage") is True or said.get("model") == "<synthetic>":
            return
        if record.get("isVisibleInTranscriptOnly") is True and not message.is_summary:
            return
        role = said.get("role")
        if role != record["type"]:
            raise NotRead(f"message.role: expected {record['type']}, found {shown(role)}")
        if role == "assistant":
            message.add_reply(said, record.get("timestamp"))
            return
        content = said.get("content")
        parts = content if isinstance(content, list) else [content]
        results, rest = list[Any](), list[Any]()
        for part in parts:
            is_result = isinstance(part, dict) and part.get("type") == "tool_result"
            (results if is_result else rest).append(part)
        for part in results:
            call, found = identifier_of(part.get("tool_use_id")), content_of(part.get("content"), "tool_result.content")
            turn = Turn(message=Message(role="tool", text=found.text, call_id=call), is_opaque=found.is_opaque)
            self._results.setdefault(call, (self._line, turn))
        if rest:
            found = content_of(rest if results else content, "message.content")
            message.texts, message.is_opaque = [found.text] if found.text else [], found.is_opaque

    def _check_version(self, version: Any) -> None:
        known = _VERSION.match(version) if isinstance(version, str) else None
        if version is None or (known and int(known[1]) <= _NEWEST):
            return
        found = known[1] if known else shown(version)
        if found not in self._told:
            self._told.add(found)
            raise NotRead(f"version: expected 1 or 2, found {found}; its lines are read as those of version {_NEWEST}")

    def conversations(self) -> Iterator[Conversation | NotRead]:
        """What they make up."""
        firsts, problems = self._tree.settle()
        yield from problems
        called = {call.id for message in self._messages.values() for call in message.calls}
        for call in self._results:
            if call not in called:
                yield NotRead(f"tool result of the call {call[:64]}: no call of that name")
        for leaf in last_of_each(self._said, firsts):
            path = [self._messages[name] for name in self._tree.path(leaf)]
            turns = {each.name: list[Turn]() for each in path if not each.is_damaged}
            said = [each for each in path if each.says_something]
            for message, after in zip_longest(said, said[1:]):
                if not message.is_damaged:
                    turns[message.name] = self._turns(message, after, is_first=message is said[0])
            yield from read_path([each.name for each in path], turns, path[0].conversation)

    def _turns(self, message: _ClaudeMessage, after: _ClaudeMessage | None, *, is_first: bool) -> list[Turn]:
        """A message with the results of its calls; ``after`` is the next that says something."""
        if message.is_summary and not is_first:
            return []
        is_ended = after is not None or message.stop is not None or self._ended > message.line
        if message.is_reply and not is_ended:
            return []
        is_interrupted = after is not None and not after.is_reply and "".join(after.texts).startswith(_INTERRUPTED)
        session = message.conversation.partition("/")[0]
        found = [self._results[call.id] for call in message.calls if call.id in self._results]
        answers = [turn for line, turn in found if after is None or line < after.line]
        return [message.turn(session, is_supervised=not is_interrupted), *answers]


FORMAT = Format(
    name="claude_code",
    title="Claude Code sessions",
    recognises=_recognises,
    session=_ClaudeSession,
    usual_place="~/.claude/projects/*/*.jsonl",
)
