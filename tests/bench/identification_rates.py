"""How often a fingerprint errs, from kept answers of an engine: its prompts are drawn again and again. Pure.

Drawn are as many prompts as the fingerprint has, with replacement. So the rates tell how much depends on the prompts
that were chosen. They do not tell how other adapters or engines differ from those that were asked.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from sleepd.policy import identification
from sleepd.policy.answer_distance import Sums, answers_apart, root_mean, sums_of, total
from sleepd.protocol.deployment.adapter_fingerprint import (
    AdapterFingerprint,
    Identity,
    ModelAnswer,
    PromptAnswer,
    PromptReference,
)


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answered while it ran something."""

    base: str
    """The quantization of the server's base."""
    on: dict[str, float]
    """Which adapters were on, and how much of each."""
    answers: dict[str, PromptAnswer]
    """By ``key_of``."""

    @property
    def alone(self) -> str | None:
        """The one adapter that is on as a whole, or ``base``; None: it is something else."""
        if not self.on:
            return "base"
        (name, scale), *others = self.on.items()
        return name if scale == 1.0 and not others else None

    def with_at_most(self, chances: int) -> Answered:
        """As of a server that gives no more log-probabilities for a token."""
        fewer = {
            key: msgspec.structs.replace(one, steps=tuple(step[:chances] for step in one.steps))
            for key, one in self.answers.items()
        }
        return msgspec.structs.replace(self, answers=fewer)

    @property
    def text(self) -> str:
        """What is on, in words."""
        return " + ".join(name if scale == 1 else f"{scale:g} x {name}" for name, scale in self.on.items()) or "base"


class Case(NamedTuple):
    """One fingerprint held against one server, with the drawn sums."""

    asked: str
    """The fingerprint's adapter."""
    served: Answered
    whole: Sums
    """Over all prompts, each once."""
    drawn: list[list[Sums]]


Adapters = Mapping[str, AdapterFingerprint]


def key_of(prompt: PromptReference) -> str:
    """A name for what the endpoint is asked."""
    return hashlib.sha256(msgspec.json.encode((prompt.messages, prompt.tools))).hexdigest()[:16]


def name_of(adapters: Adapters, cycle: int | None) -> str:
    """The adapter of that cycle; None: the base."""
    return "base" if cycle is None else next(name for name, one in adapters.items() if one.cycle == cycle)


def cases(adapters: Adapters, served: Sequence[Answered], draws: int, prompts: int) -> Iterator[Case]:
    """Every fingerprint with every server that answered all of its prompts, perhaps save for the long one.

    Args:
        adapters: their fingerprints.
        served: the answers.
        draws: of the prompts.
        prompts: how many trained prompts a fingerprint has, at most.
    """
    for one in served:
        for name, fingerprint in adapters.items():
            trained = [each for each in fingerprint.prompts if each.kind == "trained"][:prompts]
            asked = [*trained, *(each for each in fingerprint.prompts if each.kind != "trained")]
            asked = [each for each in asked if each.kind != "long" or key_of(each) in one.answers]
            if any(key_of(each) not in one.answers for each in asked):
                continue
            sums = [sums_of(each, one.answers[key_of(each)]) for each in asked]
            dice = random.Random(f"{one.base} {one.text} {name}")
            drawn = [dice.choices(sums, k=len(sums)) for _ in range(draws)]
            yield Case(name, one, total(sums), drawn)


def outcome(adapters: Adapters, case: Case, found: Identity) -> str:
    """``right``, ``alike``, a false name, or in words that nothing is named.

    ``alike``: the base is named where an adapter runs that answers like it, which the reason says.
    """
    if not found.is_named:
        return found.kind
    named = name_of(adapters, found.cycle)
    if named == case.served.alone:
        return "right"
    if named == "base" and found.reason and case.served.alone in adapters:
        return "alike"
    return {case.asked: "false this cycle", "base": "false base"}.get(named, "false other cycle")


def by_one(adapters: Adapters, every: Iterable[Case]) -> dict[str, Counter[str]]:
    """Of each fingerprint by itself: how its draws end, by what the server runs, seen from the fingerprint."""
    rows: dict[str, Counter[str]] = {}
    for case in every:
        row = rows.setdefault(relation(adapters, case), Counter())
        for sums in case.drawn:
            row[outcome(adapters, case, identification.by_sums(adapters[case.asked], sums))] += 1
    return rows


def by_all(
    adapters: Adapters, every: Iterable[Case], nearest: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Counter[str]]:
    """The same where all fingerprints that were asked decide together, that of the expected cycle first.

    Args:
        adapters: their fingerprints.
        every: the cases.
        nearest: of a base, the distance of the nearest proof before; a base that is missing was never proved.
    """
    rows: dict[str, Counter[str]] = {}
    of_server: dict[tuple[str, str], list[tuple[Case, list[Identity]]]] = {}
    for case in every:
        found = [identification.by_sums(adapters[case.asked], sums) for sums in case.drawn]
        of_server.setdefault((case.served.base, case.served.text), []).append((case, found))
    for beside in of_server.values():
        newest = sorted(beside, key=lambda one: -adapters[one[0].asked].cycle)
        for one in beside:
            order = [one, *(other for other in newest if other is not one)]
            fingerprints = [adapters[case.asked] for case, _ in order]
            row = rows.setdefault(relation(adapters, one[0]), Counter())
            for drawn in zip(*(found for _, found in order), strict=True):
                said = identification.agreed(drawn, fingerprints)
                said = identification.as_near_as_before(said, nearest.get(one[0].served.base))
                row[outcome(adapters, one[0], said)] += 1
    return rows


def nearest_before(adapters: Adapters, every: Iterable[Case]) -> dict[str, float]:
    """By the server's base: the middle one of the distances at which a model that ran alone was named by itself."""
    found: dict[str, list[float]] = {}
    for case in every:
        if case.served.alone in ("base", case.asked):
            found.setdefault(case.served.base, []).append(distances(adapters, case)[case.served.alone])
    return {base: sorted(apart)[len(apart) // 2] for base, apart in found.items()}


def relation(adapters: Adapters, case: Case) -> str:
    """What the server runs, seen from the fingerprint that is asked first."""
    own, served = adapters[case.asked], case.served.alone
    if served is None:
        return "four fifths of one" if 0.8 in case.served.on.values() else "half of one, or two at once"
    if served in ("base", case.asked):
        return "the base" if served == "base" else "its own adapter"
    other = adapters[served]
    if other.cycle == own.parent:
        return "its parent"
    return "a child that it does not know" if other.parent == own.cycle else "another generation"


def distances(adapters: Adapters, case: Case) -> dict[str, float]:
    """To each model that the fingerprint knows, by the model's name."""
    own, sums = adapters[case.asked], case.whole
    found = {"base": root_mean(sums.base, sums.base_weight)}
    if sums.parent_weight > 0:
        found[name_of(adapters, own.parent)] = root_mean(sums.parent, sums.parent_weight)
    return found | {case.asked: root_mean(sums.candidate, sums.candidate_weight)}


def same_texts(adapters: Adapters, served: Sequence[Answered]) -> Iterator[tuple[str, str, int, int]]:
    """The relation, which recorded model's, how many of its replies the server gave word for word, and of how many."""
    for case in cases(adapters, served, 0, 0):
        for kind in ("candidate", "base"):
            asked = [one for one in adapters[case.asked].prompts if key_of(one) in case.served.answers]
            hits = sum(getattr(one, kind).text == case.served.answers[key_of(one)].text for one in asked)
            yield relation(adapters, case), kind, hits, len(asked)


def other_generation(
    adapters: Adapters, served: Sequence[Answered], asked: int, draws: int
) -> Iterator[tuple[str, list[float]]]:
    """How far another generation's answers are from those that were kept, in the worst of a few prompts, drawn often.

    The long prompt is one of them, as in ``serving.proof``; the others are drawn among the trained ones without
    replacement.
    """
    for first in served:
        for second in served:
            if first.alone is None or second.alone is None or first is second or first.base != second.base:
                continue
            own = adapters.get(first.alone) or next(iter(adapters.values()))
            known = [one for one in own.prompts if {key_of(one)} <= first.answers.keys() & second.answers.keys()]
            apart = {key_of(one): kept_apart(first.answers[key_of(one)], second.answers[key_of(one)]) for one in known}
            long = [apart[key_of(one)] for one in known if one.kind == "long"]
            trained = [apart[key_of(one)] for one in known if one.kind == "trained"]
            if len(trained) < asked:
                continue
            dice = random.Random(f"{first.base} {first.text} {second.text}")
            worst = [max(long + dice.sample(trained, asked - len(long))) for _ in range(draws)]
            yield f"{first.base}: {first.text}, then {second.text}", worst


def kept_apart(one: PromptAnswer, other: PromptAnswer) -> float:
    """The distance of two answers of a server."""
    return answers_apart(ModelAnswer(steps=one.steps, text=""), ModelAnswer(steps=other.steps, text=""))
