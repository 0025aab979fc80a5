"""Which adapter an endpoint runs: its answers held against those that the worker recorded. Pure.

The distance to a recorded model is the root mean square difference of log-probabilities over all tokens that either
list has, each weighted with its probability. The nearest model is named where it is much nearer than the next one. The
dial says how far the answers went from the base towards the candidate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from sleepd.protocol.adapter_fingerprint import (
    AdapterFingerprint,
    Identity,
    ModelAnswer,
    PromptAnswer,
    PromptReference,
    Step,
    TokenChance,
)

MOST_RATIO = 0.6
"""The nearest model's distance, divided by that of the next nearest, is at most this."""
DIAL_ROOM = 0.25
"""The dial may be so far from what the nearest model should show: 0 for the base, 1 for the candidate."""
TOKENS_APART = 0.25
"""Share of the prompts that may have another number of tokens at the endpoint; they are left out."""
LEAST_GAP = 0.05
"""Nats. Recorded models that are nearer to each other cannot be told apart by any engine."""


def identify(fingerprints: Sequence[AdapterFingerprint], answers: Sequence[Sequence[PromptAnswer]]) -> Identity:
    """What the endpoint runs, by the first fingerprint, and where that does not know it, by the following ones.

    Args:
        fingerprints: of the cycle that is expected first, then of others.
        answers: to the prompts of each of them, one for each prompt.
    """
    if not fingerprints:
        return Identity(kind="neither", reason="there is no fingerprint to compare with")
    first, *others = map(_identify_by, fingerprints, answers)
    if first.kind != "neither":
        return first
    for found in others:
        if found.kind in ("candidate", "parent") and found.cycle is not None:
            return msgspec.structs.replace(found, kind="other_cycle")
    return first


class _Model(NamedTuple):
    """One of the recorded models."""

    kind: str
    cycle: int | None
    distance: float


def _identify_by(fingerprint: AdapterFingerprint, answers: Sequence[PromptAnswer]) -> Identity:
    if not any(answer.steps for answer in answers):
        return _by_text(fingerprint, answers)
    pairs = list(zip(fingerprint.prompts, answers, strict=True))
    fitting = [pair for pair in pairs if pair[1].prompt_tokens in (None, pair[0].prompt_tokens)]
    if len(pairs) - len(fitting) > TOKENS_APART * len(pairs):
        text = f"{len(pairs) - len(fitting)} of {len(pairs)} prompts have another number of tokens there"
        return Identity(kind="other_template", reason=text)
    models = sorted(_models(fingerprint, fitting), key=lambda one: one.distance)
    nearest, following = models[0], models[1]
    turned = dial(fitting)
    measured = Identity(
        kind="neither", distance=nearest.distance, next_nearest=following.distance, dial=turned, cycle=nearest.cycle
    )
    expected = {"base": 0.0, "candidate": 1.0}.get(nearest.kind)
    is_near = nearest.distance <= MOST_RATIO * following.distance
    is_whole = expected is None or (turned is not None and abs(turned - expected) <= DIAL_ROOM)
    if turned is None:
        text = "base and candidate answer alike, so that no engine can be told from another by them"
        return msgspec.structs.replace(measured, kind="too_coarse", cycle=None, reason=text)
    if is_near and is_whole:
        return msgspec.structs.replace(measured, kind=nearest.kind)
    text = "its answers are those of no recorded model: another adapter, several of them, or part of one"
    return msgspec.structs.replace(measured, cycle=None, reason=text)


def _models(fingerprint: AdapterFingerprint, pairs: Sequence[tuple[PromptReference, PromptAnswer]]) -> Iterator[_Model]:
    yield _Model("base", None, distance([(one.base, answer) for one, answer in pairs]))
    yield _Model("candidate", fingerprint.cycle, distance([(one.candidate, answer) for one, answer in pairs]))
    known = [(one.parent, answer) for one, answer in pairs if one.parent is not None]
    if fingerprint.parent is not None and known:
        yield _Model("parent", fingerprint.parent, distance(known))


def _by_text(fingerprint: AdapterFingerprint, answers: Sequence[PromptAnswer]) -> Identity:
    """The weaker test: how many replies are word for word those of base and candidate."""
    pairs = list(zip(fingerprint.prompts, answers, strict=True))
    as_candidate = sum(answer.text == one.candidate.text for one, answer in pairs)
    as_base = sum(answer.text == one.base.text for one, answer in pairs)
    text = (
        f"the engine gives no log-probabilities; by text alone, {as_candidate} of {len(pairs)} replies are the"
        f" candidate's and {as_base} the base's, which proves neither"
    )
    return Identity(kind="no_logprobs", reason=text)


def distance(pairs: Sequence[tuple[ModelAnswer, PromptAnswer]]) -> float:
    """Root mean square difference between recorded answers and those of an endpoint, in nats."""
    squares = weights = 0.0
    for recorded, answer in pairs:
        for own, other in _comparable(recorded, answer):
            for weight, difference in _differences(own, other):
                squares += weight * difference**2
                weights += weight
    return math.sqrt(squares / weights) if weights else math.inf


def answers_apart(one: ModelAnswer, other: ModelAnswer) -> float:
    """The distance of two recorded models on one prompt, in nats."""
    return distance([(one, PromptAnswer(text=other.text, steps=other.steps))])


def dial(pairs: Sequence[tuple[PromptReference, PromptAnswer]]) -> float | None:
    """How far the first tokens' chances went from the base's towards the candidate's; None: these two are alike."""
    along = length = weights = 0.0
    for reference, answer in pairs:
        if not (answer.steps and reference.base.steps and reference.candidate.steps):
            continue
        base, candidate = _by_name(reference.base.steps[0]), _by_name(reference.candidate.steps[0])
        given = _by_name(answer.steps[0])
        for name in base.keys() & candidate.keys() & given.keys():
            weight = (math.exp(base[name]) + math.exp(candidate[name])) / 2
            gap = candidate[name] - base[name]
            along += weight * gap * (given[name] - base[name])
            length += weight * gap**2
            weights += weight
    return along / length if weights and math.sqrt(length / weights) >= LEAST_GAP else None


def _comparable(recorded: ModelAnswer, answer: PromptAnswer) -> Iterator[tuple[Step, Step]]:
    """The steps that stand behind the same tokens in both."""
    for own, other in zip(recorded.steps, answer.steps, strict=False):
        yield own, other
        if not (own and other and _name(own[0]) == _name(other[0])):
            return


def _differences(own: Step, other: Step) -> Iterator[tuple[float, float]]:
    """Weight and difference of each token. One that a list lacks is at most as likely there as the last of the list."""
    if not (own and other):
        return
    left, right = _by_name(own), _by_name(other)
    least_left, least_right = min(left.values()), min(right.values())
    for name in left.keys() | right.keys():
        a, b = left.get(name), right.get(name)
        if a is not None and b is not None:
            yield (math.exp(a) + math.exp(b)) / 2, a - b
        elif a is not None:
            yield math.exp(a) / 2, max(0.0, a - least_right)
        elif b is not None:
            yield math.exp(b) / 2, max(0.0, b - least_left)


def _by_name(step: Step) -> dict[str, float]:
    """Log-probability by text; where two tokens have one text, none of them."""
    found: dict[str, float] = {}
    twice = set()
    for one in step:
        twice |= {_name(one)} & found.keys()
        found[_name(one)] = one.logprob
    return {name: logprob for name, logprob in found.items() if name not in twice}


def _name(token: TokenChance) -> str:
    return token.text
