"""What is said in a conversation, as it is rendered: what stands before a reply, the reply, and how texts are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from sleepd.protocol.chat_example import Message, MessageRole, ToolCall

THOUGHT_TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
"""What opens and closes a thought at the start of a reply, by family of models."""
SYSTEM, PROMPT, THOUGHT, REPLY = "system prompt", "prompt", "thought", "reply"
"""What the texts of a rendering are called; those of a talk's further turns are ``turn 1``, ``turn 2``, …"""


@dataclass(frozen=True)
class Said:
    """A reply, with the thought that came before it and the tools that it calls."""

    answer: str
    thought: str = ""
    """Empty: none was said."""
    tags: tuple[str, str] = THOUGHT_TAGS[0]
    gap: str = "\n\n"
    """What stands between the thought's end and the answer."""
    calls: tuple[ToolCall, ...] = ()


class ThinkingMessage(Message, frozen=True, kw_only=True):
    """An earlier reply with the thought before it, which some templates show until the user speaks again."""

    thought: str
    tags: tuple[str, str]
    gap: str
    """As those of :class:`Said`."""


ANY_REPLY = Said("…")
"""Stands for a reply that is still to come."""
Turn = Message | Said


@dataclass(frozen=True)
class Context:
    """All that stands before a reply."""

    messages: tuple[Message, ...]
    tools: str = ""
    """The tools that were offered, as a JSON array in the form of OpenAI; empty: none."""

    @property
    def uses_tools(self) -> bool:
        """Whether a tool is called in it, or answers."""
        return any(one.calls or one.role == "tool" for one in self.messages)


def user(text: str) -> Message:
    """What the user says."""
    return Message(role="user", text=text)


def talk(turns: Sequence[str], system: str = "") -> Context:
    """Prompt, reply, prompt, …, under a system message of their own if there is one."""
    roles: tuple[MessageRole, ...] = ("user", "assistant")
    said = (Message(role=roles[number % 2], text=text) for number, text in enumerate(turns))
    return Context((*([Message(role="system", text=system)] if system else []), *said))


def labels(turns: Sequence[Turn]) -> list[str]:
    """What the text of each turn is called."""
    found: list[str] = []
    systems = others = 0
    for turn in turns:
        if isinstance(turn, Said):
            found.append(REPLY)
            others += 1
        elif turn.role == "system":
            found.append(f"{SYSTEM} {systems + 1}" if systems else SYSTEM)
            systems += 1
        else:
            found.append(f"turn {others}" if others else PROMPT)
            others += 1
    return found


def with_ids(context: Context, calls: tuple[ToolCall, ...]) -> tuple[Context, tuple[ToolCall, ...]]:
    """The same where each call has an id, and each result the id of its call and the name of its tool.

    Some programs write none, and results then follow in the order of the calls; some templates want both.
    """
    numbers = iter(range(1, 10**9))
    named: dict[str, str] = {}
    pending: list[str] = []
    messages = []
    for message in context.messages:
        if message.calls:
            found = tuple(_with_id(call, numbers) for call in message.calls)
            named |= {call.id: call.name for call in found}
            pending = [call.id for call in found]
            messages.append(msgspec.structs.replace(message, calls=found))
        elif message.role == "tool":
            id_ = message.call_id or (pending[0] if pending else "")
            pending = [other for other in pending if other != id_]
            name = message.name or named.get(id_, "")
            messages.append(msgspec.structs.replace(message, call_id=id_, name=name))
        else:
            messages.append(message)
    return replace(context, messages=tuple(messages)), tuple(_with_id(call, numbers) for call in calls)


def _with_id(call: ToolCall, numbers: Iterator[int]) -> ToolCall:
    number = next(numbers)
    return call if call.id else msgspec.structs.replace(call, id=f"call{number:05}")


def opened_thought(written: str) -> tuple[str, str] | None:
    """The tags of a thought that ``written`` opens at its end; None: it opens none."""
    return next((tags for tags in THOUGHT_TAGS if written.rstrip().endswith(tags[0])), None)


def closes_thought(written: str) -> bool:
    """Whether ``written`` closes a thought at its end."""
    return any(written.rstrip().endswith(tags[1]) for tags in THOUGHT_TAGS)


def tags_in(text: str) -> bool:
    """Whether it holds anything that opens or closes a thought."""
    return any(tag in text for pair in THOUGHT_TAGS for tag in pair)
