"""Which adapter an endpoint runs, by its answers: each kind of answer, on made-up models."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from sleepd.policy import answer_distance
from sleepd.policy.answer_distance import answers_apart, sums_of, total
from sleepd.policy.identification import TOKENS_APART, as_near_as_before, identify
from sleepd.protocol.deployment.adapter_fingerprint import AdapterFingerprint, Identity, PromptAnswer
from tests.fingerprints import PROMPTS, Model, answer_of, answers_of, base_model, changed, fingerprint_of, moved
from tests.kept import kept

BASE = base_model()
PARENT = moved(BASE, 1, 1.0)
CANDIDATE = moved(PARENT, 2, 0.8)
FOREIGN = moved(BASE, 3, 1.0)
YOUNGER = moved(CANDIDATE, 4, 0.3)
OWN = fingerprint_of(BASE, CANDIDATE, PARENT)

CASES = {
    "candidate": (CANDIDATE, "candidate", 7),
    "parent": (PARENT, "parent", 6),
    "base": (BASE, "base", None),
    "foreign": (FOREIGN, "neither", None),
    "stacked": (moved(CANDIDATE, 3, 1.0), "neither", None),
    "twice": (moved(moved(CANDIDATE, 1, 1.0), 2, 0.8), "neither", None),
}


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.35])
@pytest.mark.parametrize("name", CASES)
def test_endpoint_is_identified(name: str, noise: float) -> None:
    """The model that answers is named with its cycle, through the noise of a quantization, and no other is."""
    model, kind, cycle = CASES[name]
    found = identify([OWN], [answers_of(model, noise=noise)])
    assert (found.kind, found.cycle) == (kind, cycle)
    assert found.is_named == (kind != "neither")
    assert bool(found.reason) == (kind == "neither")


def test_engine_without_numbers_is_identified() -> None:
    """Where the engine does not number its tokens, their texts are compared."""
    found = identify([OWN], [answers_of(CANDIDATE, noise=0.1, has_numbers=False)])
    assert (found.kind, found.cycle) == ("candidate", 7)
    assert found.distance < 0.2 < found.next_nearest


def test_coarse_engine_names_nothing() -> None:
    """An engine whose own difference is as large as the way between the models is too coarse to tell."""
    near = fingerprint_of(BASE, moved(BASE, 5, 0.2))
    assert identify([near], [answers_of(moved(BASE, 5, 0.2), noise=0.3)]).kind == "too_coarse"


def test_models_that_answer_alike_are_not_told_apart() -> None:
    """A candidate that answers as the base does cannot be recognised, and the reason says so."""
    alike = fingerprint_of(BASE, moved(BASE, 5, 0.01))
    found = identify([alike], [answers_of(BASE)])
    assert (found.kind, found.dial) == ("too_coarse", None)
    assert "alike" in found.reason


def test_cycle_that_answers_like_the_base_is_told() -> None:
    """Where the base is named and a cycle answers like it, both are said; expected, that cycle is too coarse."""
    alike = fingerprint_of(BASE, moved(BASE, 5, 0.01), cycle=8)
    served = answers_of(moved(BASE, 5, 0.01), noise=0.1)
    found = identify([OWN, alike], [served] * 2)
    assert (found.kind, "cycle 8 answers like it" in found.reason) == ("base", True)
    assert identify([alike, OWN], [served] * 2).kind == "too_coarse"
    assert identify([OWN, alike], [answers_of(CANDIDATE)] * 2).reason == ""


def test_dial_shows_how_much_is_on() -> None:
    """The dial is 0 for the base, 1 for the candidate, and between them for a part of it."""
    strong = fingerprint_of(BASE, moved(BASE, 1, 1.0))
    found = [identify([strong], [answers_of(moved(BASE, 1, 1.0, share))]) for share in (0.0, 0.5, 1.0)]
    assert [one.dial for one in found] == pytest.approx([0.0, 0.5, 1.0], abs=0.05)
    assert [one.kind for one in found] == ["base", "neither", "candidate"]


def test_younger_generation_is_not_taken_for_the_older() -> None:
    """The older fingerprint alone takes a near younger one for its own; the younger one's fingerprint corrects it."""
    younger = fingerprint_of(BASE, YOUNGER, CANDIDATE, cycle=8, parent_cycle=7)
    served = answers_of(YOUNGER, noise=0.1)
    assert identify([OWN], [served]).kind == "candidate"
    found = identify([OWN, younger], [served, served])
    assert (found.kind, found.cycle) == ("other_cycle", 8)
    assert identify([OWN, younger], [answers_of(CANDIDATE)] * 2).kind == "candidate"


def test_generations_that_are_too_near_are_not_named() -> None:
    """Where the younger fingerprint cannot tell the two apart on this engine, neither is claimed."""
    younger = fingerprint_of(BASE, moved(CANDIDATE, 4, 0.1), CANDIDATE, cycle=8, parent_cycle=7)
    found = identify([OWN, younger], [answers_of(CANDIDATE, noise=0.3)] * 2)
    assert (found.kind, found.cycle) == ("too_coarse", None)
    assert "cycle 8" in found.reason


def test_older_fingerprint_does_not_overrule() -> None:
    """The parent's own fingerprint does not know the candidate; what it takes it for does not count."""
    older = fingerprint_of(BASE, PARENT, cycle=6)
    near = fingerprint_of(BASE, YOUNGER, CANDIDATE, cycle=8, parent_cycle=7)
    assert identify([near, OWN], [answers_of(YOUNGER)] * 2).cycle == 8
    assert identify([OWN, older], [answers_of(CANDIDATE)] * 2).cycle == 7


def test_two_that_know_nothing_of_each_other_prove_nothing() -> None:
    """Where two fingerprints name two adapters, and neither knows the other's, none is claimed."""
    alone = fingerprint_of(BASE, CANDIDATE, cycle=7)
    near = fingerprint_of(BASE, YOUNGER, cycle=8)
    found = identify([alone, near], [answers_of(CANDIDATE, noise=0.3)] * 2)
    assert (found.kind, found.cycle) == ("neither", None)
    assert found.reason == kept("identified-twice", found.reason)
    for order in ([alone, near], [near, alone]):
        assert identify(order, [answers_of(CANDIDATE, noise=0.1)] * 2).cycle == 7


def test_other_fingerprint_does_not_decide_alone() -> None:
    """Where the expected fingerprint is too coarse, its parent's one, which does not know it, names nothing."""
    older = fingerprint_of(BASE, PARENT, cycle=6)
    expected = fingerprint_of(BASE, moved(PARENT, 2, 0.3), PARENT)
    served = answers_of(moved(PARENT, 2, 0.3), noise=0.4)
    assert identify([older], [served]).cycle == 6
    assert identify([expected, older], [served] * 2).kind == "too_coarse"


def test_distant_answers_are_nobodys() -> None:
    """An adapter that lies in the direction of the candidate, but far from it, is not named however far the base is."""
    strong = fingerprint_of(BASE, moved(BASE, 1, 2.0))
    found = identify([strong], [answers_of(moved(BASE, 1, 2.0), noise=0.9)])
    assert found.distance < 0.6 * found.next_nearest
    assert found.kind == "neither"


def test_other_cycle_is_found() -> None:
    """An adapter that only a later fingerprint knows is named by its cycle."""
    other = fingerprint_of(BASE, FOREIGN, cycle=3)
    found = identify([OWN, other], [answers_of(FOREIGN)] * 2)
    assert (found.kind, found.cycle) == ("other_cycle", 3)


def test_no_more_answers_are_taken_than_needed() -> None:
    """An engine without log-probabilities is not asked the prompts of a second fingerprint."""

    def asked() -> Iterator[list[PromptAnswer]]:
        yield [PromptAnswer(text="w1")] * PROMPTS
        raise AssertionError("asked again")

    assert identify([OWN, OWN], asked()).kind == "no_logprobs"


def test_text_alone_is_named_as_the_weaker_test() -> None:
    """Without log-probabilities the replies that are word for word the same are counted, and proved is nothing."""
    said = [PromptAnswer(text=one.candidate.text) for one in OWN.prompts]
    found = identify([OWN], [said])
    assert (found.kind, found.is_named, found.distance) == ("no_logprobs", False, None)
    assert found.reason == kept("identified-by-text", found.reason)


@pytest.mark.parametrize(("prompts", "kind"), [(4, "candidate"), (5, "other_template"), (16, "other_template")])
def test_other_template_is_seen_by_its_tokens(prompts: int, kind: str) -> None:
    """Where more than a quarter of the prompts have another number of tokens, the engine's template is another one."""
    assert TOKENS_APART == 4 / PROMPTS
    found = identify([OWN], [changed(answers_of(CANDIDATE), prompts, prompt_tokens=99)])
    assert found.kind == kind
    assert (f"{prompts} of 16 prompts" in found.reason) == (kind == "other_template")


def test_engine_that_counts_no_tokens_is_identified() -> None:
    """Where the engine does not count the prompt's tokens, its answers alone decide."""
    assert identify([OWN], [changed(answers_of(BASE), 16, prompt_tokens=None)]).kind == "base"


def test_answers_that_stop_at_once_prove_nothing() -> None:
    """One answer with tokens among sixteen without any does not make a proof of the others."""
    found = identify([OWN], [changed(answers_of(FOREIGN), 15, steps=())])
    assert not found.is_named


def test_lists_without_a_common_token_are_far_apart() -> None:
    """Two lists of tokens that have none in common are as far apart as their probabilities demand."""
    left = answer_of([5.0, 4.0, 0.0])
    right = answer_of([0.0, 0.0, 0.0, 5.0, 4.0])
    cut = [type(one)(steps=(one.steps[0][:2],), text="") for one in (left, right)]
    assert answers_apart(*cut) == answers_apart(cut[1], cut[0])
    assert answers_apart(*cut) > 0.3


def test_later_tokens_count_behind_the_same_ones_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token alone is compared; with more of them, none that follows where the two replies differ."""
    first, other = answer_of([3.0, 1.0]).steps[0], answer_of([1.0, 3.0]).steps[0]
    same = type(answer_of([0.0]))(steps=(first, other), text="")
    recorded = type(same)(steps=(first, first), text="")
    parted = type(same)(steps=(other, first), text="")
    assert answers_apart(recorded, same) == 0
    monkeypatch.setattr(answer_distance, "COMPARED_STEPS", 2)
    assert answers_apart(recorded, same) > 0
    assert answers_apart(recorded, parted) == answers_apart(type(same)(steps=(first,), text=""), parted)


def test_sums_of_no_prompt_mean_nothing() -> None:
    """Without a single prompt there is no dial, and no distance is small."""
    assert total([]).dial is None
    assert total([sums_of(OWN.prompts[0], PromptAnswer(text=""))]).candidate_weight == 0


def test_identity_says_its_figures() -> None:
    """What is named is shown with both distances; what is not is said in words."""
    named = Identity(kind="candidate", cycle=7, distance=0.08, next_nearest=0.58)
    assert named.text == "cycle 7 (0.08; next nearest 0.58)"
    assert Identity(kind="base", distance=0.08, next_nearest=0.58).text.startswith("the base model (")
    others = "\n".join(Identity(kind=kind).text for kind in ("neither", "too_coarse", "no_logprobs", "other_template"))
    assert others == kept("identities", others)


def test_nothing_to_compare_with_is_said() -> None:
    """Without a fingerprint nothing is named, and the reason says why."""
    found = identify([], [])
    assert (found.kind, found.cycle, "no fingerprint" in found.reason) == ("neither", None, True)


@pytest.mark.parametrize("old", [1, 2, 4])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_few_answers_of_another_model_are_seen(old: int, noise: float) -> None:
    """One answer of sixteen that the parent gives keeps a candidate from being named: one server of several is old."""
    right, wrong = answers_of(CANDIDATE, noise=noise), answers_of(PARENT, noise=noise)
    assert identify([OWN], [right]).kind == "candidate"
    found = identify([OWN], [[*wrong[:old], *right[old:]]])
    assert not found.is_named
    assert old == 4 or "several servers" in found.reason


@pytest.mark.parametrize("share", [0.8, 1.2])
def test_adapter_of_another_strength_is_not_whole(share: float) -> None:
    """On a fine base four fifths of an adapter, and six fifths, are not the whole one."""
    strong = fingerprint_of(BASE, moved(BASE, 1, 1.0))
    found = identify([strong], [answers_of(moved(BASE, 1, 1.0, share), noise=0.02)])
    assert (found.kind, "part of one" in found.reason) == ("neither", True)


def test_repeated_token_is_one() -> None:
    """Twenty times the same token are not the log-probabilities of twenty."""
    (one, *_), *_ = answers_of(CANDIDATE)[0].steps
    nameless = type(one)(id=-1, text="a", logprob=-1.0)
    numbered, named = (PromptAnswer(text="", steps=((each,) * 20,)) for each in (one, nameless))
    assert (numbered.has_chances, named.has_chances) == (False, False)
    assert answers_of(CANDIDATE, has_numbers=False)[0].has_chances


@pytest.mark.parametrize(("answered", "kind"), [(7, "no_logprobs"), (8, "candidate")])
def test_few_answers_prove_nothing(answered: int, kind: str) -> None:
    """Where less than half of the answers have log-probabilities, those prove nothing."""
    assert identify([OWN], [changed(answers_of(CANDIDATE), PROMPTS - answered, steps=())]).kind == kind


def long_answers(model: Model, *, noise: float) -> list[PromptAnswer]:
    """Three tokens each, with differences of their own."""
    noisy = [answers_of(moved(model, 480 + step, noise)) for step in range(3)]
    return [
        PromptAnswer(text="", steps=tuple(noisy[step][number].steps[0] for step in range(3)), prompt_tokens=10 + number)
        for number in range(PROMPTS)
    ]


def three_steps(fingerprint: AdapterFingerprint) -> AdapterFingerprint:
    """Each model says its token three times."""
    prompts = [
        msgspec.structs.replace(
            one,
            base=msgspec.structs.replace(one.base, steps=one.base.steps * 3),
            candidate=msgspec.structs.replace(one.candidate, steps=one.candidate.steps * 3),
        )
        for one in fingerprint.prompts
    ]
    return msgspec.structs.replace(fingerprint, prompts=tuple(prompts))


def test_more_tokens_tell_near_models() -> None:
    """Where the first token is too coarse, all recorded ones together tell; half way between two they tell nothing."""
    near = moved(BASE, 5, 0.3)
    known = three_steps(fingerprint_of(BASE, near))
    found = identify([known], [long_answers(near, noise=0.3)])
    assert found.distance > 0.6 * found.next_nearest
    assert (found.kind, found.cycle) == ("candidate", 7)
    half = identify([known], [long_answers(moved(BASE, 5, 0.3, 0.5), noise=0.3)])
    assert not half.is_named


def test_farther_than_before_is_not_named() -> None:
    """An engine that was near what it ran, and is far now, runs something else beside it; unless nothing was proved."""
    proved = identify([OWN], [answers_of(CANDIDATE, noise=0.35)])
    assert as_near_as_before(proved, None) is proved
    assert as_near_as_before(proved, proved.distance) is proved
    found = as_near_as_before(proved, 0.01)
    assert (found.kind, found.cycle, "sleepctl reload" in found.reason) == ("neither", None, True)
    unnamed = Identity(kind="neither", distance=2.0)
    assert as_near_as_before(unnamed, 0.01) is unnamed
