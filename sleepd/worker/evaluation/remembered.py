"""The alternative to training: the base, with an experience in its prompt, on that experience's own reply.

The prompt is made as the bench of recall makes it (``tests/bench/memory_in_prompt.py``). It is the easiest case for the
prompt, for nothing had to be searched, and the easiest for the adapter, which trained this very reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sleepd.protocol.job import TrainingExample
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.examples import Encoded, encode_chat

from .loss_evaluator import chosen
from .relevance import with_prompt

MOST: Final = 16
"""Replies that are read: a pass over so many is a small part of a cycle."""
_REMEMBERED: Final = "remembered:"
"""Stands before the id of an experience that is in its own prompt."""


class Remembered(NamedTuple):
    """One trained reply behind its experience."""

    id: str
    sequence: Encoded
    added: int
    """Tokens that the experience adds to the prompt."""


def encode_remembered(
    chat: ChatFormat, examples: Iterable[TrainingExample], trained: Sequence[Encoded], max_tokens: int
) -> list[Remembered]:
    """Some of the trained replies, each with its experience in the prompt; those that would be cut are left out."""
    by_id, found = {example.id: example for example in examples}, []
    for own in chosen(trained, MOST):
        example = by_id[own.id]
        prompt = f"This is what you know:\n- {example.prompt} {example.response}\n\n{example.prompt}"
        one = encode_chat(chat, _REMEMBERED + own.id, with_prompt(example, prompt), max_tokens)
        if one is not None and not (own.is_truncated or one.is_truncated) and one.supervised == own.supervised:
            found.append(Remembered(own.id, one, one.prompt_tokens - own.prompt_tokens))
    return found
