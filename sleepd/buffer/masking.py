"""An exchange with placeholders for personal data. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

import msgspec

from sleepd.protocol.exchange import Exchange, Message, ToolCall
from sleepd.text.personal_data import masked

from .experience import content_hash_of, conversation_of, hash_text

_T = TypeVar("_T", bound=Exchange)


def masked_exchange(exchange: _T) -> tuple[_T, Counter[str]]:
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

    context = tuple(map(mask_message, exchange.context))
    prompts = [one.text for one in context if one.role == "user"]
    changed = msgspec.structs.replace(
        exchange,
        prompt=prompts[-1] if prompts else mask(exchange.prompt),
        response=mask(exchange.response),
        context=context,
        calls=mask_calls(exchange.calls),
        tools=mask(exchange.tools),
    )
    if not found:
        return exchange, found
    group, conversation = hash_text(content_hash_of(exchange)), hash_text(conversation_of(exchange))
    return msgspec.structs.replace(changed, unmasked=group, conversation=conversation), found
