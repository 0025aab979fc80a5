"""A sample of each format that is a session or a tree of messages, and what is understood of records and of bytes."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterable
from typing import Any

from sleepd.buffer.experience import Experience
from sleepd.buffer.learnables import Learnable
from sleepd.buffer.reading.reader_process import read_learnables

Record = dict[str, Any]


def entry(name: str, parent: str | None, message: Record | None, **more: Any) -> Record:
    """An entry of OpenClaw."""
    whole = {"type": "message", "id": name, "parentId": parent, "timestamp": "2026-11-02T08:00:00.000Z", **more}
    return whole if message is None else {**whole, "message": message}


def text(said: str) -> list[Record]:
    return [{"type": "text", "text": said}]


def openclaw() -> list[Record]:
    """A session with a call of a tool, a thought, and a second question."""
    call = {"type": "toolCall", "id": "call-7", "name": "read", "arguments": {"path": "tide.txt"}}
    result = {"role": "toolResult", "toolCallId": "call-7", "toolName": "read", "content": text("high at nine")}
    return [
        {"type": "session", "version": 3, "id": "quay", "timestamp": "2026-11-02T08:00:00.000Z", "cwd": "/srv/quay"},
        entry("e0", None, None, type="model_change", modelId="agent"),
        entry("e1", "e0", {"role": "user", "content": text("When is high water?")}),
        entry("e2", "e1", {"role": "assistant", "content": [{"type": "thinking", "thinking": "the table"}, call]}),
        entry("e3", "e2", result),
        entry("e4", "e3", {"role": "assistant", "content": text("High water is at nine."), "stopReason": "stop"}),
        entry("e5", "e4", {"role": "user", "content": "And low water?"}),
        entry("e6", "e5", {"role": "assistant", "content": text("At three.")}),
    ]


def line(uuid: str, parent: str | None, kind: str, message: Record | None, **more: Any) -> Record:
    """A line of Claude Code."""
    whole = {"parentUuid": parent, "isSidechain": False, "sessionId": "pier", "version": "2.1.4", "type": kind}
    whole |= {"uuid": uuid, "timestamp": "2026-11-02T08:00:00.000Z", **more}
    return whole if message is None else {**whole, "message": message}


def part(message: str, content: Record, stop: str | None = None) -> Record:
    return {"id": message, "role": "assistant", "model": "agent", "content": [content], "stop_reason": stop}


def used(name: str) -> Record:
    return {"type": "tool_use", "id": name, "name": "Read", "input": {"file": name}}


def gave(name: str, said: str) -> Record:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": name, "content": said}]}


def claude_code() -> list[Record]:
    """A session whose first reply takes four lines and calls two tools side by side."""
    return [
        {"type": "summary", "summary": "Tides", "leafUuid": "c8"},
        line("c1", None, "user", {"role": "user", "content": "When is high water?"}),
        line("c2", "c1", "assistant", part("m1", {"type": "thinking", "thinking": "two tables", "signature": "s"})),
        line("c3", "c2", "assistant", part("m1", {"type": "text", "text": "I look."})),
        line("c4", "c3", "assistant", part("m1", used("t1"))),
        line("c5", "c4", "assistant", part("m1", used("t2"), "tool_use")),
        line("c6", "c4", "user", gave("t1", "nine")),
        line("c7", "c5", "user", gave("t2", "ten")),
        line("c8", "c7", "assistant", part("m2", {"type": "text", "text": "Nine, or ten."}, "end_turn")),
        line("c9", "c8", "user", {"role": "user", "content": [{"type": "text", "text": "And low water?"}]}),
        line("d1", "c9", "assistant", part("m3", {"type": "text", "text": "At three."}, "end_turn")),
    ]


def item(kind: str, **payload: Any) -> Record:
    """A line of Codex."""
    return {"timestamp": "2026-11-02T08:00:00.000Z", "type": kind, "payload": payload}


def codex() -> list[Record]:
    """A rollout with instructions, a thought, text and a call in one reply, and marks of the ends of replies."""
    asked = [{"type": "input_text", "text": "When is high water?"}]
    more = [{"type": "input_text", "text": "And low water?"}]
    context = [{"type": "input_text", "text": "<environment_context>/srv</environment_context>"}]
    thought = [{"type": "reasoning_text", "text": "the table"}]
    return [
        item("session_meta", id="mole", cli_version="0.149.0", base_instructions={"text": "You are Robin."}),
        item("turn_context", model="agent", cwd="/srv"),
        item("event_msg", type="task_started"),
        item("response_item", type="message", role="user", content=context),
        item("response_item", type="message", role="user", content=asked),
        item("event_msg", type="user_message", message="When is high water?"),
        item("response_item", type="reasoning", summary=[{"type": "summary_text", "text": "x"}], content=thought),
        item("response_item", type="message", role="assistant", content=[{"type": "output_text", "text": "I look."}]),
        item("response_item", type="function_call", name="shell", arguments='{"command":["cat"]}', call_id="k1"),
        item("response_item", type="function_call_output", call_id="k1", output="nine"),
        item("response_item", type="message", role="assistant", content=[{"type": "output_text", "text": "Nine."}]),
        item("event_msg", type="token_count", info=None),
        item("response_item", type="message", role="user", content=more),
        item("response_item", type="message", role="assistant", content=[{"type": "output_text", "text": "Three."}]),
        item("event_msg", type="task_complete"),
    ]


def note(name: str, parent: str | None, role: str, content: str, **more: Any) -> Record:
    """A message of Open WebUI."""
    return {"id": name, "parentId": parent, "childrenIds": [], "role": role, "content": content, **more}


DETAILS = (
    '<details type="reasoning" done="true" duration="2">\n<summary>Thought for 2 seconds</summary>\n&gt; the table\n'
    '</details>\n<details type="tool_calls" done="true" id="k1" name="tide" arguments="&quot;{\\&quot;on\\&quot;: 1}'
    '&quot;" result="&quot;nine&quot;">\n<summary>Tool Executed</summary>\n</details>\nHigh water is at nine.'
)


def open_webui() -> Record:
    """A chat: a reply rated up, one chosen among three of which another was rated up, and one rated down."""
    messages = [
        note("w1", None, "user", "When is high water?"),
        note("w2", "w1", "assistant", DETAILS, annotation={"rating": 1, "details": {"rating": 8}}, done=True),
        note("w3", "w2", "user", "And low water?"),
        note("w4", "w3", "assistant", "At four."),
        note("w5", "w3", "assistant", "At three.", done=True),
        note("w6", "w3", "assistant", "Around three.", annotation={"rating": 1}),
        note("w7", "w5", "user", "Spring tide?"),
        note("w8", "w7", "assistant", "No.", annotation={"rating": -1}),
    ]
    history = {"currentId": "w8", "messages": {one["id"]: one for one in messages}}
    chat = {"title": "Tides", "models": ["agent"], "params": {"system": "You are Robin."}, "history": history}
    return {"id": "dock", "user_id": "u", "title": "Tides", "chat": {**chat, "files": []}, "archived": False}


def open_webui_feedback() -> Record:
    """The rating of one reply of that chat, with the chat."""
    chat = open_webui()
    meta = {"model_id": "agent", "message_id": "w5", "chat_id": "dock"}
    return {"id": "f", "type": "rating", "data": {"rating": 1}, "meta": meta, "snapshot": {"chat": chat}}


def node(name: str, parent: str | None, role: str, content: Record, **more: Any) -> Record:
    """A node of ChatGPT's mapping."""
    message = {"id": name, "author": {"role": role}, "content": content, "weight": 1.0, **more}
    return {"id": name, "parent": parent, "children": [], "message": message}


def parts(*said: Any) -> Record:
    return {"content_type": "text", "parts": [*said]}


def chatgpt_export() -> Record:
    """A conversation with the user's own instructions, a call of a tool, and a regenerated reply."""
    own = {"content_type": "user_editable_context", "user_profile": "", "user_instructions": "Be brief."}
    hidden = {"metadata": {"is_visually_hidden_from_conversation": True}}
    nodes = [
        {"id": "g0", "parent": None, "children": ["g1"], "message": None},
        node("g1", "g0", "system", parts(""), **hidden),
        node("g2", "g1", "user", own, **hidden),
        node("g3", "g2", "user", parts("When is high water?")),
        node("g4", "g3", "assistant", {"content_type": "code", "text": "tide()"}, recipient="python"),
        node("g5", "g4", "tool", {"content_type": "execution_output", "text": "nine"}),
        node("g6", "g5", "assistant", parts("At nine."), recipient="all"),
        node("g7", "g6", "user", parts("And low water?")),
        node("g8", "g7", "assistant", parts("At four.")),
        node("g9", "g7", "assistant", parts("At three.")),
    ]
    return {"title": "Tides", "conversation_id": "slip", "current_node": "g9", "mapping": {x["id"]: x for x in nodes}}


def letter(name: str, parent: str, is_users: bool, said: str, **more: Any) -> Record:
    """A message of LibreChat."""
    return {"messageId": name, "parentMessageId": parent, "isCreatedByUser": is_users, "text": said, **more}


def librechat() -> Record:
    """An export with branches: a reply rated up beside the current one, a call of a tool, and a thumbs down."""
    call = {"id": "k1", "name": "tide", "args": '{"on":1}', "output": "nine", "type": "tool_call"}
    content = [
        {"type": "think", "think": "the table"},
        {"type": "tool_call", "tool_call": call},
        {"type": "text", "text": "At nine."},
    ]
    messages = [
        letter("l1", "00000000-0000-0000-0000-000000000000", True, "When is high water?"),
        letter("l2", "l1", False, "At ten.", feedback={"rating": "thumbsUp"}),
        letter("l3", "l1", False, "", content=content),
        letter("l4", "l3", True, "And low water?"),
        letter("l5", "l4", False, "At four.", feedback={"rating": "thumbsDown", "tag": {"key": "inaccurate"}}),
    ]
    options = {"model": "agent", "promptPrefix": "You are Robin."}
    return {"conversationId": "ford", "title": "Tides", "branches": True, "options": options, "messages": messages}


def sillytavern() -> list[Record]:
    """A chat with a greeting, a reply chosen among two, and one with a thought."""
    metadata = {"chat_metadata": {"integrity": "weir"}}
    return [
        {"user_name": "You", "character_name": "Robin", "create_date": "2026-11-02@08h00m00s", **metadata},
        {"name": "Robin", "is_user": False, "is_system": False, "mes": "Ahoy!", "extra": {}},
        {"name": "You", "is_user": True, "is_system": False, "mes": "When is high water?", "extra": {}},
        {"name": "Robin", "is_user": False, "mes": "At nine.", "swipe_id": 1, "swipes": ["At ten.", "At nine."]},
        {"name": "System", "is_user": False, "is_system": True, "mes": "A note.", "extra": {}},
        {"name": "You", "is_user": True, "mes": "And low water?"},
        {"name": "Robin", "is_user": False, "mes": "At three.", "swipes": ["At three."], "extra": {"reasoning": "hm"}},
    ]


TREE_SAMPLES: dict[str, list[Record]] = {
    "openclaw": openclaw(),
    "claude_code": claude_code(),
    "codex": codex(),
    "open_webui": [open_webui()],
    "open_webui_feedback": [open_webui_feedback()],
    "chatgpt_export": [chatgpt_export()],
    "librechat": [librechat()],
    "sillytavern": sillytavern(),
}
SESSIONS = ("openclaw", "claude_code", "codex", "sillytavern")
"""Those of which each record is a message or a part of one."""


def as_lines(records: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def read(data: bytes | Iterable[Any]) -> tuple[list[Experience], list[tuple[str, str]]]:
    """What is learned of a file, or of records as lines of one; and the reasons, each with its place."""
    replies, reasons = [], []
    for place, found in read_learnables(io.BytesIO(data if isinstance(data, bytes) else as_lines(data)))[1]:
        if isinstance(found, Learnable):
            replies.append(found.experience())
        else:
            reasons.append((place, found))
    return replies, reasons


def figures(data: bytes | Iterable[Any]) -> list[tuple[str, int, int]]:
    """Id, content hash and conversation of each reply."""
    found = read_learnables(io.BytesIO(data if isinstance(data, bytes) else as_lines(data)))[1]
    return [(one.id, one.group, one.conversation) for _, one in found if isinstance(one, Learnable)]


def shape(one: Experience) -> str:
    """The roles before a reply by their first letters, and the reply."""
    return "".join(message.role[0] for message in one.messages) + " > " + one.whole_response.replace("\n", "|")


def copied(record: Any) -> Any:
    return copy.deepcopy(record)
