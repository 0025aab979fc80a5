"""A running engine, asked as an agent asks it: OpenAI's chat completions, with log-probabilities.

llama.cpp, vLLM and others answer in the same form and differ in what they leave out. What is not of the expected form
is an error that says so.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from sleepd.errors import EngineFailed
from sleepd.protocol.chat_example import as_openai
from sleepd.protocol.deployment.adapter_fingerprint import (
    REPLY_STEPS,
    AdapterFingerprint,
    PromptAnswer,
    PromptReference,
    Step,
    TokenChance,
)

from .http import HttpLimits, HttpServer, parse_url

TOP_LOGPROBS = 20
"""As many as every engine gives that gives any."""
BUSY_PAUSES = (1.0, 2.0, 4.0)
"""Seconds before each further question to an engine that is busy: one refused question undoes no swap."""
_SOME = 10
"""Names of models that an error tells."""
_LEAST_LOGPROB = -1e5
"""vLLM gives -9999 for a token that cannot come; the square of a number much below that is none."""


class _Chance(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    id: int = -1


class _Place(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    id: int = -1
    top_logprobs: list[_Chance] = []


class _Logprobs(msgspec.Struct, frozen=True):
    content: list[_Place] | None = None


class _Said(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Said
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _ChatCompletion(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Served(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: list[_Served]


class Endpoint:
    """One model of a running engine.

    Args:
        url: of the engine, with ``/v1`` or without.
        model: the name that it is served under; empty: the engine's only one.
        key: what the engine wants to be shown; empty: nothing.
        limits: for each answer.

    Raises:
        UsageError: the URL is none of an engine.
    """

    def __init__(self, url: str, model: str = "", key: str = "", limits: HttpLimits | None = None) -> None:
        parse_url(url)
        self.server = HttpServer(url.rstrip("/").removesuffix("/v1"), key, limits or HttpLimits())
        self._model = model

    def answers(self, fingerprint: AdapterFingerprint) -> list[PromptAnswer]:
        """What it computes for each prompt of a fingerprint, whatever its cache of prompts holds.

        Raises:
            EngineUnreachable: nobody answers.
            EngineFailed: the answer is an error, or not of the expected form.
        """
        return [self.ask(prompt) for prompt in fingerprint.prompts]

    def ask(self, prompt: PromptReference, *, is_cache_used: bool = False) -> PromptAnswer:
        """What it answers to one prompt, greedily; raises as :meth:`answers`.

        With ``is_cache_used`` it answers as an agent is answered: from what it kept of earlier prompts. Otherwise
        llama.cpp and vLLM are told to compute it anew. The seed has no effect on greedy answers, and makes each request
        a new one to a proxy that keeps whole answers.
        """
        body = self.body(prompt)
        if not is_cache_used:
            anew = {"cache_prompt": False, "cache_salt": secrets.token_hex(16), "seed": secrets.randbelow(2**31)}
            body |= anew
        completion = self.server.json("POST", "/v1/chat/completions", _ChatCompletion, body, pauses=BUSY_PAUSES)
        return _answer(completion, self.server.url)

    def body(self, prompt: PromptReference) -> dict[str, Any]:
        """The request, as an agent would make it."""
        found: dict[str, Any] = {
            "model": self.model(),
            "messages": [as_openai(one) for one in prompt.messages],
            "temperature": 0,
            "max_tokens": REPLY_STEPS,
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
            "stream": False,
        }
        if prompt.tools:
            found["tools"] = msgspec.json.decode(prompt.tools)
        return found

    def model(self) -> str:
        """The name that the model is served under; raises as :meth:`answers`."""
        if not self._model:
            names = [one.id for one in self.server.json("GET", "/v1/models", _Models).data]
            if len(names) != 1:
                shown = ", ".join(repr(name[:80]) for name in names[:_SOME])
                text = f"the engine at {self.server.url} serves {len(names)} models: {shown}"
                raise EngineFailed(text, hint="name the one that is meant")
            self._model = names[0]
        return self._model


def _answer(completion: _ChatCompletion, url: str) -> PromptAnswer:
    if not completion.choices:
        raise EngineFailed(f"the engine at {url} answers without a choice", hint="is it a chat model?")
    choice = completion.choices[0]
    places = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
    generated = completion.usage.completion_tokens if completion.usage else None
    if generated is not None and len(places) < generated - 1:  # the token that ends a reply may be left out
        places = []  # so were parts of characters, as llama.cpp does: which places are left is not told
    return PromptAnswer(
        text=choice.message.content or "",
        steps=tuple(_step(place, url) for place in places[:REPLY_STEPS]),
        prompt_tokens=completion.usage.prompt_tokens if completion.usage else None,
    )


def _step(place: _Place, url: str) -> Step:
    """The token that was chosen, then the others that might have been."""
    chosen = _Chance(token=place.token, logprob=place.logprob, id=place.id)
    others = [one for one in place.top_logprobs[:TOP_LOGPROBS] if (one.id, one.token) != (chosen.id, chosen.token)]
    for one in (chosen, *others):
        if not _LEAST_LOGPROB <= one.logprob <= 0.01:
            raise EngineFailed(
                f"the engine at {url} gives {one.logprob!r} as a log-probability", hint="is it llama.cpp or vLLM?"
            )
    return tuple(TokenChance(id=one.id, text=one.token, logprob=one.logprob) for one in (chosen, *others))
