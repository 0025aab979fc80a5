"""A question that was never sent before: nothing that was kept can answer it.

A proxy that repeats whole answers, or an engine that goes on with its cache whatever it is told, answers the prompts of
a fingerprint as it did before. So one of them is also asked with random signs in front. What they change is not
recorded anywhere; but two such questions differ little where the generations differ much, and what the engine answered
while it was proved to run a generation is what it answers when it runs it again. Where the signs change too much, as
in front of a prompt on which the generations are near, nothing is kept, and nothing is concluded.

What was measured (2026-11-28, llama.cpp's server, the embedded model on q4_1): in front of a prompt of 801 tokens eight
random hexadecimal digits moved the answer by 0.14 to 0.30 nats, and two such answers differed by 0.07 to 0.16. A stale
cache made 0.06 to 0.24 there. So this finds other generations, and no stale cache behind a long prompt.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from sleepd.policy.answer_distance import answers_apart
from sleepd.protocol.deployment.adapter_fingerprint import (
    AdapterFingerprint,
    ModelAnswer,
    PromptAnswer,
    PromptReference,
)

from .endpoint import Endpoint

MOST_SHARE: Final = 0.5
"""Of the gap between the generations: farther from what was kept is another generation."""
MOST_SPREAD: Final = 0.5
"""Of that, two questions may differ when they are kept."""
LEAST_MOST: Final = 0.15
"""Nats. A server on q8_0 or q4_1 that answers others beside was up to 0.14 from its own answers (2026-11-28)."""
_TRIES: Final = 2
"""Requests beside it move single answers."""


class UnsentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine answered to a prompt with random signs in front, while it was proved."""

    prompt: PromptReference
    answer: PromptAnswer
    most: float
    """Nats. An answer to the same with other signs is farther off where another generation answers."""


def ask_unsent(endpoint: Endpoint, fingerprint: AdapterFingerprint, cycle: int | None) -> UnsentAnswer | None:
    """To be kept with a proof that the engine runs this cycle, None: the base; None: the signs change too much.

    Raises:
        EngineUnreachable: nobody answers.
        EngineFailed: it answers with errors.
    """
    gap, place = max((_least_gap(one, fingerprint, cycle), place) for place, one in enumerate(fingerprint.prompts))
    prompt, most = fingerprint.prompts[place], MOST_SHARE * gap
    if most < LEAST_MOST:
        return None
    first, second = (endpoint.ask(_marked(prompt)) for _ in range(2))
    if not (first.has_chances and second.has_chances) or _apart(first, second) > MOST_SPREAD * most:
        return None
    return UnsentAnswer(prompt=prompt, answer=first, most=most)


def is_still_said(endpoint: Endpoint, kept: UnsentAnswer) -> bool:
    """Whether the engine runs what it ran then; raises as :func:`ask_unsent`."""
    return any(_apart(kept.answer, endpoint.ask(_marked(kept.prompt))) <= kept.most for _ in range(_TRIES))


def _least_gap(prompt: PromptReference, fingerprint: AdapterFingerprint, cycle: int | None) -> float:
    """Between that cycle and the nearest other recorded model, on one prompt; 0: this prompt tells nothing."""
    models = {None: prompt.base, fingerprint.cycle: prompt.candidate}
    if prompt.parent is not None:
        models[fingerprint.parent] = prompt.parent
    own = models.pop(cycle, None)
    return 0.0 if own is None or prompt.kind == "long" else min(answers_apart(own, other) for other in models.values())


def _marked(prompt: PromptReference) -> PromptReference:
    first, *others = prompt.messages
    marked = msgspec.structs.replace(first, text=f"[{secrets.token_hex(4)}] {first.text}")
    return msgspec.structs.replace(prompt, messages=(marked, *others))


def _apart(one: PromptAnswer, other: PromptAnswer) -> float:
    left, right = (ModelAnswer(steps=each.steps, text=each.text) for each in (one, other))
    return answers_apart(left, right)
