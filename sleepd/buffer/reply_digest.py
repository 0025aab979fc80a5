"""A reply with the message that it answers, as a hash: by it a reply is found in the contexts of others. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from sleepd.protocol.chat_example import ChatExample, Message

from .experience import said_digest


def answers(example: ChatExample) -> list[tuple[int, int]]:
    """Each reply of the context that answers something: its place, and its hash, as it was before it was masked."""
    context = example.context
    places = [place for place in range(1, len(context)) if context[place].role == "assistant"]
    if len(example.answers) == len(places):
        return [(place, int(each, 16)) for place, each in zip(places, example.answers, strict=True)]
    return [(place, _hash(context[place - 1], context[place])) for place in places]


def answer_of(example: ChatExample) -> int:
    """The hash of the example's own reply."""
    return _hash(example.messages[-1], Message(role="assistant", text=example.response, calls=example.calls))


def _hash(asked: Message, reply: Message) -> int:
    return int.from_bytes(blake2b(said_digest(asked) + said_digest(reply), digest_size=8).digest(), "big")


def governing(context: Sequence[Message], start: int) -> tuple[Message, ...]:
    """The system messages that stay where a context is cut before a place: those at its start, and the last one."""
    head = next((place for place, one in enumerate(context) if one.role != "system"), len(context))
    return (*context[:head], *[one for one in context[head:start] if one.role == "system"][-1:])
