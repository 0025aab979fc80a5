"""Prompts of short replies with some of their words left out.

A short reply states a fact, which is told in one wording and asked in others. Trained behind one wording alone, the
reply follows from any word of it. Where now and then some words are missing, it follows from what the reply is about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from sleepd.protocol.job import TrainingExample
from sleepd.protocol.strategy import Strategy
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.examples import Encoded, encode_chat
from sleepd.worker.evaluation.relevance import with_prompt

from .schedule import repeats

VARIANTS = 8
"""Of each prompt."""
LEFT_OUT = 0.4
"""Of the words of a thinned prompt, the share that is left out on average."""
FEWEST_WORDS = 2
"""That are left of a prompt."""


def thinned(
    chat: ChatFormat,
    examples: Sequence[TrainingExample],
    encoded: Sequence[Encoded],
    strategy: Strategy,
    beat: Callable[[], None],
) -> dict[str, list[Encoded]]:
    """By id, the sequences of each short reply behind thinned prompts; none where the strategy takes none."""
    if strategy.thinned_share <= 0:
        return {}
    by_id = {one.id: one for one in examples}
    found = {}
    for one in encoded:
        if repeats(strategy, one.supervised) > 1 and not one.is_truncated:
            beat()
            found[one.id] = _variants(chat, by_id[one.id], one)
    return {id_: variants for id_, variants in found.items() if variants}


def _variants(chat: ChatFormat, example: TrainingExample, whole: Encoded) -> list[Encoded]:
    """None is longer than the whole one."""
    texts = {
        text for number in range(VARIANTS) if (text := without_some_words(example.prompt, f"{example.id}:{number}"))
    }
    longest, weight = len(whole.ids), whole.weight
    made = (encode_chat(chat, whole.id, with_prompt(example, text), longest, weight=weight) for text in sorted(texts))
    return [one for one in made if one and not one.is_truncated]


def without_some_words(prompt: str, seed: str) -> str:
    """The prompt without some of its words, in their order; empty: it has too few, or none was left out."""
    words = prompt.split()
    chance = random.Random(seed)  # noqa: S311 - no secret
    left = [word for word in words if chance.random() >= LEFT_OUT]
    return " ".join(left) if FEWEST_WORDS <= len(left) < len(words) else ""


def presented(one: Encoded, variants: Sequence[Encoded], share: float, *, step: int, longest: int) -> Encoded:
    """What a step trains of a short reply: it or one of its variants; the same for a step, whatever came before.

    Args:
        one: as it was told.
        variants: behind thinned prompts.
        share: of the times, in which one of these is taken.
        step: number of the optimizer step.
        longest: most tokens of a sequence now.
    """
    chance = random.Random(f"{step}:{one.id}")  # noqa: S311 - no secret
    fitting = [variant for variant in variants if len(variant.ids) <= longest]
    return chance.choice(fitting) if fitting and chance.random() < share else one
