"""Fingerprints and answers of made-up models: a model is a list of log-probabilities for each prompt."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import msgspec

from sleepd.protocol.chat_example import Message
from sleepd.protocol.deployment.adapter_fingerprint import (
    AdapterFingerprint,
    ModelAnswer,
    PromptAnswer,
    PromptReference,
    TokenChance,
)

PROMPTS = 16
WORDS = 24
Model = list[list[float]]
"""Logits of each word, prompt by prompt."""


def base_model(seed: int = 0) -> Model:
    """A model that nothing was added to."""
    dice = random.Random(seed)
    return [[dice.gauss(0, 2) for _ in range(WORDS)] for _ in range(PROMPTS)]


def moved(model: Model, seed: int, by: float, share: float = 1.0) -> Model:
    """The model with a ``share`` of the adapter of that seed, which moves its logits by so much."""
    dice = random.Random(seed)
    return [[each + share * dice.gauss(0, by) for each in prompt] for prompt in model]


def answer_of(logits: Sequence[float], *, has_numbers: bool = True) -> ModelAnswer:
    """One token, of which every word is told."""
    most = max(logits)
    whole = most + math.log(math.fsum(math.exp(each - most) for each in logits))
    ranked = sorted(enumerate(logits), key=lambda one: -one[1])
    step = tuple(
        TokenChance(id=number if has_numbers else -1, text=f"w{number}", logprob=each - whole)
        for number, each in ranked
    )
    return ModelAnswer(steps=(step,), text=step[0].text)


def fingerprint_of(
    base: Model, candidate: Model, parent: Model | None = None, *, cycle: int = 7, parent_cycle: int | None = 6
) -> AdapterFingerprint:
    """As the worker writes it."""
    prompts = [
        PromptReference(
            kind="trained",
            messages=(Message(role="user", text=f"Question {number}?"),),
            prompt_tokens=10 + number,
            base=answer_of(base[number]),
            candidate=answer_of(candidate[number]),
            parent=None if parent is None else answer_of(parent[number]),
        )
        for number in range(PROMPTS)
    ]
    return AdapterFingerprint(
        version=1,
        cycle=cycle,
        parent=None if parent is None else parent_cycle,
        base_fingerprint="b",
        dtype="float32",
        prompts=tuple(prompts),
        seconds=1.0,
    )


def answers_of(model: Model, *, noise: float = 0.0, has_numbers: bool = True) -> list[PromptAnswer]:
    """What an engine answers that runs the model, with a difference of its own."""
    served = moved(model, 99, noise)
    said = [answer_of(logits, has_numbers=has_numbers) for logits in served]
    return [
        PromptAnswer(text=one.text, steps=(one.steps[0][:20],), prompt_tokens=10 + number)
        for number, one in enumerate(said)
    ]


def changed(answers: Sequence[PromptAnswer], most: int, **changes: object) -> list[PromptAnswer]:
    """The answers, the first ``most`` of them with other fields."""
    return [msgspec.structs.replace(one, **changes) if number < most else one for number, one in enumerate(answers)]
