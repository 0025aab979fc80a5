"""Rollouts of Codex: a log of items, of which ``response_item`` alone is what the model saw and said.

Reasoning, text and calls that follow each other are one reply. It counts once its end is marked (a result,
``token_count``, ``task_complete``), or at once in a file that has no such marks. The texts that Codex adds as the user
(``<environment_context>``, ``<user_instructions>``) are messages of the user, as the model saw them; its own
instructions (``base_instructions``) are the system message.

A rollout that stands in the file twice is read once: its replies have the same names, or, without a header, its times
go back to the first record. One that was resumed goes on where it was. What the user took back
(``thread_rolled_back``) is neither learned nor context.

Salience: nothing is rated. Left out: ``event_msg``, which repeats; a summary (``compacted``) of messages that stand in
the file themselves; reasoning that is encrypted, or summed up by another model; searches that the server did itself.

Source: github.com/openai/codex, codex-rs/protocol/src/models.rs (ResponseItem) and protocol.rs (RolloutItem).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    shown,
    text_of,
)
from sleepd.buffer.formats.shared_parts.message_tree import answered
from sleepd.buffer.formats.shared_parts.reply_parts import ReplyParts
from sleepd.buffer.reply_origin import origin_of
from sleepd.protocol.chat_example import Message

_KINDS: Final = ("session_meta", "turn_context", "response_item", "event_msg", "compacted")
_STARTS: Final = ("task_started", "turn_started")
_ENDS: Final = ("token_count", "task_complete", "turn_complete", "turn_aborted")
_OUTPUTS: Final = ("function_call_output", "custom_tool_call_output")
_TAKEN_BACK: Final = "thread_rolled_back"
_ADDED: Final = re.compile(
    r"\s*(?:<(?:environment_context|user_instructions|turn_aborted|skill|user_shell_command|subagent_notification)\b"
    r"|# agents\.md instructions)",
    re.IGNORECASE,
)
"""So begins what Codex says as the user."""
_LEFT_OUT: Final = ("web_search_call", "image_generation_call", "ghost_snapshot", "compaction", "other")


def _recognises(record: Record) -> bool:
    return record.get("type") in _KINDS and ("payload" in record or "timestamp" in record)


class _CodexConversation:
    """The items of one conversation."""

    def __init__(self, name: str, *, copied_from: str = "") -> None:
        self.name = name
        self.sources = {copied_from} - {""}
        """Those whose headers a fork copied behind its own."""
        self.first: Record | None = None
        """The first record behind the header."""
        self.latest: Any = None
        """The time of the last record."""
        self._stretches: list[list[Turn]] = [[]]
        """Cut where an item could not be read: no reply is learned as the answer to another message than its own."""
        self._open: ReplyParts | None = None
        self._replies = 0
        self._marks_ends = False
        self._model: Any = None
        self._at: Any = None
        """The time of the last item."""

    def add(self, kind: str, payload: Record, at: Any) -> None:
        """An item, or what happened, and when."""
        what = payload.get("type")
        if kind == "event_msg":
            self._marks_ends = self._marks_ends or what in _ENDS or what in _STARTS
            if what in _ENDS:
                self._end_reply()
            if what == _TAKEN_BACK:
                self._take_back(payload.get("num_turns"))
        elif kind == "response_item":
            try:
                self._add_item(payload, at)
            except NotRead:
                self._open = None
                self._stretches.append([])
                raise
        else:
            self._end_reply()
            if kind == "turn_context":
                self._model = payload.get("model")
            elif not self._stretches[-1] and payload.get("message"):
                self._say(Message(role="user", text=text_of(payload["message"], "payload.message")))

    def _add_item(self, item: Record, at: Any) -> None:
        what, role = item.get("type"), item.get("role")
        if what == "message" and role != "assistant":
            if role not in ("user", "system", "developer"):
                raise NotRead(f"payload.role: expected user, assistant, developer or system, found {shown(role)}")
            content = content_of(item.get("content"), "payload.content")
            self._end_reply()
            message = Message(role="user" if role == "user" else "system", text=content.text)
            self._say(message, is_opaque=content.is_opaque)
        elif what in _OUTPUTS:
            output = item.get("output")
            content = content_of(output.get("content") if isinstance(output, dict) else output, "payload.output")
            self._end_reply()
            message = Message(role="tool", text=content.text, call_id=identifier_of(item.get("call_id")))
            self._say(message, is_opaque=content.is_opaque)
        elif what not in _LEFT_OUT:
            self._open, self._at = self._open or ReplyParts(), at
            _add_part(self._open, item)

    def instructions(self, text: str) -> None:
        """What Codex tells the model first."""
        if text:
            self._say(Message(role="system", text=text))

    def _say(self, message: Message, *, is_opaque: bool = False) -> None:
        self._stretches[-1].append(Turn(message=message, is_opaque=is_opaque))

    def _take_back(self, questions: Any) -> None:
        """Forget the last questions of the user, and what followed them."""
        if not isinstance(questions, int):
            raise NotRead(f"payload.num_turns: expected a number, found {shown(questions)}")
        self._open = None
        while questions > 0:
            turns = self._stretches[-1]
            asked = next((place for place in reversed(range(len(turns))) if _is_question(turns[place].message)), None)
            if asked is not None:
                del turns[asked:]
                questions -= 1
            elif len(self._stretches) > 1:
                self._stretches.pop()
            else:
                return

    def _end_reply(self) -> None:
        """Nothing more belongs to the reply."""
        if self._open is not None:
            self._replies += 1
            name = f"{self.name}#{self._replies}" if self.name else ""
            origin = origin_of(self._model, self._at)
            self._stretches[-1] += self._open.turns(name, salience=None, is_supervised=True, origin=origin)
        self._open = None

    def conversations(self) -> Iterator[Conversation | NotRead]:
        """What was said."""
        if not self._marks_ends:
            self._end_reply()
        for turns in self._stretches:
            whole, orphans = answered(turns)
            yield from orphans
            if whole:
                yield Conversation(turns=whole, id=self.name)


class _CodexRollout:
    """The records of one file: most often one conversation."""

    def __init__(self) -> None:
        self._conversations = [_CodexConversation("")]
        self._here = self._conversations[0]
        """The one that goes on."""
        self._repeated: Record | None = None
        """A header that stands above already: the next record tells what follows it."""

    def add(self, record: Record) -> None:
        """Take one in."""
        kind, payload = record["type"], object_of(record.get("payload"), "payload")
        if kind == "session_meta":
            self._take_header(payload)
            return
        header, self._repeated = self._repeated, None
        at = record.get("timestamp")
        if record == self._here.first and (header is not None or self._goes_back_to(at)):
            self._begin(header or {})
        self._here.first, self._here.latest = self._here.first or record, at
        self._here.add(kind, payload, at)

    def _goes_back_to(self, at: Any) -> bool:
        """Whether a conversation without a name, whose first record comes again, is written again: its time went on and
        goes back to the first one. Without times it may as well be what was said again.
        """
        return not self._here.name and bool(at) and at != self._here.latest

    def _take_header(self, header: Record) -> None:
        name = identifier_of(header.get("id"))
        known = next((one for one in reversed(self._conversations) if name and one.name == name), None)
        if name in self._here.sources and self._here.first is None:
            self._here.sources.add(identifier_of(header.get("forked_from_id")))
        elif known is not None:
            self._here, self._repeated = known, header
        else:
            self._begin(header)

    def _begin(self, header: Record) -> None:
        self._here = _CodexConversation(
            identifier_of(header.get("id")), copied_from=identifier_of(header.get("forked_from_id"))
        )
        self._conversations.append(self._here)
        base = header.get("base_instructions")
        text = text_of(base.get("text") if isinstance(base, dict) else base, "payload.base_instructions")
        self._here.instructions(text)

    def conversations(self) -> Iterator[Conversation | NotRead]:
        """What they make up."""
        for each in self._conversations:
            yield from each.conversations()


def _add_part(reply: ReplyParts, item: Record) -> None:
    """A part of the assistant's reply."""
    match item.get("type"):
        case "message":
            content = content_of(item.get("content"), "payload.content")
            reply.text(content.text)
            reply.is_opaque = reply.is_opaque or content.is_opaque
        case "reasoning":
            for each in list_of(item.get("content"), "payload.content"):
                reply.thought(text_of(object_of(each, "payload.content").get("text"), "payload.content"))
        case "function_call":
            reply.call(call_of(item.get("name"), item.get("arguments"), item.get("call_id")))
        case "custom_tool_call":
            reply.call(call_of(item.get("name"), {"input": item.get("input")}, item.get("call_id")))
        case "local_shell_call":
            reply.call(call_of("local_shell", _without_type(item.get("action")), item.get("call_id") or item.get("id")))
        case other:
            raise NotRead(f"payload.type: expected a message, reasoning or a call of a tool, found {shown(other)}")


def _is_question(message: Message) -> bool:
    return message.role == "user" and not _ADDED.match(message.text)


def _without_type(action: Any) -> Record:
    return {key: value for key, value in object_of(action, "payload.action").items() if key != "type"}


FORMAT = Format(
    name="codex",
    title="Codex rollouts",
    recognises=_recognises,
    session=_CodexRollout,
    usual_place="~/.codex/sessions/*/*/*/rollout-*.jsonl",
)
