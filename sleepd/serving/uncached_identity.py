"""Which adapter an endpoint runs, asked so that its cache of prompts deceives nobody.

An engine keeps what it computed for earlier prompts. Where the adapter was changed and the cache was not (as by
``POST /lora-adapters`` of llama.cpp), a prompt that begins as an earlier one is answered by a mixture of both. So every
prompt is asked without the cache: that shows the adapter. And the long one is asked with it first, as an agent would:
where that answer is another one, agents are answered by something that was never measured. Requests beside it move
single answers, too: so what came from the cache is called stale only where it is apart from three answers that were
computed anew. Asking with the cache again shows nothing: an answer computed anew puts right what the cache holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

from sleepd.policy.answer_distance import answers_apart
from sleepd.policy.identification import identify
from sleepd.protocol.deployment.adapter_fingerprint import (
    AdapterFingerprint,
    Identity,
    ModelAnswer,
    PromptAnswer,
    PromptReference,
)

from .endpoint import Endpoint

SAME_NATS: Final = 0.08
"""A server's answers are its own earlier ones up to here. A stale cache makes 0.11 or more, requests beside it up to
0.06 (2026-11-27), on a q8_0 or q4_1 base up to 0.13 (2026-11-28): then all prompts are asked. The worst of the prompts
that are asked again moves by 0.27 or more with another generation (2026-11-28; both in tests/bench/README.md)."""
SAME_SHARE: Final = 0.5
"""And up to this share of the distance to the next nearest model: of two near generations neither passes for the
other."""
_COMPUTED_ANEW: Final = 3
"""Answers from which a stale one is apart."""
_STALE = "it answers long prompts from what it kept under another adapter: restart the engine"


def identity_of(endpoint: Endpoint, fingerprints: Sequence[AdapterFingerprint]) -> tuple[Identity, list[PromptAnswer]]:
    """What the endpoint runs, and its answers to the prompts of the first fingerprint.

    Raises:
        EngineUnreachable: nobody answers.
        EngineFailed: it answers with errors.
    """
    kept = answers_from_cache(endpoint, fingerprints[0].prompts)
    first = endpoint.answers(fingerprints[0])
    identity = identify(fingerprints, chain([first], map(endpoint.answers, fingerprints[1:])))
    most = most_apart(identity)
    long = [(fingerprints[0].prompts[place], first[place], answer) for place, answer in kept.items()]
    if identity.is_named and not all(_is_fresh(endpoint, *each, most) for each in long):
        identity = Identity(kind="neither", reason=_STALE)
    return identity, first


def _is_fresh(
    endpoint: Endpoint, prompt: PromptReference, first: PromptAnswer, kept: PromptAnswer, most: float
) -> bool:
    """Whether what came from the cache is one of the answers that the engine computes anew."""
    if is_same(first, kept, most):
        return True
    return any(is_same(endpoint.ask(prompt), kept, most) for _ in range(_COMPUTED_ANEW - 1))


def answers_from_cache(endpoint: Endpoint, prompts: Sequence[PromptReference]) -> dict[int, PromptAnswer]:
    """What an agent is answered to the long prompts, by their places; raises as :func:`identity_of`."""
    long = [(place, prompt) for place, prompt in enumerate(prompts) if prompt.kind == "long"]
    return {place: endpoint.ask(prompt, is_cache_used=True) for place, prompt in long}


def most_apart(identity: Identity) -> float:
    """How far two answers of one server may be apart, in nats, where that is what it was found to run."""
    return SAME_NATS if identity.next_nearest is None else min(SAME_NATS, identity.next_nearest * SAME_SHARE)


def is_same(one: PromptAnswer, other: PromptAnswer, most: float) -> bool:
    """Whether one server, running one adapter, gave both answers; ``most`` as :func:`most_apart` gives it."""
    if one.prompt_tokens != other.prompt_tokens:
        return False
    if not (one.steps and other.steps):
        return one.text == other.text
    left, right = (ModelAnswer(steps=each.steps, text=each.text) for each in (one, other))
    return answers_apart(left, right) <= most
