"""Under which system messages the reference prompts are asked: those that occur in what is trained, each in its share.

An agent that changes its system message is regularised and probed as it runs. Where no experience brings one of its
own, there is the configured system prompt alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from sleepd.protocol.chat_example import ChatExample, Message
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.failure import GiveUp

MOST = 4
"""System messages that are used: each one takes answers of the base of its own."""
_TRIED = 4 * MOST
ROOM = 256
"""Tokens that a system message must leave for a reference prompt and its answer."""
CONFIGURED = ""
"""Stands for the configured system prompt."""


def occurring_systems(
    chat: ChatFormat, examples: Sequence[ChatExample], configured: str, max_tokens: int
) -> dict[str, int]:
    """The most frequent system messages, and how many examples have each."""
    found = Counter(system_of(one, configured) for one in examples)
    likely = sorted(found.items(), key=lambda one: (-one[1], one[0]))[:_TRIED]
    usable = [(text, count) for text, count in likely if text == CONFIGURED or _is_usable(chat, text, max_tokens)]
    return dict(usable[:MOST]) or {CONFIGURED: 1}


def _is_usable(chat: ChatFormat, system: str, max_tokens: int) -> bool:
    """Whether there is room behind it, and the chat template takes it before a prompt alone."""
    try:
        return len(chat.talk_ids(["Who are you?"], system)) + ROOM <= max_tokens
    except GiveUp:
        return False


def system_of(example: ChatExample, configured: str) -> str:
    """The first system message of an experience; that of the configuration where it has none."""
    text = next((one.text for one in example.context if one.role == "system"), CONFIGURED)
    return CONFIGURED if text == configured else text


def under(systems: Mapping[str, int], prompts: Sequence[str]) -> list[ChatExample]:
    """Each prompt under one of these, by a hash of the prompt: answers that were made once can be used again."""
    return [asked(prompt, _system_for(systems, prompt)) for prompt in prompts]


def _system_for(systems: Mapping[str, int], prompt: str) -> str:
    share = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
    place = share * sum(systems.values())
    for text, count in sorted(systems.items()):
        place -= count
        if place < 0:
            return text
    return max(systems)


def asked(prompt: str, system: str = CONFIGURED) -> ChatExample:
    """A prompt under that system message, without a reply."""
    if system == CONFIGURED:
        return ChatExample(prompt=prompt, response="")
    context = (Message(role="system", text=system), Message(role="user", text=prompt))
    return ChatExample(prompt=prompt, response="", context=context)
