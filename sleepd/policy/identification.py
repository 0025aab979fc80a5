"""Which adapter an endpoint runs: its answers held against those that the worker recorded. Pure.

Theory
------
A fingerprint knows three models: base, parent and candidate. The nearest one is named where it is much nearer than the
next (``MOST_RATIO``). A quantized base adds a difference of its own, the same whichever adapter is on, and independent
of the way from one model to the other: with the difference n and the gap g the ratio is n / sqrt(n² + g²). An adapter
that no fingerprint knows is about as far from all three.

Of two generations that were trained from one another the older fingerprint does not know the younger one, which may be
near to it. So whatever one fingerprint names, every other fingerprint that knows the same model must name too, save
for one whose base and candidate answer alike.

The dial is the projection on the way from base to candidate: with part of an adapter, or two of them, it is off.

What is not covered
-------------------
The limits below were chosen from two adapters with a strong effect on SmolLM2-135M-Instruct (2026-11-27): on bases in
q8_0, q4_1 and Q4_K_M the distance to the model that ran was at most 0.35, and that to the next one at least 0.53. How
often they err, and with weak adapters, is not measured. One long prompt among sixteen has too little weight for an
engine's stale cache to show itself in the distance of them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from sleepd.protocol.deployment.adapter_fingerprint import AdapterFingerprint, Identity, IdentityKind, PromptAnswer

from .answer_distance import Sums, root_mean, sums_of, total

MOST_RATIO = 0.6
"""The nearest model's distance, divided by that of the next nearest, is at most this."""
DIAL_ROOM = 0.25
"""The dial may be so far from where the nearest model has it: 0 for the base, 1 for the candidate."""
MOST_NOISE = 0.5
"""Nats. The numbers of a base that is quantized as bases usually are make no larger difference."""
TOKENS_APART = 0.25
"""Share of the prompts that may have another number of tokens at the endpoint; they are left out."""
LEAST_GAP = 0.05
"""Nats. Recorded models that are nearer to each other cannot be told apart by any engine."""


def identify(fingerprints: Sequence[AdapterFingerprint], answers: Iterable[Sequence[PromptAnswer]]) -> Identity:
    """What the endpoint runs, by the first fingerprint, confirmed by the others; or by the first one that knows it.

    Args:
        fingerprints: of the cycle that is expected first, then of others.
        answers: to the prompts of each of them, one for each prompt; no more are taken than are needed.
    """
    return agreed(map(identify_one, fingerprints, answers), fingerprints)


def agreed(found: Iterable[Identity], fingerprints: Sequence[AdapterFingerprint]) -> Identity:
    """What all fingerprints say together, each having been asked by itself, in their order."""
    first: Identity | None = None
    for fingerprint, one in zip(fingerprints, found, strict=False):
        if first is None:
            first = one
            if first.kind in ("no_logprobs", "other_template"):
                return first
        elif not first.is_named:
            if one.kind in ("candidate", "parent") and one.cycle is not None:
                return msgspec.structs.replace(one, kind="other_cycle")
        elif not _confirms(fingerprint, one, fingerprints[0], first):
            if one.is_named and knows(fingerprint, first.cycle):
                return msgspec.structs.replace(one, kind="base" if one.cycle is None else "other_cycle")
            text = f"by cycle {fingerprints[0].cycle}'s fingerprint it is {first.text}, by cycle {fingerprint.cycle}'s"
            kind: IdentityKind = "neither" if one.is_named else one.kind
            return msgspec.structs.replace(one, kind=kind, cycle=None, reason=f"{text} {one.text}")
    return first or Identity(kind="neither", reason="there is no fingerprint to compare with")


def _confirms(fingerprint: AdapterFingerprint, one: Identity, asked_first: AdapterFingerprint, first: Identity) -> bool:
    """Whether what a fingerprint says leaves the first one named as it is."""
    if one.is_named and one.cycle == first.cycle:
        return True
    if knows(fingerprint, first.cycle):
        return not one.is_named and one.dial is None  # its base and candidate answer alike: it can confirm nothing
    # It does not know the model that was named. What it names instead counts where the first did not know that.
    return not one.is_named or knows(asked_first, one.cycle)


def knows(fingerprint: AdapterFingerprint, cycle: int | None) -> bool:
    """Whether a fingerprint has the answers of that cycle; None: of the base."""
    return cycle in (None, fingerprint.cycle, fingerprint.parent)


def identify_one(fingerprint: AdapterFingerprint, answers: Sequence[PromptAnswer]) -> Identity:
    """What the endpoint runs, as far as one fingerprint knows."""
    pairs = list(zip(fingerprint.prompts, answers, strict=True))
    if not any(answer.steps for answer in answers):
        return _by_text(fingerprint, answers)
    fitting = [pair for pair in pairs if pair[1].prompt_tokens in (None, pair[0].prompt_tokens)]
    if len(pairs) - len(fitting) > TOKENS_APART * len(pairs):
        text = f"{len(pairs) - len(fitting)} of {len(pairs)} prompts have another number of tokens there"
        return Identity(kind="other_template", reason=text)
    return by_sums(fingerprint, total(sums_of(*pair) for pair in fitting))


class _Model(NamedTuple):
    """One of the recorded models."""

    kind: Literal["base", "candidate", "parent"]
    cycle: int | None
    distance: float


def by_sums(fingerprint: AdapterFingerprint, sums: Sums) -> Identity:
    """What these figures mean, over all prompts of a fingerprint."""
    models = [
        _Model("base", None, root_mean(sums.base, sums.base_weight)),
        _Model("candidate", fingerprint.cycle, root_mean(sums.candidate, sums.candidate_weight)),
    ]
    if fingerprint.parent is not None and sums.parent_weight > 0:
        models.append(_Model("parent", fingerprint.parent, root_mean(sums.parent, sums.parent_weight)))
    nearest, following, *_ = sorted(models, key=lambda one: one.distance)
    measured = Identity(kind="neither", distance=nearest.distance, next_nearest=following.distance, dial=sums.dial)
    if sums.gap < LEAST_GAP:
        text = f"base and candidate answer alike (they differ by {sums.gap:.2f}): no engine can be told by them"
        return msgspec.structs.replace(measured, kind="too_coarse", dial=None, reason=text)
    if not _is_whole(nearest, sums):
        text = "its answers are those of no recorded model: another adapter, several of them, or part of one"
        return msgspec.structs.replace(measured, reason=text)
    if nearest.distance <= MOST_RATIO * following.distance:
        return msgspec.structs.replace(measured, kind=nearest.kind, cycle=nearest.cycle)
    if nearest.distance > MOST_NOISE:
        text = "its answers are those of no recorded model: another adapter, or a base with very coarse numbers"
        return msgspec.structs.replace(measured, reason=text)
    text = "the engine's numbers are as far from the nearest model as the models are from each other"
    return msgspec.structs.replace(measured, kind="too_coarse", reason=text)


def _is_whole(nearest: _Model, sums: Sums) -> bool:
    """Whether the dial stands where that model has it."""
    expected = {"base": 0.0, "candidate": 1.0, "parent": sums.parent_dial}[nearest.kind]
    return sums.dial is not None and expected is not None and abs(sums.dial - expected) <= DIAL_ROOM


def _by_text(fingerprint: AdapterFingerprint, answers: Sequence[PromptAnswer]) -> Identity:
    """The weaker test: how many replies are word for word those of base and candidate."""
    pairs = list(zip(fingerprint.prompts, answers, strict=True))
    as_candidate = sum(answer.text == one.candidate.text for one, answer in pairs)
    as_base = sum(answer.text == one.base.text for one, answer in pairs)
    text = (
        f"by text alone, {as_candidate} of {len(pairs)} replies are those of cycle {fingerprint.cycle} and {as_base}"
        " those of the base, which is a hint and no proof"
    )
    return Identity(kind="no_logprobs", reason=text)
