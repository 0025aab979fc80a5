"""A chat example with placeholders for personal data. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

import msgspec

from sleepd.protocol.chat_example import ChatExample, Message, ToolCall
from sleepd.text.personal_data import masked

from .experience import content_hash_of, conversation_of, hash_text

_T = TypeVar("_T", bound=ChatExample)


def masked_example(example: _T) -> tuple[_T, Counter[str]]:
    """All its texts with placeholders, and how many of each kind were found. It stays known by its texts before."""
    found = Counter[str]()

    def mask(text: str) -> str:
        text, here = masked(text)
        found.update(here)
        return text

    def mask_calls(calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        return tuple(msgspec.structs.replace(call, arguments=mask(call.arguments)) for call in calls)

    def mask_message(message: Message) -> Message:
        return msgspec.structs.replace(message, text=mask(message.text), calls=mask_calls(message.calls))

    context = tuple(map(mask_message, example.context))
    prompts = [one.text for one in context if one.role == "user"]
    changed = msgspec.structs.replace(
        example,
        prompt=prompts[-1] if prompts else mask(example.prompt),
        response=mask(example.response),
        context=context,
        calls=mask_calls(example.calls),
        tools=mask(example.tools),
    )
    if not found:
        return example, found
    group, conversation = hash_text(content_hash_of(example)), hash_text(conversation_of(example))
    return msgspec.structs.replace(changed, unmasked=group, conversation=conversation), found
