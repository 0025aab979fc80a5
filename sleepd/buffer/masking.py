"""A chat example with placeholders for personal data. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from sleepd.protocol.chat_example import ChatExample, Message, ToolCall
from sleepd.text.personal_data import masked

from .experience import content_hash_of, conversation_of, hash_text
from .reply_digest import answers

_NUMBER_DIGITS = 9
"""A number with fewer digits is no card and no telephone number."""
_T = TypeVar("_T", bound=ChatExample)


def masked_example(example: _T) -> tuple[_T, Counter[str]]:
    """All its texts with placeholders, and how many of each kind were found. It stays known by its texts before."""
    found = Counter[str]()

    def mask(text: str) -> str:
        text, here = masked(text)
        found.update(here)
        return text

    def mask_json(text: str) -> str:
        """Each text in a JSON value; what is none is masked as a text."""
        try:
            value = json.loads(text)
        except ValueError:
            return mask(text)
        before = found.total()
        changed = _each_text(value, mask)
        return text if found.total() == before else json.dumps(changed, ensure_ascii=False, separators=(",", ":"))

    def mask_calls(calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        return tuple(msgspec.structs.replace(call, arguments=mask_json(call.arguments)) for call in calls)

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
        tools=mask_json(example.tools) if example.tools else "",
    )
    if not found:
        return example, found
    group, conversation = hash_text(content_hash_of(example)), hash_text(conversation_of(example))
    said = tuple(hash_text(answer) for _, answer in answers(example))
    return msgspec.structs.replace(changed, answers=said, unmasked=group, conversation=conversation), found


def _each_text(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [_each_text(one, mask) for one in value]
    if isinstance(value, dict):
        return {name: _each_text(one, mask) for name, one in value.items()}
    if isinstance(value, int) and not isinstance(value, bool) and len(str(abs(value))) >= _NUMBER_DIGITS:
        masked_number = mask(str(value))
        return value if masked_number == str(value) else masked_number
    return value
