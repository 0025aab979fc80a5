"""A reply and all that stood before it: what one training example is made of.

Most experiences are one prompt and one reply, which the two texts say whole. An agent's are longer: system messages,
earlier turns, calls of tools and what came back. Then ``context`` has every message before the reply.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

MessageRole = Literal["system", "user", "assistant", "tool"]
"""``developer``, as some programs call the system's, is ``system`` here."""
Hash = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{16})?\Z")]
"""Sixteen hexadecimal digits, or nothing."""


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One call of a tool, as the model asked for it."""

    name: str
    arguments: str = "{}"
    """JSON text."""
    id: str = ""
    """By which the result names it; empty: the program gave none."""

    @property
    def text(self) -> str:
        """For people and for screening: ``name(arguments)``."""
        return f"{self.name}({self.arguments})"


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One message of a conversation. A thought stands at the start of its text, in ``<think>`` and ``</think>``."""

    role: MessageRole
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    """Of an assistant's message."""
    call_id: str = ""
    """Of a tool's message: the call that it answers."""
    name: str = ""
    """Of a tool's message: the tool."""

    @property
    def whole_text(self) -> str:
        """Its text and its calls, for people and for screening."""
        return whole_text(self.text, self.calls)


def whole_text(text: str, calls: tuple[ToolCall, ...]) -> str:
    """A message's text, then each of its calls on a line."""
    return "\n".join(part for part in (text, *(call.text for call in calls)) if part)


def as_openai(message: Message) -> dict[str, Any]:
    """A message in the form in which OpenAI's chat completions take it."""
    found: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.calls:
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    if message.call_id:
        found["tool_call_id"] = message.call_id
    if message.name:
        found["name"] = message.name
    return found


class ChatExample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reply and all that stood before it."""

    prompt: str
    """The text of the last message of the user."""
    response: str
    """The text of the reply; empty where it only calls tools."""
    context: tuple[Message, ...] = ()
    """Every message before the reply, the prompt among them; empty: the prompt alone, under the configured system
    prompt."""
    calls: tuple[ToolCall, ...] = ()
    """The tools that the reply calls."""
    tools: str = ""
    """The tools that were offered, as a JSON array in the form of OpenAI; empty: none."""
    unmasked: Hash = ""
    """Of a text that was changed before training (personal data masked, a context cut): the group of the text before,
    by which it stays known; else empty."""
    conversation: Hash = ""
    """What is equal for all examples on one side of the split; empty: it is a conversation of its own."""
    answers: tuple[Hash, ...] = ()
    """Of a masked text: the hash of each reply in its context as it was before, see ``buffer.reply_digest``."""
    rated_as: tuple[str, ...] = ()
    """Beside its id, the names by which a rating may name it, the most exact one first."""

    @property
    def whole_response(self) -> str:
        """The reply and its calls, for people and for screening."""
        return whole_text(self.response, self.calls)

    @property
    def asked(self) -> str:
        """What the reply answers: the text of the last message before it, of the user or of a tool."""
        return self.context[-1].text if self.context else self.prompt

    @property
    def characters(self) -> int:
        """Of all that is trained on or stands in the context."""
        context = sum(len(one.whole_text) for one in self.context) if self.context else len(self.prompt)
        return context + len(self.whole_response) + len(self.tools)

    def parts(self) -> dict[str, Any]:
        """Its fields by name, for a structure that adds others to them."""
        return {name: getattr(self, name) for name in ChatExample.__struct_fields__}

    @property
    def messages(self) -> tuple[Message, ...]:
        """Every message before the reply; the prompt alone where there is no other."""
        return self.context or (Message(role="user", text=self.prompt),)
