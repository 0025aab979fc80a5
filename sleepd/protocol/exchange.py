"""A reply and all that stood before it: what one training example is made of.

Most experiences are one prompt and one reply, which the two texts say whole. An agent's are longer: system messages,
earlier turns, calls of tools and what came back. Then ``context`` has every message before the reply.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MessageRole = Literal["system", "user", "assistant", "tool"]
"""``developer``, as some programs call the system's, is ``system`` here."""
Unmasked = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{16})?\Z")]
"""Of a text whose personal data were masked: the group of the text before, by which it stays known; else empty."""


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


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
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
    unmasked: Unmasked = ""

    @property
    def whole_response(self) -> str:
        """The reply and its calls, for people and for screening."""
        return whole_text(self.response, self.calls)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Every message before the reply; the prompt alone where there is no other."""
        return self.context or (Message(role="user", text=self.prompt),)
