"""``fingerprint.json``: how base, parent and candidate answer, so that a running engine shows which of them it runs.

The worker writes it beside the adapter. An endpoint is asked the same prompts later. The chances that it gives to its
next tokens are compared with those that stand here (``policy.identification``).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sleepd.protocol.chat_example import Message

VERSION = 2
"""1: with six reply tokens."""
REPLY_STEPS = 3
"""Reply tokens that are recorded: the first, and two greedy ones after it. Where an engine gives no log-probabilities
their text is all that there is."""
CHANCES = 50
"""Tokens that are recorded at each of them, the most likely ones."""
LEAST_CHANCES = 10
"""Log-probabilities for a token that an engine must give. With 20 of them 0.05 % of the draws were a false "this
cycle", with 10 0.10 %, with 5 0.16 %, with one 0.61 % (2026-11-28, tests/bench/README.md)."""
MAX_FILE_BYTES = 8 * 1024 * 1024
"""A file of this name that is longer was not written by the worker."""

PromptKind = Literal["trained", "reference", "long"]
"""``long`` stands behind so many tokens that an engine's stale cache shows itself."""
IdentityKind = Literal[
    "candidate", "parent", "base", "other_cycle", "neither", "too_coarse", "no_logprobs", "other_template"
]


class TokenChance(msgspec.Struct, frozen=True, array_like=True):
    """One token that may come next."""

    id: int
    """-1: the engine does not tell it."""
    text: str
    logprob: Annotated[float, Meta(le=0.01)]
    """Natural logarithm of its probability; a little above 0 by rounding alone."""


Step = tuple[TokenChance, ...]
"""One token of a reply: the likeliest tokens at that place, the likeliest first."""


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one model answers to a prompt, greedily: each step stands behind the likeliest tokens of those before it."""

    steps: tuple[Step, ...]
    text: str
    """Of the likeliest tokens, as a reader sees it."""


class PromptReference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prompt with the answers of the models that the worker had loaded."""

    kind: PromptKind
    messages: tuple[Message, ...]
    """As the endpoint is asked, the system message among them."""
    prompt_tokens: Annotated[int, Meta(ge=1)]
    """Tokens of the prompt as the base's own chat template writes it."""
    base: ModelAnswer
    candidate: ModelAnswer
    parent: ModelAnswer | None = None
    """None: the parent is the base."""
    tools: str = ""
    """The tools that are offered, as a JSON array in the form of OpenAI; empty: none."""


class AdapterFingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """``fingerprint.json`` of one checkpoint."""

    version: int
    cycle: Annotated[int, Meta(ge=1, le=10**9)]
    parent: int | None
    """The cycle of the parent; None: the base."""
    base_fingerprint: str
    dtype: str
    """In which the answers were computed."""
    prompts: tuple[PromptReference, ...]
    seconds: float
    """That it took."""


class PromptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint answers to one prompt of a fingerprint."""

    text: str
    steps: tuple[Step, ...] = ()
    """Empty: the engine gives no log-probabilities."""
    prompt_tokens: int | None = None
    """As the engine counts them; None: it does not."""

    @property
    def has_chances(self) -> bool:
        """Whether the first reply token has as many log-probabilities as a proof needs, each of another token."""
        if not self.steps:
            return False
        first = self.steps[0]
        has_numbers = all(one.id >= 0 for one in first)
        return len({one.id if has_numbers else one.text for one in first}) >= LEAST_CHANCES


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint runs, as its answers show it."""

    kind: IdentityKind
    cycle: int | None = None
    """Of the adapter that answers; None: the base, or it is not known."""
    distance: float | None = None
    """Root mean square difference to the nearest recorded answers, in nats; None: nothing could be compared."""
    next_nearest: float | None = None
    """The same to the next nearest."""
    dial: float | None = None
    """How much of the candidate's adapter is on: 0 none, 1 all of it; None: not measured."""
    reason: str = ""
    """In a sentence: why nothing is named, or which cycles answer like the one that is named."""

    @property
    def is_named(self) -> bool:
        """Whether it is known what the endpoint runs: the base, or one adapter of ours."""
        return self.kind in ("candidate", "parent", "base", "other_cycle")

    @property
    def text(self) -> str:
        """What it runs, with the figures: ``cycle 7 (0.08; next nearest 0.58)``."""
        name = _NAMES.get(self.kind) or ("the base model" if self.cycle is None else f"cycle {self.cycle}")
        if self.distance is None or self.next_nearest is None:
            return name
        return f"{name} ({self.distance:.2f}; next nearest {self.next_nearest:.2f})"


_NAMES: dict[IdentityKind, str] = {
    "neither": "neither the base model nor a known cycle",
    "too_coarse": "too coarse to tell",
    "no_logprobs": f"not known: the engine gives fewer than {LEAST_CHANCES} log-probabilities for a token",
    "other_template": "another chat template than the one that was trained with",
}
