"""Tests of what keeps an experience from training: the findings, the rule, the shares of frequent prompts."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.experience import Experience, id_hash, parse, prompt_hash, said_under
from sleepd.policy.selecting.selection import sampling_shares
from sleepd.quarantine.near_duplicates import LIMIT, Neighbours, Screened, similarity, sketch
from sleepd.quarantine.rules import BARE_QUESTIONS, Cause, Findings, Isolation, KeyMap, Override
from sleepd.quarantine.served_times import NEVER
from tests.agents import columns
from tests.corpus import LABELS, excluded, precision_and_recall, screen, screened_corpus

WORDS = [f"{first}{second}" for first in ("ka", "lo", "mi", "nu", "re") for second in ("bet", "dan", "fol", "gis")]
AT = datetime(2026, 1, 10, tzinfo=UTC)


def experience(reply: str, prompt: str = "What happened?") -> Experience:
    return Experience(id="x", prompt=prompt, response=reply, salience=0.7)


def text(seed: int, length: int = 60) -> str:
    """Words by chance, so that two seeds have nothing in common."""
    return " ".join(random.Random(seed).choices(WORDS, k=length))


# --- the corpus ---


def test_corpus_goal_is_met() -> None:
    """Of 293 cases all loops and floods of questions are set aside, and less than 2 % of the good ones."""
    cases = screened_corpus()
    assert len(cases) >= 200
    for label in LABELS:
        precision, recall = precision_and_recall(cases, label)
        print(f"{label}: precision {precision:.3f}, recall {recall:.3f}")
        assert recall == 1.0, [case.name for case in cases if case.label == label and not case.is_barred]
    good = [case for case in cases if case.label == "good"]
    wrong = [case.name for case in good if case.is_barred]
    assert len(wrong) < 0.02 * len(good), wrong


def test_secret_is_named_not_shown() -> None:
    """The finding on a secret says its kind and where it stands; nothing of it is in what is kept."""
    value = "AKIA" + "Z7QH4LM2RTWXK3PB"
    (found,) = screen([{"id": "a", "prompt": "And my key?", "response": f"It is {value}.", "salience": 0.7}])
    assert (found.reason, found.detail) == ("secret", "AWS Access Key in the reply")
    assert found.signature == b""
    assert value not in repr(found)


def test_too_long_text_is_excluded() -> None:
    """Beyond 200,000 characters nothing is looked for, and nothing is trained."""
    (found,) = screen([{"id": "a", "prompt": "?", "response": "word " * 40_001, "salience": 0.7}])
    assert found.reason == "too_long"
    assert "200006 characters" in found.detail


# --- near-duplicates ---


def test_short_texts_are_compared_exactly() -> None:
    """Of up to 64 shingles the similarity is the share of common ones: here 26 of 32, since three changed."""
    words = text(1, 31).split()
    changed = [*words[:15], "other", *words[16:]]
    share = similarity(sketch(experience(" ".join(words))), sketch(experience(" ".join(changed))))
    shingles = [{tuple(each[i : i + 3]) for i in range(29)} for each in (words, changed)]
    assert share == pytest.approx(len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1]))
    assert share > LIMIT


@pytest.mark.parametrize("share", [0.95, 0.85])
def test_long_texts_are_estimated_well_enough(share: float) -> None:
    """Of texts of 600 words the estimate is within 0.15 of the share of the common ones, which is three deviations."""
    for seed in range(20):
        ours = [f"{word}{place}x" for place, word in enumerate(text(seed, 600).split())]
        kept = int(600 * share)
        theirs = [*ours[:kept], *text(seed + 1000, 600 - kept).split()]
        one, other = (sketch(experience(" ".join(each).translate(LETTERS))) for each in (ours, theirs))
        exact = (kept - 2) / (2 * 598 - (kept - 2))
        assert similarity(one, other) in (0.0, pytest.approx(exact, abs=0.15))


LETTERS = str.maketrans("0123456789", "abcdefghij")
"""Figures are part of every shingle; here they would hide what is measured."""


DAY = (
    "In the morning the ferry was late again and the gulls had settled on the bollards when the captain came ashore to "
    "buy bread and to ask whether the lamp at the pier had been mended"
)
"""Thirty-two words without a figure."""


@pytest.mark.parametrize(
    ("one", "other", "is_copy"),
    [
        ("The code of room 4 is 17.", "The code of room 4 is 18.", False),
        ("The code of room 4 is 17.", "The code of room 4 is 17.", True),
        (" ".join(DAY.split()[:18]) + " 7", " ".join(DAY.split()[:18]) + " 8", False),
        (" ".join(DAY.split()[:20]), " ".join(DAY.split()[:20]) + " 7", True),
        (" ".join(DAY.split()[:20]), " ".join([*DAY.split()[:10], "2", *DAY.split()[10:20]]), True),
        (DAY, f"{DAY} 2", True),
        (DAY, f"2026-11-27: {DAY}", True),
        (DAY, DAY.replace("ferry", "ferry2"), True),
        (f"{DAY} at 7", f"{DAY} at 8", False),
        (f"{DAY} at 7", f"{DAY} at 7 2", True),
        (f"{DAY} at 7", f"{DAY} at 71", False),
        (f"{DAY} at 7 and at 9", f"{DAY} at 8 and at 10", False),
        (DAY, f"{DAY} 2026-11-27 12:30", False),
        (f"{DAY} {DAY.upper()[::-1]}", f"{DAY} {DAY.upper()[::-1]} 2026-11-27 12:30", True),
        (" ".join(f"{word} {n}" for n, word in enumerate(DAY.split())), f"{DAY} 3", False),
        (
            " ".join(f"{word} {n}" for n, word in enumerate((DAY + DAY).split())),
            " ".join(f"{word} {n + (n == 9)}" for n, word in enumerate((DAY + DAY).split())),
            False,
        ),
    ],
)
def test_figures_of_short_and_long_replies(one: str, other: str, is_copy: bool) -> None:
    """Another figure says another thing; one figure more for every twenty words makes a long reply no other one."""
    signatures = [sketch(experience(reply)) for reply in (one, other)]
    assert (similarity(*signatures) >= LIMIT) is is_copy
    assert (similarity(*reversed(signatures)) >= LIMIT) is is_copy


def test_older_sketch_is_compared() -> None:
    """One without figures, stored before they stood by themselves, still finds a copy."""
    older = sketch(experience(DAY))[:-2]
    assert len(older) % 4 == 0
    assert similarity(older, sketch(experience(f"{DAY} 2"))) == 1.0


def test_short_reply_needs_same_prompt() -> None:
    """Few words may answer many prompts; a long reply does not, and a bare question answers none."""

    def between(reply: str) -> float:
        return similarity(sketch(experience(reply, "Is it open?")), sketch(experience(reply, "Is it far?")))

    assert between("I do not know that.") == 0.0
    assert between(text(4)) == 1.0
    assert between("Should I quit?") == 1.0


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=200), st.lists(st.sampled_from(WORDS), max_size=200))
def test_similarity_is_a_symmetric_share(one: list[str], other: list[str]) -> None:
    """From 0 to 1, symmetric, and 1 of anything with itself."""
    first, second = (sketch(experience(" ".join(each))) for each in (one, other))
    assert similarity(first, first) == 1.0
    assert 0 <= similarity(first, second) == similarity(second, first) <= 1


def test_the_earlier_one_is_the_original() -> None:
    """Later copies name the first one, also those that resemble each other more; what is not like it stands alone."""
    neighbours = Neighbours()
    original = text(5)
    neighbours.add(1, sketch(experience(original)))
    found = neighbours.find(2, sketch(experience(f"{original} indeed")))
    assert found is not None
    assert found[0] == 1
    assert neighbours.find(3, sketch(experience(text(6)))) is None
    assert neighbours.find(1, sketch(experience(original))) is None, "it is no copy of itself"


# --- under which adapter it was said ---


@pytest.mark.parametrize(
    ("metadata", "cycle"),
    [
        ({"adapter": "cycle_007"}, 7),
        ({"adapter": "/var/lib/sage-sleepd/cycle_012"}, 12),
        ({"adapter": "/var/lib/sage-sleepd/cycle_012/"}, 12),
        ({"adapter": 7}, 7),
        ({"sleep_cycle": 9}, 9),
        ({"adapter": "current", "sleep_cycle": 9}, 9),
        ({"adapter": None, "sleep_cycle": "9"}, None),
        ({"adapter": "bicycle_7"}, None),
        ({"adapter": "cycle_7/adapter_model.safetensors"}, None),
        ({"adapter": "cycle_0000000000000000007"}, None),
        ({"adapter": "cycle_٧"}, None),
        ({"adapter": True}, None),
        ({"adapter": 7.0}, None),
        ({"adapter": -7}, None),
        ({"adapter": 10**5000}, None),
        ({"adapter": "x" * 10**6 + "/cycle_7"}, None),
        ({"cycle": 7}, None),
        ("cycle_007", None),
        (None, None),
    ],
)
def test_the_adapter_in_the_metadata(metadata: Any, cycle: int | None) -> None:
    """The documented forms tell a cycle; whatever else an agent keeps there tells nothing and harms nothing."""
    assert said_under(metadata) == cycle
    record = {"prompt": "p", "response": "r", "salience": 0.5, "metadata": metadata}
    assert parse(record).said_under == cycle


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["adapter", "sleep_cycle"]), inner),
    max_leaves=6,
)


@given(Json)
def test_no_metadata_raises(metadata: Any) -> None:
    """Whatever JSON stands there, the answer is a cycle from 1 to 999,999,999, or none."""
    cycle = said_under(metadata)
    assert cycle is None or 0 <= cycle < 10**9


# --- the rule ---


class Ward:
    """Findings on experiences 1, 2, 3 …, whose groups are a hundred times their keys."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.decisions: dict[int, Override] = {}
        self.rolled_back: set[int] = set()
        self.saliences: dict[int, float] = {}
        self.served = NEVER

    def add(self, key: int, reason: Any = "", *, salience: float = 0.7, **more: Any) -> None:
        given = {"key": key, "group": key * 100, "id": f"e{key}", "said_under": None, **more}
        self.saliences[key] = salience
        self.findings.put(Screened(**given, reason=reason, detail=""))

    def decide(self, key: int, word: Any, *, group: int | None = None) -> None:
        self.decisions[key] = Override(id=f"e{key}", group=group or key * 100, kind=word, at=AT)

    def causes(self, *, learned: tuple[int, ...] = (), groups: dict[int, int] | None = None) -> dict[int, Cause]:
        keys = list(self.saliences)
        isolation = Isolation(self.findings, self.decisions, self.rolled_back, served=self.served)
        found = isolation.causes(
            columns(
                keys,
                groups=[(groups or {}).get(key, key * 100) for key in keys],
                saliences=list(self.saliences.values()),
            ),
            learned=learned,
            min_salience=0.6,
        )
        return dict(found)


def test_finding_excludes_until_release() -> None:
    """A loop is out; a release lets it in, for the text that was released and for no other."""
    ward = Ward()
    ward.add(1, "loop")
    ward.add(2)
    assert ward.causes() == {1: Cause("loop")}
    ward.decide(1, "released")
    assert ward.causes() == {}
    assert ward.causes(groups={1: 999}) == {1: Cause("unscreened")}, "its text is another one now"


def test_unscreened_is_not_trained() -> None:
    """An experience of which nothing is known, or whose text is not the one that was screened, waits."""
    ward = Ward()
    ward.add(1)
    ward.saliences[2] = 0.9
    assert ward.causes(groups={1: 5}) == {1: Cause("unscreened"), 2: Cause("unscreened")}


def test_drop_takes_its_copies() -> None:
    """Neither the experience, nor another with the same text, nor one that resembles it is trained."""
    ward = Ward()
    ward.add(1)
    ward.add(2, group=100)
    ward.add(3, "near_duplicate", original=1)
    ward.add(4)
    ward.decide(1, "dropped")
    assert set(ward.causes(groups={2: 100})) == {1, 2, 3}


def test_duplicate_waits_for_its_original() -> None:
    """Where the original left the buffer untrained or is below min_salience, the first copy takes its place."""
    ward = Ward()
    ward.add(1)
    ward.add(2, "near_duplicate", original=1)
    ward.add(3, "near_duplicate", original=1)
    assert set(ward.causes()) == {2, 3}
    ward.saliences[1] = 0.5
    assert set(ward.causes()) == {3}
    del ward.saliences[1]
    assert set(ward.causes()) == {3}
    assert set(ward.causes(learned=(1,))) == {2, 3}


def test_rollback_excludes_recorded_and_similar() -> None:
    """What names the rolled-back cycle is out, and its near-duplicates; a release stands, and going back lifts all."""
    ward = Ward()
    ward.add(1, said_under=7)
    ward.add(2, "near_duplicate", original=1)
    ward.add(3, said_under=7)
    ward.add(4, said_under=6)
    ward.add(5)
    ward.decide(3, "released")
    ward.rolled_back = {7}
    assert ward.causes() == {1: Cause("said_under", cycle=7), 2: Cause("near_duplicate", original=1, cycle=7)}
    del ward.saliences[1]
    assert set(ward.causes()) == {2}, "what resembles it is out, also when the original is gone"
    ward.add(1, said_under=7)
    ward.rolled_back = set()
    assert set(ward.causes()) == {2}, "a copy still waits while its original is there"


def test_many_single_questions_are_flood() -> None:
    """Eight bare questions among twenty replies are out; seven are not, and an agent that only asks may ask."""
    ward = Ward()
    for key in range(1, BARE_QUESTIONS):
        ward.add(key, "bare_question")
    for key in range(100, 120):
        ward.add(key)
    assert ward.causes() == {}
    ward.add(50, "bare_question")
    assert len(ward.causes()) == BARE_QUESTIONS
    for key in range(100, 120):
        del ward.saliences[key]
    assert ward.causes() == {}


Steps = st.lists(st.tuples(st.sampled_from(["put", "drop"]), st.integers(0, 20), st.integers(0, 2**64 - 1)))


@given(Steps)
def test_a_key_map_is_a_map(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is put in and dropped, the compact map answers as a dictionary does."""
    compact, plain = KeyMap(), dict[int, int]()
    for step, key, value in steps:
        if step == "put":
            compact.put(key, value)
            plain[key] = value
        else:
            compact.drop(key)
            plain.pop(key, None)
    assert len(compact) == len(plain)
    assert [compact.get(key) for key in range(21)] == [plain.get(key) for key in range(21)]


# --- frequent prompts ---


def expected_shares(prompts: list[int]) -> dict[int, float]:
    """Of each prompt its part of an epoch, on average."""
    shares = sampling_shares(prompts)
    total = sum(shares)
    parts = Counter[int]()
    for prompt, share in zip(prompts, shares, strict=True):
        parts[prompt] += share / total  # type: ignore[assignment]
    return dict(parts)


def test_frequent_prompt_fills_a_fifth() -> None:
    """Asked 150 times beside 50 others it fills 20 % of an epoch, and each of the others is in every epoch."""
    prompts = [0] * 150 + list(range(1, 51))
    assert expected_shares(prompts)[0] == pytest.approx(0.2)
    assert set(sampling_shares(prompts)[150:]) == {1.0}


def test_two_frequent_prompts_are_capped_together() -> None:
    """90 and 60 of 200: both fill exactly a fifth."""
    parts = expected_shares([0] * 90 + [1] * 60 + list(range(2, 52)))
    assert (parts[0], parts[1]) == pytest.approx((0.2, 0.2))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=300))
def test_no_prompt_exceeds_the_cap(prompts: list[int]) -> None:
    """Ten prompts or more: none fills more than a fifth; fewer: none more than twice its even part."""
    parts = expected_shares(prompts)
    assert max(parts.values()) <= max(0.2, 2 / len(parts)) + 1e-9
    assert all(0 < share <= 1 for share in sampling_shares(prompts))


def test_one_prompt_is_known_again() -> None:
    """Case, white space and Unicode forms make no other prompt of it."""
    assert prompt_hash("How are  you?") == prompt_hash("how ARE you?\n")
    assert prompt_hash("How are you?") != prompt_hash("Who are you?")


def test_split_screening_gives_same_result() -> None:
    """What was screened before is known by its signature alone, and finds the same."""
    from sleepd.quarantine.screening_process import Screener, screen_wanted
    from sleepd.text.secret_scan import SecretFinder
    from tests.corpus import learnables, records

    given_ = records()
    whole, secrets = screen(given_), SecretFinder()
    first, second = given_[:150], given_[150:]
    before = list(screen_wanted(learnables(first), [id_hash(one["id"]) for one in first], Screener(secrets, ())))
    earlier = [(one.key, one.signature) for one in before if one.signature]
    after = screen_wanted(learnables(second), [id_hash(one["id"]) for one in second], Screener(secrets, earlier))
    assert [*before, *after] == whole
    assert excluded(whole)
