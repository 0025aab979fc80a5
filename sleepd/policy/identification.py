"""Which adapter an endpoint runs: its answers held against those that the worker recorded. Pure.

Theory
------
A fingerprint knows three models: base, parent and candidate. The nearest one is named where it is much nearer than the
next (``MOST_RATIO``). A quantized base adds a difference of its own, the same whichever adapter is on, and independent
of the way from one model to the other: with the difference n and the gap g the ratio is n / sqrt(n² + g²). An adapter
that no fingerprint knows is about as far from all three.

Of two generations that were trained from one another the older fingerprint does not know the younger one, which may be
near to it. So a model that one fingerprint names must be confirmed by all others: one that knows the model must name it
too; one that does not know it must be much farther from all of its own models. A fingerprint whose base and candidate
answer alike confirms nothing, and the reason tells that cycle beside the model that is named.

The dial is the projection on the way from base to candidate: with part of an adapter, or two of them, it is off. How
far it may be off depends on how far the engine is from the nearest model.

Together the prompts hide a single one: of several servers behind one address an old one may answer one prompt of
sixteen. So a prompt on which two models are far apart must agree with what all of them name, and none may be much
farther off than most. Where the first token does not tell two near models apart, all recorded tokens do it if the lead
of the nearest one is sure: an engine's own difference has no direction, and averages out over prompts and tokens.

What was measured
-----------------
2026-11-28, ``python tests/bench/bench_fingerprint.py rates --out DIR`` (tables in tests/bench/README.md), twice.
Adapters of SmolLM2-135M-Instruct ran on the llama.cpp server. Prompts were drawn again and again. Seven adapters,
before prompts counted by themselves: where one model ran, none of 44,800 draws named another one; where two adapters
or half of one ran, 0.25 % of 11,200 draws named one of them. On f16, q8_0 and q4_1 six adapters were named, also one
that is 0.19 nats from its parent; on Q4_K_M that one was too coarse to tell. The seventh, 0.002 nats from the base,
was never named. Four other adapters on three bases, one trained and three random, with the rules of now: half of one
or two at once were named in 0.03 % of 12,600 draws, four fifths of one in 3.0 % of 4,200. Where one ran alone, none
of 8,400 draws named another one.

What is not covered
-------------------
The draws tell how much depends on the prompts, not how other bases, adapters or engines differ. Six adapters of one
small model are few. One long prompt among sixteen has too little weight for an engine's stale cache to show itself in
the distance of them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from sleepd.protocol.deployment.adapter_fingerprint import AdapterFingerprint, Identity, IdentityKind, PromptAnswer

from .answer_distance import Sums, root_mean, sums_of, total

MOST_RATIO = 0.6
"""The nearest model's distance, divided by that of the next nearest, is at most this. With 0.5, more remains unnamed
(34 % instead of 25 %) and hardly less is false."""
DIAL_ROOM = 0.2
"""The dial may be so far from where the nearest model has it: 0 for the base, 1 for the candidate. A Q4_K_M base moved
it by up to 0.14, half of an adapter by 0.26 or more."""
DIAL_LEAST = 0.05
DIAL_NOISE = 0.35
"""Where the engine is near, the room is smaller: this, and so much of the distance as a share of the gap between base
and candidate. So four fifths of an adapter are not called the whole one on a fine base."""
MOST_NOISE = 0.45
"""Nats. A Q4_K_M base made a difference of up to 0.39, the others 0.11; two adapters at once made 0.61 or more. With
0.5, three times as many draws are named falsely."""
TOKENS_APART = 0.25
"""Share of the prompts that may have another number of tokens at the endpoint; they are left out."""
BEFORE_TIMES = 2.0
BEFORE_ROOM = 0.1
"""Nats. A proof is at most so much farther from the recorded answers than the nearest one of the same engine before: so
many times, and the room for requests beside it. Most of what two adapters at once, or half of one, do is more."""
LEAST_ANSWERED = 0.5
"""Share of the prompts whose answers must have enough log-probabilities: eight and more were measured to do."""
DECISIVE = 4.0
"""A prompt is decisive by itself where two models are so many times farther apart than the engine is from the nearest
one on half of the prompts."""
DISSENT = 0.25
"""Share of the whole lead that such a prompt must show."""
STRAY = 2.25
STRAY_NATS = 0.25
"""A prompt is answered by none of the models that is so many times as far as half of the prompts, and so many nats."""
SURE = 2.5
"""Standard errors, over the prompts, by which a lead must be sure."""
LEAST_LEAD = 0.4
"""Share of the whole lead."""
LEAST_PROMPTS = 6
"""Fewer of them show no spread."""
LEAST_GAP = 0.05
"""Nats. Base and candidate that are nearer to each other cannot be told apart: f16 alone makes a difference of 0.01."""


def identify(fingerprints: Sequence[AdapterFingerprint], answers: Iterable[Sequence[PromptAnswer]]) -> Identity:
    """What the endpoint runs, by the first fingerprint, confirmed by the others; or by the first one that knows it.

    Args:
        fingerprints: of the cycle that is expected first, then of others.
        answers: to the prompts of each of them, one for each prompt; no more are taken than are needed.
    """
    return agreed(map(identify_one, fingerprints, answers), fingerprints)


def as_near_as_before(identity: Identity, nearest: float | None) -> Identity:
    """It, where that is no farther than the engine's own difference; else that nothing is named.

    Args:
        identity: what the answers show.
        nearest: the smallest distance at which this engine was proved to run anything; None: it never was.
    """
    if nearest is None or identity.distance is None or not identity.is_named:
        return identity
    if identity.distance <= BEFORE_TIMES * nearest + BEFORE_ROOM:
        return identity
    reason = (
        f"its answers are {identity.distance:.2f} from {identity.text}, and were {nearest:.2f} from what was proved"
        " before: several adapters at once, part of one, or another base model (then: sleepctl reload)"
    )
    return msgspec.structs.replace(identity, kind="neither", cycle=None, reason=reason)


def agreed(found: Iterable[Identity], fingerprints: Sequence[AdapterFingerprint]) -> Identity:
    """What all fingerprints say together, each having been asked by itself, in their order."""
    said: list[_Statement] = []
    for fingerprint, one in zip(fingerprints, found, strict=False):
        if not said and one.kind in ("no_logprobs", "other_template"):
            return one
        said.append(_Statement(fingerprint, one))
    if not said:
        return Identity(kind="neither", reason="there is no fingerprint to compare with")
    first = said[0]
    for claim in said:
        is_first = claim is first
        if not claim.identity.is_named or (not is_first and first.is_alike and knows(first.fingerprint, claim.cycle)):
            continue
        if any(not _confirms(other, claim) for other in said if other is not claim):
            continue
        kind: IdentityKind = "base" if claim.cycle is None else "other_cycle"
        kind = claim.identity.kind if is_first else kind
        return msgspec.structs.replace(claim.identity, kind=kind, reason=_alike_too(claim, said))
    return _disputed(first, said) if first.identity.is_named else first.identity


class _Statement(NamedTuple):
    """What one fingerprint says."""

    fingerprint: AdapterFingerprint
    identity: Identity

    @property
    def cycle(self) -> int | None:
        """That it names."""
        return self.identity.cycle

    @property
    def is_alike(self) -> bool:
        """Its base and candidate answer alike: it can confirm nothing."""
        return self.identity.kind == "too_coarse" and self.identity.dial is None

    def is_farther_than(self, other: _Statement) -> bool:
        """Whether its nearest model is much farther than the other's."""
        own, near = self.identity.distance, other.identity.distance
        return own is not None and near is not None and near <= MOST_RATIO * own


def _confirms(other: _Statement, claim: _Statement) -> bool:
    """Whether what another fingerprint says leaves the model named that this one names."""
    if other.identity.is_named and other.cycle == claim.cycle:
        return True
    if knows(other.fingerprint, claim.cycle):
        return other.is_alike
    if other.is_alike or other.is_farther_than(claim):
        return True
    # It is about as near to a model of its own. That counts where the claiming fingerprint does not know that model.
    near = [other.cycle] if other.identity.is_named else [other.fingerprint.cycle, other.fingerprint.parent]
    return all(knows(claim.fingerprint, cycle) for cycle in near)


def _alike_too(claim: _Statement, said: Sequence[_Statement]) -> str:
    """Which cycles answer as the named model does, in a sentence; empty: none."""
    alike = [each.fingerprint.cycle for each in said if each.is_alike and knows(each.fingerprint, claim.cycle)]
    if not alike:
        return ""
    names = ", ".join(map(str, alike))
    return f"cycle {names} answers like it (they differ by less than {LEAST_GAP}), so that it may run that one as well"


def _disputed(first: _Statement, said: Sequence[_Statement]) -> Identity:
    """The first one names a model, and another one contradicts."""
    other = next(each for each in said if each is not first and not _confirms(each, first))
    text = f"by cycle {first.fingerprint.cycle}'s fingerprint it is {first.identity.text}, by cycle"
    kind: IdentityKind = "neither" if other.identity.is_named else other.identity.kind
    reason = f"{text} {other.fingerprint.cycle}'s {other.identity.text}"
    return msgspec.structs.replace(other.identity, kind=kind, cycle=None, reason=reason)


def knows(fingerprint: AdapterFingerprint, cycle: int | None) -> bool:
    """Whether a fingerprint has the answers of that cycle; None: of the base."""
    return cycle in (None, fingerprint.cycle, fingerprint.parent)


def identify_one(fingerprint: AdapterFingerprint, answers: Sequence[PromptAnswer]) -> Identity:
    """What the endpoint runs, as far as one fingerprint knows."""
    pairs = list(zip(fingerprint.prompts, answers, strict=True))
    if sum(answer.has_chances for answer in answers) < LEAST_ANSWERED * len(answers):
        return _by_text(fingerprint, answers)
    fitting = [pair for pair in pairs if pair[1].prompt_tokens in (None, pair[0].prompt_tokens)]
    if len(pairs) - len(fitting) > TOKENS_APART * len(pairs):
        text = f"{len(pairs) - len(fitting)} of {len(pairs)} prompts have another number of tokens there"
        return Identity(kind="other_template", reason=text)
    return by_sums(fingerprint, [sums_of(*pair) for pair in fitting if pair[1].has_chances])


class _Model(NamedTuple):
    """One of the recorded models."""

    kind: Literal["base", "candidate", "parent"]
    cycle: int | None
    distance: float


def by_sums(fingerprint: AdapterFingerprint, of_prompts: Sequence[Sums]) -> Identity:
    """What these figures of some prompts of a fingerprint mean together."""
    sums = total(of_prompts)
    models = [
        _Model("base", None, _distance(sums, "base")),
        _Model("candidate", fingerprint.cycle, _distance(sums, "candidate")),
    ]
    if fingerprint.parent is not None and sums.parent_weight > 0:
        models.append(_Model("parent", fingerprint.parent, _distance(sums, "parent")))
    nearest, following, *_ = ranked = sorted(models, key=lambda one: one.distance)
    measured = Identity(kind="neither", distance=nearest.distance, next_nearest=following.distance, dial=sums.dial)
    if sums.gap < LEAST_GAP:
        text = f"base and candidate answer alike (they differ by {sums.gap:.2f}): no engine can be told by them"
        return msgspec.structs.replace(measured, kind="too_coarse", dial=None, reason=text)
    if not _is_whole(nearest, sums):
        text = "its answers are those of no recorded model: another adapter, several of them, or part of one"
        return msgspec.structs.replace(measured, reason=text)
    if nearest.distance > MOST_NOISE:
        text = "its answers are those of no recorded model: another adapter, or a base with very coarse numbers"
        return msgspec.structs.replace(measured, reason=text)
    typical = median(_distance(each, nearest.kind) for each in of_prompts)
    dissenting = sum(_dissents(each, nearest, ranked[1:], typical) for each in of_prompts)
    if dissenting:
        text = (
            f"{dissenting} of {len(of_prompts)} answers are those of another model: several servers behind one address?"
        )
        return msgspec.structs.replace(measured, reason=text)
    if nearest.distance <= MOST_RATIO * following.distance:
        return msgspec.structs.replace(measured, kind=nearest.kind, cycle=nearest.cycle)
    if _is_nearer_by_all_tokens(of_prompts, nearest, following):
        return msgspec.structs.replace(measured, kind=nearest.kind, cycle=nearest.cycle)
    text = "the engine's numbers are as far from the nearest model as the models are from each other"
    return msgspec.structs.replace(measured, kind="too_coarse", reason=text)


def _is_nearer_by_all_tokens(of_prompts: Sequence[Sums], nearest: _Model, following: _Model) -> bool:
    """Whether more tokens tell: all recorded ones, prompt by prompt, so that an engine's own difference averages out.

    Where the nearest model answers, its lead over the next one adds up to the square of the gap between the two; half
    way between them it adds up to nothing.
    """
    found = [_lead(each, nearest, following) for each in of_prompts]
    leads, gap = [lead for lead, _ in found], math.fsum(gap for _, gap in found)
    if len(leads) < LEAST_PROMPTS or gap <= 0:
        return False
    mean = math.fsum(leads) / len(leads)
    spread = math.fsum((each - mean) ** 2 for each in leads) * len(leads) / (len(leads) - 1)
    return math.fsum(leads) - SURE * math.sqrt(spread) >= LEAST_LEAD * gap


def _is_whole(nearest: _Model, sums: Sums) -> bool:
    """Whether the dial stands where that model has it."""
    expected = {"base": 0.0, "candidate": 1.0, "parent": sums.parent_dial}[nearest.kind]
    room = min(DIAL_ROOM, DIAL_LEAST + DIAL_NOISE * nearest.distance / sums.gap)
    return sums.dial is not None and expected is not None and abs(sums.dial - expected) <= room


def _dissents(sums: Sums, named: _Model, others: Sequence[_Model], typical: float) -> bool:
    """Whether one prompt is answered otherwise than all of them together: by another model, or by none of them."""
    if _distance(sums, named.kind) > max(STRAY_NATS, STRAY * typical):
        return True
    for other in others:
        lead, gap = _lead(sums, named, other)
        if gap >= max(LEAST_GAP, DECISIVE * typical) ** 2 and lead < DISSENT * gap:
            return True
    return False


def _distance(sums: Sums, kind: str) -> float:
    return root_mean(getattr(sums, kind), getattr(sums, f"{kind}_weight"))


def _lead(sums: Sums, named: _Model, other: _Model) -> tuple[float, float]:
    """By how much the answers are nearer to the named model, and the whole of it: the square of the gap."""
    left, right = sorted((named.kind, other.kind))
    lead: float = getattr(sums, f"{left}_{right}")
    gap: float = getattr(sums, f"{left}_{right}_gap")
    return (lead if named.kind == left else -lead), gap


def _by_text(fingerprint: AdapterFingerprint, answers: Sequence[PromptAnswer]) -> Identity:
    """The weaker test: how many replies are word for word those of each recorded model."""
    pairs = list(zip(fingerprint.prompts, answers, strict=True))
    same = {f"cycle {fingerprint.cycle}": sum(answer.text == one.candidate.text for one, answer in pairs)}
    if fingerprint.parent is not None:
        as_parent = sum(one.parent is not None and answer.text == one.parent.text for one, answer in pairs)
        same[f"cycle {fingerprint.parent}"] = as_parent
    same["the base"] = sum(answer.text == one.base.text for one, answer in pairs)
    counts = ", ".join(f"with {name} in {count}" for name, count in same.items())
    text = (
        f"by text alone, which is the weaker test: the first words of {len(pairs)} replies agree {counts}; this is a"
        " hint and no proof"
    )
    return Identity(kind="no_logprobs", reason=text)
