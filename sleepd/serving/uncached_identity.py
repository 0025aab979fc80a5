"""Which adapter an endpoint runs, asked so that its cache of prompts deceives nobody.

An engine keeps what it computed for earlier prompts. Where the adapter was changed and the cache was not (as by
``POST /lora-adapters`` of llama.cpp), a prompt that begins as an earlier one is answered by a mixture of both. So every
prompt is asked without the cache: that shows the adapter. And the long one is asked with it first, as an agent would:
where that answer is another one, agents are answered by something that was never measured.
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
"""A server's answers are its own earlier ones up to here. Requests beside it make a difference of up to 0.06; a stale
cache makes 0.11 or more, another generation 0.5."""
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
    if identity.is_named and not all(is_same(answer, kept.get(place, answer)) for place, answer in enumerate(first)):
        identity = Identity(kind="neither", reason=_STALE)
    return identity, first


def answers_from_cache(endpoint: Endpoint, prompts: Sequence[PromptReference]) -> dict[int, PromptAnswer]:
    """What an agent is answered to the long prompts, by their places; raises as :func:`identity_of`."""
    long = [(place, prompt) for place, prompt in enumerate(prompts) if prompt.kind == "long"]
    return {place: endpoint.ask(prompt, is_cache_used=True) for place, prompt in long}


def is_same(one: PromptAnswer, other: PromptAnswer) -> bool:
    """Whether one server, running one adapter, gave both answers."""
    if one.prompt_tokens != other.prompt_tokens:
        return False
    if not (one.steps and other.steps):
        return one.text == other.text
    left, right = (ModelAnswer(steps=each.steps, text=each.text) for each in (one, other))
    return answers_apart(left, right) <= SAME_NATS
