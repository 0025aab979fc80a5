"""Whether what is taught answers its prompts: reply losses of the base, under the own prompt and under another one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sleepd.evidence import Relevance, ReplyLosses
from sleepd.experience import prompt_key
from sleepd.job import Lesson
from sleepd.relevance_gate import FEWEST_PROMPTS

from .data import ChatFormat, Encoded, encode_exchange
from .evaluate import Meter, require_finite

MOST = 16
"""Replies that are read, of as many prompts."""
_OTHER = "other:"
"""Stands before the id of an experience whose reply follows another prompt."""


def chosen_lessons(lessons: Sequence[Lesson]) -> list[Lesson]:
    """At most ``MOST`` of different prompts, new ones before replayed ones, each kind by a hash of the id."""
    ranked = sorted(lessons, key=lambda one: (one.role != "train", _hash(one.id)))
    of_prompt: dict[int, Lesson] = {}
    for lesson in ranked:
        of_prompt.setdefault(prompt_key(lesson.prompt), lesson)
    return list(of_prompt.values())[:MOST]


def _hash(id_: str) -> bytes:
    return hashlib.sha256(id_.encode("utf-8", "surrogatepass")).digest()


def encode_both(chat: ChatFormat, lessons: Sequence[Lesson], max_tokens: int) -> list[tuple[Encoded, Encoded]]:
    """Each reply after its own prompt and after the next one's, in a ring. What would have to be cut is left out."""
    found = []
    for number, lesson in enumerate(lessons):
        another = lessons[(number + 1) % len(lessons)].prompt
        own = encode_exchange(chat, lesson.id, lesson.prompt, lesson.response, max_tokens)
        other = encode_exchange(chat, _OTHER + lesson.id, another, lesson.response, max_tokens)
        if own and other and not (own.is_truncated or other.is_truncated):
            found.append((own, other))
    return found


def measure(meter: Meter, sequences: Sequence[tuple[Encoded, Encoded]]) -> Relevance:
    """What the model, which must be the base, makes of them; of too few prompts no loss is measured.

    Raises:
        GiveUp: a loss is not finite, or ``out_of_memory``.
        Shortened: there is room only for shorter sequences.
    """
    if len(sequences) < FEWEST_PROMPTS:
        return Relevance(prompts=len(sequences), losses=[])
    losses = meter.losses([one for both in sequences for one in both])
    require_finite([one.total for one in losses.values()])
    return Relevance(
        prompts=len(sequences),
        losses=[
            ReplyLosses(id=own.id, tokens=own.supervised, own=losses[own.id].mean, other=losses[other.id].mean)
            for own, other in sequences
        ],
    )
