"""How far the answers of an endpoint are from recorded ones, in nats. Pure.

At each reply token both sides list the likeliest tokens. The difference of one token's log-probabilities counts with
the mean of its two probabilities. A token that one list lacks is at most as likely there as the last of that list, so
that lists without a common token are far apart, too. The sums of several prompts may be added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sleepd.protocol.deployment.adapter_fingerprint import ModelAnswer, PromptAnswer, PromptReference, Step

COMPARED_STEPS = 1
"""Reply tokens that are compared. An adapter moves the first one most, and the engine's rounding moves all alike."""


class Sums(NamedTuple):
    """Of one prompt or of several: squared differences to each recorded model with their weights, and the dial's."""

    base: float = 0.0
    base_weight: float = 0.0
    candidate: float = 0.0
    candidate_weight: float = 0.0
    parent: float = 0.0
    parent_weight: float = 0.0
    """0: the parent is the base."""
    along: float = 0.0
    """Of the way from base to candidate, what the answers went."""
    length: float = 0.0
    """Of that way."""
    length_weight: float = 0.0
    parent_along: float = 0.0
    """Of that way, what the recorded parent's answers went."""
    base_candidate: float = 0.0
    """Over all recorded steps: by how much the answers are nearer to the base than to the candidate, squared."""
    base_candidate_gap: float = 0.0
    """And what that is where the base answers; the opposite where the candidate does."""
    base_parent: float = 0.0
    base_parent_gap: float = 0.0
    candidate_parent: float = 0.0
    candidate_parent_gap: float = 0.0

    @property
    def parent_dial(self) -> float | None:
        """Where the dial stands when the parent answers."""
        return self.parent_along / self.length if self.length > 0 else None

    @property
    def dial(self) -> float | None:
        """How far the answers went from the base (0) towards the candidate (1); None: these two are alike."""
        return self.along / self.length if self.length > 0 else None

    @property
    def gap(self) -> float:
        """The distance from the base to the candidate, over first tokens."""
        return root_mean(self.length, self.length_weight)


def total(sums: Iterable[Sums]) -> Sums:
    """All of them together."""
    columns = list(zip(*sums, strict=True))
    return Sums(*map(math.fsum, columns)) if columns else Sums()


def root_mean(squares: float, weight: float) -> float:
    """The distance that these sums mean; infinite where nothing was compared."""
    return math.sqrt(squares / weight) if weight > 0 else math.inf


def sums_of(reference: PromptReference, answer: PromptAnswer) -> Sums:
    """Of one prompt."""
    parent = _squares(reference.parent, answer) if reference.parent else (0.0, 0.0)
    return Sums(
        *_squares(reference.base, answer),
        *_squares(reference.candidate, answer),
        *parent,
        *_dial(reference, answer),
        *_nearer(reference.base, reference.candidate, answer),
        *_nearer(reference.base, reference.parent, answer),
        *_nearer(reference.candidate, reference.parent, answer),
    )


def answers_apart(one: ModelAnswer, other: ModelAnswer) -> float:
    """The distance of two recorded models on one prompt."""
    return root_mean(*_squares(one, PromptAnswer(text=other.text, steps=other.steps)))


def _squares(recorded: ModelAnswer, answer: PromptAnswer) -> tuple[float, float]:
    """Over the steps that stand behind the same tokens in both."""
    squares = weights = 0.0
    for own, other in zip(recorded.steps[:COMPARED_STEPS], answer.steps, strict=False):
        left, right = _by_name(own, other), _by_name(other, own)
        for weight, difference in _differences(left, right):
            squares += weight * difference**2
            weights += weight
        if not (own and other) or next(iter(left)) != next(iter(right)):
            break
    return squares, weights


def _differences(left: dict[object, float], right: dict[object, float]) -> Iterator[tuple[float, float]]:
    if not (left and right):
        return
    least_left, least_right = min(left.values()), min(right.values())
    for name, a in left.items():
        b = right.get(name)
        if b is None:
            yield math.exp(a) / 2, max(0.0, a - least_right)
        else:
            yield (math.exp(a) + math.exp(b)) / 2, a - b
    for name, b in right.items():
        if name not in left:
            yield math.exp(b) / 2, max(0.0, b - least_left)


def _nearer(one: ModelAnswer, other: ModelAnswer | None, answer: PromptAnswer) -> tuple[float, float]:
    """By how much an answer is nearer to the one model, and how far these are from each other.

    Over the steps that stand behind the same tokens in all three: more tokens than the first, where it alone is too
    coarse.
    """
    nearer = gap = 0.0
    for left, right, given in zip(one.steps, other.steps if other else (), answer.steps, strict=False):
        if not (left and right and given):
            break
        nearer += _step_square(right, given) - _step_square(left, given)
        gap += _step_square(left, right)
        if len({_first(step, left, right, given) for step in (left, right, given)}) > 1:
            break
    return nearer, gap


def _step_square(one: Step, other: Step) -> float:
    return math.fsum(weight * apart**2 for weight, apart in _differences(_by_name(one, other), _by_name(other, one)))


def _first(step: Step, *all_steps: Step) -> object:
    """Its likeliest token, by the name that all sides know."""
    has_numbers = all(one.id >= 0 for each in all_steps for one in each)
    return step[0].id if has_numbers else step[0].text


def _dial(reference: PromptReference, answer: PromptAnswer) -> tuple[float, float, float, float]:
    """Over the tokens that all list first; later ones stand behind tokens of their own."""
    along = length = weights = parent_along = 0.0
    if not (answer.steps and reference.base.steps and reference.candidate.steps):
        return along, length, weights, parent_along
    first = answer.steps[0]
    base, candidate = (_by_name(one.steps[0], first) for one in (reference.base, reference.candidate))
    given = _by_name(first, reference.base.steps[0])
    parent = _by_name(reference.parent.steps[0], first) if reference.parent and reference.parent.steps else base
    for name in base.keys() & candidate.keys() & given.keys() & parent.keys():
        weight = (math.exp(base[name]) + math.exp(candidate[name])) / 2
        gap = candidate[name] - base[name]
        along += weight * gap * (given[name] - base[name])
        parent_along += weight * gap * (parent[name] - base[name])
        length += weight * gap**2
        weights += weight
    return along, length, weights, parent_along


def _by_name(step: Step, other: Step) -> dict[object, float]:
    """Log-probability by token: by its number where both sides tell it, else by its text.

    Of tokens with one text the likeliest is meant; the others are left out.
    """
    has_numbers = all(one.id >= 0 for one in (*step, *other))
    found: dict[object, float] = {}
    for one in step:
        found.setdefault(one.id if has_numbers else one.text, one.logprob)
    return found
