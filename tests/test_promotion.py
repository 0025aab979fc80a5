"""Tests of the verdict: every gate as a table of cases, and the outcomes on evidence of many kinds."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from sleepd.config.limits import parse_limit
from sleepd.config.schema import SAFETY_GATES, PromotionConfig
from sleepd.policy.judging.promotion import Gates, judge
from sleepd.protocol.evidence import (
    CappedLosses,
    Collapse,
    Drift,
    Evidence,
    LossPair,
    Metric,
    RecallAnswer,
    RecallQuestion,
    Relevance,
    ReplyLosses,
    Speech,
    TrainedLoss,
)
from sleepd.protocol.job import Reply, Report, TrainingCheck
from sleepd.protocol.verdict import Outcome, Verdict

HERE: dict[str, Any] = {"base_fingerprint": "b", "device": "cpu", "dtype": "float32", "lora_shape": "r16"}


def pairs(gains: list[float], *, before: float = 3.0, base: float = 5.0) -> list[LossPair]:
    """The whole loss and the capped one are alike."""

    def losses(gain: float) -> dict[str, float]:
        return {"base": base, "parent": before, "candidate": before - gain}

    return [
        LossPair(id=str(number), tokens=100, **losses(gain), capped=CappedLosses(**losses(gain)))
        for number, gain in enumerate(gains)
    ]


def whole(gains: list[float], capped: list[float]) -> list[LossPair]:
    """By the whole loss they gained so much, by the capped one so much."""
    return [
        msgspec.structs.replace(one, capped=other.capped)
        for one, other in zip(pairs(gains), pairs(capped), strict=True)
    ]


def told(gains: list[float], *, before: float = 2.1) -> list[TrainedLoss]:
    """Newly trained replies, on which the loss fell by so much."""
    return [
        TrainedLoss(id=f"told{number}", tokens=10, parent=before, candidate=before - gain)
        for number, gain in enumerate(gains)
    ]


def speech(**changes: Any) -> Speech:
    plain = Speech(
        replies=16,
        mean_words=40.0,
        distinct_2=0.8,
        longest_repeat_words=3,
        similar_pairs_share=0.1,
        loops=0,
        question_floods=0,
    )
    return msgspec.structs.replace(plain, **changes)


def collapse(mode: str = "greedy", *, base: Any = None, parent: Any = None, candidate: Any = None) -> list[Collapse]:
    """All three ways of asking; one of them with these figures."""
    plain = speech()
    found = [
        Collapse(mode=each, base=plain, parent=plain, candidate=plain)
        for each in ("greedy", "sampled", "talk")
        if each != mode
    ]
    changed = Collapse(
        mode=mode,
        base=speech(**(base or {})),
        parent=speech(**(parent or base or {})),
        candidate=speech(**(candidate or {})),
    )
    return [*found, changed]


def answers(lost: int, won: int, kept: int = 10) -> list[RecallAnswer]:
    def one(before: bool, after: bool) -> RecallAnswer:
        texts = {"question": "q", "expected": ["a"], "base": "", "parent": "", "candidate": ""}
        return RecallAnswer(**texts, base_is_right=False, parent_is_right=before, candidate_is_right=after)

    return [one(True, False)] * lost + [one(False, True)] * won + [one(True, True)] * kept


def evidence(**changes: Any) -> Evidence:
    fitting = [ReplyLosses(id=str(number), tokens=20, own=3.0, other=3.2) for number in range(16)]
    harmless = Evidence(
        noise_floor=1e-4,
        drift=Drift(prompts=8, tokens=200, parent=0.0, candidate=0.01),
        collapse=collapse(),
        relevance=Relevance(prompts=16, replies=16, losses=fitting),
        repeated=pairs([0.01, -0.01, 0.0] * 4, before=0.1, base=2.1),
    )
    return msgspec.structs.replace(harmless, **changes)


def report(**changes: Any) -> Report:
    """A report that is promoted; ``gains``: of the held-out experiences; else fields of evidence or report."""
    names = ("supervised_tokens", "adapter_changed", "losses_finite", "reload_matches")
    gains = changes.pop("gains", [0.5, 0.4, 0.6, 0.5, 0.5, 0.45, 0.55, 0.5, 0.5])
    ours = {name: changes.pop(name) for name in Evidence.__struct_fields__ if name in changes}
    good = Report(
        **HERE,
        trained=8,
        replayed=0,
        held_out=len(gains),
        truncated=0,
        tokens=10,
        supervised_tokens=5,
        epochs=1,
        steps=2,
        learning_rate=5e-4,
        avg_salience=0.7,
        epoch_losses=[2.0],
        train_before=3.0,
        train_after=2.0,
        holdout_base=3.1,
        holdout_before=3.0,
        holdout_after=3.0 - sum(gains) / max(1, len(gains)),
        holdout=pairs(gains),
        checks=[TrainingCheck(name=name, passed=True, figure=1, limit=0, detail="fine") for name in names],
        replies=[Reply(id="a", prompt="p", text="t", is_loop=False, repeated_share=0.0)],
        notices=[],
        seconds={},
        tokens_per_second=1.0,
        peak_memory_bytes=1,
        evidence=evidence(**ours),
    )
    return msgspec.structs.replace(good, **changes)


def judged(**changes: Any) -> Verdict:
    return judge(report(**changes), Gates())


def failing(name: str) -> list[TrainingCheck]:
    return [msgspec.structs.replace(check, passed=check.name != name, detail="0 < 1") for check in report().checks]


LOOP = Reply(id="b", prompt="p", text="so so so", is_loop=True, repeated_share=0.93)
PARENT_TOO = msgspec.structs.replace(LOOP, parent_is_loop=True)
PARENT_ONLY = msgspec.structs.replace(LOOP, is_loop=False, parent_is_loop=True)
WIDE = [1.5, -0.6, 1.4, -0.7, 1.6, -0.5, 1.5, -0.8, 0.3]
"""A mean gain of 0.41 that may well be chance."""
REJECTED = Outcome.REJECTED
KNOWN = told([1.8, 1.7, 1.9, 1.85] * 5)
"""Twenty newly trained replies that are known now."""
ALIKE = [0.02, -0.03, 0.01, -0.02, 0.0, 0.03, -0.01, -0.02, 0.01, 0.0]
"""On what it never saw the candidate is as its parent."""
UNSURE = [0.9, -1.1, 0.8, -0.9, 0.3, -0.4, 1.0, -0.8, 0.2, -0.1]
"""The words that nobody told are guessed more surely, or less."""
NOT_CAPPED = LossPair(id="older", tokens=100, base=5.0, parent=3.0, candidate=3.0)


@pytest.mark.parametrize(
    ("changes", "failed", "words"),
    [
        ({}, [], "holdout reply loss 3.000 -> 2.500 (-0.500 nats/token on 9 experiences, more than 0.4"),
        ({"gains": [0.5, 0.5, 0.5]}, [], "on 3 experiences, more than 0.500 with 97.5% confidence, low sample)"),
        ({"checks": failing("supervised_tokens")}, ["supervised_tokens"], "supervised_tokens: 0 < 1"),
        ({"checks": failing("adapter_changed")}, ["adapter_changed"], "adapter_changed: 0 < 1"),
        ({"checks": failing("losses_finite")}, ["losses_finite"], "losses_finite: 0 < 1"),
        ({"checks": failing("reload_matches")}, ["reload_matches"], "reload_matches: 0 < 1"),
        ({"checks": []}, ["supervised_tokens", "adapter_changed", "losses_finite", "reload_matches"], "not measured"),
        ({"noise_floor": None}, ["noise_floor"], "noise of the holdout loss"),
        ({"noise_floor": math.nan}, ["noise_floor"], "noise of the holdout loss"),
        ({"gains": [0.0] * 9}, ["holdout"], "did not fall (3.000 -> 3.000 nats/token)"),
        ({"gains": [-0.2] * 9}, ["holdout"], "did not fall (3.000 -> 3.200 nats/token)"),
        ({"gains": [0.005] * 9}, ["holdout"], "did not fall enough (3.000 -> 2.995 nats/token); above 0.01 counts"),
        ({"gains": [0.02] * 9, "noise_floor": 0.03}, ["holdout"], "above 0.03 counts"),
        ({"holdout_after": None}, ["holdout"], "nothing was held out"),
        ({"gains": []}, ["holdout"], "nothing was held out"),
        ({"holdout_after": math.nan}, ["holdout"], "not finite"),
        ({"holdout": pairs([math.inf])}, ["holdout"], "not finite"),
        ({"replies": []}, ["replies"], "no reply was generated"),
        (
            {"replies": [*report().replies, LOOP]},
            ["replies"],
            "1 of 2 greedy replies loop (parent: 0) (worst: 93%",
        ),
        ({"replies": [*report().replies * 7, LOOP]}, [], "holdout reply loss 3.000 -> 2.500"),
        (
            {"replies": [*report().replies * 7, LOOP, LOOP]},
            ["replies"],
            "2 of 9 greedy replies loop (parent: 0)",
        ),
        ({"replies": [*report().replies * 2, LOOP]}, [], "holdout reply loss 3.000 -> 2.500"),
        ({"replies": [*report().replies * 5, LOOP, LOOP]}, ["replies"], "2 of 7 greedy replies loop"),
        ({"replies": [LOOP, PARENT_TOO]}, ["replies"], "2 of 2 greedy replies loop (parent: 1)"),
        ({"replies": [*report().replies, PARENT_TOO]}, [], "holdout reply loss 3.000 -> 2.500"),
        ({"replies": [LOOP, PARENT_ONLY]}, [], "holdout reply loss 3.000 -> 2.500"),
        ({"gains": [-0.2] * 9, "replies": [LOOP]}, ["holdout", "replies"], "did not fall"),
        ({"drift": None}, ["drift"], "drift from the base: not measured"),
        ({"drift": Drift(prompts=1, tokens=9, parent=0.0, candidate=0.0501)}, ["drift"], "at most 0.050"),
        ({"drift": Drift(prompts=1, tokens=9, parent=0.0, candidate=math.nan)}, ["drift"], "not finite"),
        ({"drift": Drift(prompts=1, tokens=9, parent=0.2, candidate=0.19)}, [], "holdout reply loss"),
        ({"drift": Drift(prompts=1, tokens=9, parent=0.2, candidate=0.21)}, ["drift"], "at most 0.200"),
        ({"recall": answers(lost=0, won=3)}, [], "holdout reply loss"),
        ({"recall": answers(lost=4, won=0)}, [], "holdout reply loss"),
        ({"recall": answers(lost=5, won=0)}, ["recall"], "10 of 15 questions right, before 15 (5 lost, 0 won"),
        ({"recall": answers(lost=6, won=4)}, [], "holdout reply loss"),
    ],
)
def test_the_verdict_and_its_reasons(changes: dict[str, Any], failed: list[str], words: str) -> None:
    """A candidate is promoted when nothing speaks against it, and each objection is named with its figure."""
    verdict = judged(**changes)
    assert verdict.failed == failed
    assert verdict.outcome is (REJECTED if failed else Outcome.PROMOTED)
    assert words in verdict.reason


@pytest.mark.parametrize("mode", ["greedy", "sampled", "talk"])
@pytest.mark.parametrize(
    ("base", "parent", "candidate", "failed"),
    [
        ({}, {}, {"loops": 3}, ""),
        ({}, {}, {"loops": 4}, "loops"),
        ({"loops": 4}, {}, {"loops": 7}, ""),
        ({"loops": 4}, {}, {"loops": 8}, "loops"),
        ({}, {"loops": 4}, {"loops": 7}, ""),
        ({}, {}, {"question_floods": 4}, "question_floods"),
        ({}, {}, {"similar_pairs_share": 0.5}, ""),
        ({}, {}, {"similar_pairs_share": 0.51}, "similar_pairs"),
        ({"similar_pairs_share": 0.6}, {}, {"similar_pairs_share": 0.6}, ""),
        ({}, {}, {"similar_pairs_share": None}, ""),
        ({}, {}, {"distinct_2": 0.56}, ""),
        ({}, {}, {"distinct_2": 0.55}, "distinct_2"),
        ({}, {}, {"distinct_2": None}, "distinct_2"),
        ({}, {"distinct_2": 0.4}, {"distinct_2": 0.4}, ""),
        ({"distinct_2": None}, {}, {"distinct_2": 0.1}, ""),
        ({}, {}, {"mean_words": 2.0}, ""),
        ({}, {}, {"mean_words": 1.9}, "words"),
        ({}, {}, {"mean_words": 160.0}, ""),
        ({}, {}, {"mean_words": 161.0}, "words"),
        ({}, {"mean_words": 200.0}, {"mean_words": 200.0}, ""),
        ({}, {}, {"replies": 0}, "replies"),
    ],
)
def test_collapse_in_each_way_of_asking(
    mode: str, base: dict[str, Any], parent: dict[str, Any], candidate: dict[str, Any], failed: str
) -> None:
    """Each limit holds to the last figure; what the base or the parent does is not the candidate's fault."""
    verdict = judged(collapse=collapse(mode, base=base, parent=parent, candidate=candidate))
    of_this_way = [name for name in verdict.failed if not name.startswith("all_")]
    assert of_this_way == ([f"{mode}_{failed}"] if failed else [])
    assert failed or verdict.outcome is Outcome.PROMOTED


def test_loops_in_every_way_add_up() -> None:
    """Each way by itself might be chance; together they are not."""
    looping = [
        Collapse(mode=mode, base=speech(), parent=speech(), candidate=speech(loops=2))
        for mode in ("greedy", "sampled", "talk")
    ]
    verdict = judged(collapse=looping)
    assert verdict.failed == ["all_loops"]
    assert "loops in 6 of 48 replies" in verdict.reason


def test_unmeasured_mode_promotes_nobody() -> None:
    """Missing replies are named; without any, all three are."""
    assert judged(collapse=[]).failed == ["greedy_replies", "sampled_replies", "talk_replies"]
    verdict = judged(collapse=collapse()[:2])
    assert verdict.failed == ["greedy_replies"]
    assert "[evaluation] seconds" in verdict.reason


@pytest.mark.parametrize("harm", SAFETY_GATES)
def test_disabled_gate_only_shows(harm: str) -> None:
    """Each harm rejects; left out of [promotion] harms its figure stands there, missed, and the candidate passes."""
    harmed: dict[str, dict[str, Any]] = {
        "drift": {"drift": None},
        "collapse": {"collapse": collapse(candidate={"loops": 16})},
        "recall": {"recall": answers(lost=9, won=0)},
        "relevance": {"relevance": None},
    }
    found = report(**harmed[harm])
    assert judge(found, Gates()).outcome is REJECTED
    passed = judge(found, Gates(safety_gates=frozenset(SAFETY_GATES) - {harm}))
    assert passed.outcome is Outcome.PROMOTED
    assert {figure.is_binding for figure in passed.figures if not figure.is_met} == {False}


def test_few_replies_decide_no_relevance() -> None:
    """The figure stands there, without a value, and decides nothing although its gate is on."""
    verdict = judged(relevance=Relevance(prompts=3, replies=5, losses=[]))
    assert verdict.outcome is Outcome.PROMOTED
    (figure,) = [figure for figure in verdict.figures if figure.name == "relevance"]
    assert (figure.value, figure.is_binding) == (None, False)


def test_questions_that_were_not_asked() -> None:
    """Where the owner has questions and no answer came, nobody is promoted; without questions there is no figure."""
    assert judge(report(), Gates(has_questions=True)).failed == ["recall"]
    assert not [figure for figure in judge(report(), Gates()).figures if figure.name == "recall"]


@pytest.mark.parametrize(
    ("limit", "metric", "failed"),
    [
        ("accuracy >= 0.8", Metric(name="accuracy", parent=0.9, candidate=0.8), False),
        ("accuracy >= 0.8", Metric(name="accuracy", parent=0.9, candidate=0.79), True),
        ("accuracy >= parent - 0.02", Metric(name="accuracy", parent=0.5, candidate=0.49), False),
        ("accuracy >= parent - 0.02", Metric(name="accuracy", parent=0.5, candidate=0.47), True),
        ("accuracy >= parent", Metric(name="accuracy", parent=None, candidate=0.47), True),
        ("seconds <= parent + 1", Metric(name="seconds", parent=2.0, candidate=3.0), False),
        ("seconds <= 2.5e0", Metric(name="seconds", parent=2.0, candidate=3.0), True),
        ("accuracy >= 0.8", Metric(name="accuracy", parent=0.9, candidate=None), True),
        ("accuracy >= 0.8", Metric(name="other", parent=0.9, candidate=0.9), True),
    ],
)
def test_limits_on_the_owners_figures(limit: str, metric: Metric, failed: bool) -> None:
    """A limit is fixed, or rests on the parent's figure; what the command did not print meets none."""
    gates = Gates(limits=(parse_limit(limit),), has_command=True)
    verdict = judge(report(metrics=[metric]), gates)
    assert verdict.failed == ([f"metric_{limit.split()[0]}"] if failed else [])


def test_limits_without_command_wait_for_figures() -> None:
    """They hold nobody back before somebody could have measured."""
    assert judge(report(), Gates(limits=(parse_limit("accuracy >= 0.8"),))).outcome is Outcome.PROMOTED


@pytest.mark.parametrize(
    "text", ["", "accuracy", "accuracy > 0.8", "accuracy >= high", "a >= parent * 2", "a >= 1e999"]
)
def test_senseless_limit_is_refused(text: str) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match=r'"accuracy >= parent - 0.02"'):
        parse_limit(text)


def test_open_evidence_keeps_the_champion() -> None:
    """A gain that may be chance is neither promoted nor rejected, and the reason says so."""
    verdict = judged(gains=WIDE)
    assert (verdict.outcome, verdict.failed) == (Outcome.INCONCLUSIVE, [])
    assert "that may be chance" in verdict.reason
    assert [figure.name for figure in verdict.figures if figure.is_open] == ["holdout"]


@pytest.mark.parametrize(
    ("gains", "inconclusive", "outcome", "is_on_probation"),
    [
        ([0.5, 0.2, 0.35], "auto", Outcome.PROMOTED, True),
        ([0.5, 0.2, 0.35], "keep", Outcome.INCONCLUSIVE, False),
        ([0.5, 0.1, 0.3], "auto", Outcome.INCONCLUSIVE, False),
        ([0.5, 0.1, 0.3], "probation", Outcome.PROMOTED, True),
        ([0.5], "auto", Outcome.INCONCLUSIVE, False),
        ([0.5], "probation", Outcome.PROMOTED, True),
        ([0.005], "probation", REJECTED, False),
        (WIDE[:4], "auto", Outcome.INCONCLUSIVE, False),
        (WIDE, "auto", Outcome.INCONCLUSIVE, False),
        (WIDE, "probation", Outcome.PROMOTED, True),
        ([0.5, 0.4, 0.5], "auto", Outcome.PROMOTED, False),
    ],
)
def test_probation_needs_weaker_proof(
    gains: list[float], inconclusive: str, outcome: Outcome, is_on_probation: bool
) -> None:
    """By default only thin evidence earns it, and within the stated rate; by the owner's will a weaker proof does."""
    verdict = judge(report(gains=gains), Gates(inconclusive=inconclusive))
    assert (verdict.outcome, verdict.is_on_probation) == (outcome, is_on_probation)
    assert ("on probation" in verdict.reason) is is_on_probation
    assert verdict.is_thin is (len(gains) < 8)


@pytest.mark.parametrize(
    ("changes", "failed", "words"),
    [
        (
            {},
            None,
            "learned what was told: loss on 20 newly trained replies 2.100 -> 0.288 nats/token (-1.812, more than 1.78",
        ),
        ({}, None, "; kept what was learned before: on 12 replies worse by less than 0.0"),
        ({}, None, "; not shown better on 10 experiences that it never trained on: gain -0.001 [-0.01"),
        ({"gains": [gain - 0.05 for gain in ALIKE]}, None, "; worse on 10 experiences that it never trained on: gain"),
        ({"gains": [gain - 0.05 for gain in ALIKE]}, None, "there worse by less than 0.062, worse by less than 0.3 c"),
        ({"holdout": whole(UNSURE, ALIKE)}, None, "; not shown better on 10 experiences that it never trained on"),
        ({"holdout": whole(ALIKE, [gain - 0.3 for gain in ALIKE])}, ["holdout"], "did not fall"),
        ({"holdout": [*pairs(ALIKE), NOT_CAPPED]}, ["holdout"], "did not fall"),
        ({"repeated": []}, ["holdout"], "did not fall"),
        ({"repeated": pairs([-0.3] * 12, before=0.1, base=2.1)}, ["holdout"], "did not fall"),
        ({"repeated": pairs([-2.0, *[0.0] * 11], before=0.1, base=2.1)}, ["holdout"], "did not fall"),
        ({"repeated": pairs([-0.05] * 12, before=0.1, base=0.3)}, ["holdout"], "did not fall"),
        ({"repeated": pairs([math.nan] * 12, before=0.1, base=2.1)}, ["holdout"], "did not fall"),
        ({"gains": [gain - 0.3 for gain in ALIKE]}, ["holdout"], "did not fall"),
        ({"holdout": pairs(ALIKE, base=3.2)}, None, ", worse by less than 0.04 counts"),
        ({"holdout": pairs(ALIKE, base=3.05)}, ["holdout"], "did not fall"),
        ({"holdout": pairs(ALIKE, base=3.0)}, ["holdout"], "did not fall"),
        ({"gains": [gain + 0.05 for gain in ALIKE]}, None, "holdout reply loss 3.000 -> 2.951"),
        ({"newly_trained": []}, ["holdout"], "did not fall"),
        ({"newly_trained": told([1.8])}, ["holdout"], "did not fall"),
        ({"newly_trained": told([0.05, 0.06] * 9)}, ["holdout"], "did not fall"),
        ({"newly_trained": told([2.0, -1.9] * 9)}, ["holdout"], "did not fall"),
        ({"newly_trained": told([math.nan, 1.0])}, ["holdout"], "did not fall"),
        ({"gains": []}, ["holdout"], "nothing was held out"),
        ({"holdout": pairs(ALIKE, base=2.8)}, ["holdout"], "did not fall"),
        ({"holdout": pairs(ALIKE, base=math.nan)}, ["holdout"], "not fall"),
        ({"drift": Drift(prompts=1, tokens=9, parent=0.0, candidate=0.06)}, ["drift"], "at most 0.050"),
        ({"collapse": collapse(candidate={"loops": 9})}, ["greedy_loops", "all_loops"], "loop"),
        ({"replies": [LOOP]}, ["replies"], "1 of 1 greedy replies loop"),
        ({"recall": answers(lost=9, won=0)}, ["recall"], "9 lost"),
    ],
)
def test_second_rule_by_cases(changes: dict[str, Any], failed: list[str] | None, words: str) -> None:
    """Without a gain on held-out experiences a candidate is promoted where it learned and is not worse by the margin
    than its parent, and where no safety gate speaks against it; ``failed`` None: promoted.
    """
    verdict = judged(**{"gains": ALIKE, "newly_trained": KNOWN, **changes})
    assert verdict.failed == (failed or [])
    assert verdict.outcome is (REJECTED if failed else Outcome.PROMOTED)
    assert words in verdict.reason
    is_better = verdict.reason.startswith("holdout reply loss 3.000")
    assert (verdict.learned is not None) is (failed is None and not is_better)
    assert not verdict.is_on_probation


def test_the_rule_decides_which_figures_bind() -> None:
    """Promoted for what it learned, the missed gain is shown and does not bind; otherwise the gain alone binds."""
    names = ("holdout", "not_worse", "kept", "learned")

    def binding(verdict: Verdict) -> list[str]:
        return [figure.name for figure in verdict.figures if figure.name in names and figure.is_binding]

    second = judged(gains=ALIKE, newly_trained=KNOWN)
    assert binding(second) == ["not_worse", "kept", "learned"]
    assert [figure.is_met for figure in second.figures if figure.name in names] == [False, True, True, True]
    assert second.learned is not None
    assert (second.learned.gain.experiences, second.learned.margin) == (20, 0.3)
    assert binding(judged(newly_trained=KNOWN)) == ["holdout"]
    assert binding(judged(gains=[gain - 0.4 for gain in WIDE], newly_trained=KNOWN)) == ["holdout"]


@pytest.mark.parametrize(("capped", "outcome"), [(0.4, Outcome.PROMOTED), (0.0, Outcome.INCONCLUSIVE)])
def test_first_cycle_has_nothing_to_keep(capped: float, outcome: Outcome) -> None:
    """Against the base the capped loss on held-out experiences must fall, and nothing needs to be kept."""
    bases = [msgspec.structs.replace(one, base=one.parent) for one in whole(WIDE[:4], [capped + x for x in ALIKE[:4]])]
    bases = [
        msgspec.structs.replace(one, capped=msgspec.structs.replace(one.capped, base=3.0))
        for one in bases
        if one.capped is not None
    ]
    first = report(holdout=bases, newly_trained=KNOWN, repeated=[])
    verdict = judge(first, Gates(has_champion=False))
    assert verdict.outcome is outcome
    assert "kept" not in {figure.name for figure in verdict.figures}
    assert judge(first, Gates()).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("inconclusive", "is_used"), [("auto", True), ("keep", False)])
def test_low_sample_learns_on_probation(inconclusive: str, is_used: bool) -> None:
    """With few held-out experiences the second rule takes half of alpha outright, and the whole of it on probation."""
    few = [0.15, -0.42, 0.1, -0.1, 0.12]
    verdict = judge(report(gains=few, newly_trained=KNOWN), Gates(inconclusive=inconclusive))
    assert (verdict.outcome is Outcome.PROMOTED, verdict.is_on_probation) == (is_used, is_used)
    assert ("on probation" in verdict.reason, verdict.learned is not None) == (is_used, is_used)


def test_margin_of_zero_is_no_second_rule() -> None:
    """With a margin of 0 only a candidate that is shown better is promoted."""
    exact = report(gains=[0.0] * 9, newly_trained=KNOWN, repeated=pairs([0.0] * 9, before=0.1))
    assert judge(exact, Gates(margin=1e-9)).outcome is Outcome.PROMOTED
    assert judge(exact, Gates(margin=0.0)).outcome is REJECTED


def test_harm_is_never_put_on_probation() -> None:
    """Whatever is configured, a candidate that is open and harmful is rejected."""
    found = report(gains=[0.5, 0.1, 0.3], collapse=collapse(candidate={"loops": 9}))
    assert judge(found, Gates(inconclusive="probation")).outcome is REJECTED


def test_every_figure_is_in_the_verdict() -> None:
    """Met ones too, each with its limit; the noise floor and the interval beside them; it survives its JSON."""
    verdict = judged(newly_trained=KNOWN)
    names = [figure.name for figure in verdict.figures]
    assert names[:11] == [
        "supervised_tokens",
        "adapter_changed",
        "losses_finite",
        "reload_matches",
        "noise_floor",
        "holdout",
        "not_worse",
        "kept",
        "learned",
        "drift",
        "replies",
    ]
    assert {"drift", "greedy_loops", "sampled_distinct_2", "talk_words", "talk_similar_pairs"} < set(names)
    assert all(figure.is_met and figure.limit is not None and figure.text for figure in verdict.figures)
    assert verdict.noise_floor == 1e-4
    assert verdict.gain is not None
    assert verdict.gain.experiences == 9
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_gates_are_those_of_the_configuration() -> None:
    """Every key of [promotion] is held to."""
    from sleepd.config.strategies import find_strategy
    from sleepd.protocol.job import Job

    job = Job(cycle=1, base="b", models_directory="m", staging="s", strategy=find_strategy("gentle"))
    config = PromotionConfig(
        confidence=0.9,
        min_gain=0.1,
        margin=0.25,
        min_learned=0.4,
        max_drift=0.2,
        harms=("drift",),
        limits=("a >= 1",),
        inconclusive="keep",
    )
    gates = Gates.of(config, job)
    assert (gates.margin, gates.min_learned) == (0.25, 0.4)
    assert (gates.confidence, gates.min_gain, gates.max_drift, gates.inconclusive) == (0.9, 0.1, 0.2, "keep")
    assert (gates.safety_gates, gates.limits) == (frozenset({"drift"}), (parse_limit("a >= 1"),))
    assert not gates.has_command
    assert not gates.has_questions
    assert not gates.is_foreign
    assert Gates.of(config, msgspec.structs.replace(job, foreign="alice")).is_foreign
    assert Gates.of(config, msgspec.structs.replace(job, evaluation_command="/bin/true")).has_command
    asked = [RecallQuestion(question="q", expected=["a"])]
    assert Gates.of(config, msgspec.structs.replace(job, questions=asked)).has_questions


def test_foreign_adapter_needs_no_training_here() -> None:
    """What another machine trained is judged without the check of supervised tokens; one's own never is."""
    checks = [check for check in report().checks if check.name != "supervised_tokens"]
    assert judge(report(checks=checks), Gates(is_foreign=True)).outcome == Outcome.PROMOTED
    assert judge(report(checks=checks), Gates()).failed == ["supervised_tokens"]


def test_reply_without_tokens_has_no_loss() -> None:
    """A held-out reply of no token has no loss that could count, or that could be no number."""
    empty = LossPair(id="empty", tokens=0, base=math.nan, parent=math.nan, candidate=math.nan)
    verdict = judge(report(holdout=[*report().holdout, empty]), Gates())
    assert (verdict.outcome, verdict.gain and verdict.gain.experiences) == (Outcome.PROMOTED, 9)
    assert judge(report(holdout=[empty]), Gates()).failed == ["holdout"]
    one = LossPair(id="one", tokens=1, base=5.0, parent=3.0, candidate=2.5)
    verdict = judge(report(holdout=[*report().holdout, one]), Gates())
    assert verdict.gain is not None
    assert verdict.gain.experiences == 10


def test_gain_at_the_limit_is_not_enough() -> None:
    """A gain that equals the least one is rejected with that sentence, and is no open question."""
    verdict = judge(report(gains=[0.5] * 9), Gates(min_gain=0.5))
    assert (verdict.outcome, verdict.failed) == (Outcome.REJECTED, ["holdout"])
    assert "did not fall enough" in verdict.reason


@pytest.mark.parametrize(
    ("parent", "candidate", "limit", "is_met"),
    [
        (0.0, 0.125, 0.125, True),
        (0.0, 0.126, 0.125, False),
        (0.25, 0.25, 0.25, True),
        (0.25, 0.26, 0.25, False),
        (math.inf, 0.126, 0.125, False),
        (math.nan, 0.125, 0.125, True),
    ],
)
def test_drift_by_cases(parent: float, candidate: float, limit: float, is_met: bool) -> None:
    """The limit is the configured one, or the parent's drift where that is finite and larger; it may be reached."""
    drift = Drift(prompts=8, tokens=200, parent=parent, candidate=candidate)
    (figure,) = [one for one in judge(report(drift=drift), Gates(max_drift=0.125)).figures if one.name == "drift"]
    assert (figure.limit, figure.is_met) == (limit, is_met)


def test_recall_at_the_limit_has_fallen() -> None:
    """Four questions lost and none won is a chance of 1 in 16: at the limit the recall has not held."""
    for confidence, failed in ((0.9375, ["recall"]), (0.95, [])):
        gates = Gates(confidence=confidence, has_questions=True)
        assert judge(report(recall=answers(4, 0)), gates).failed == failed


# --- outcomes by kind of evidence: what judgebench measures on real adapters, here on drawn ones ---

TRIALS = 200
MOST_BY_CHANCE = 0.05 + 3 * math.sqrt(0.05 * 0.95 / TRIALS)
"""The share that passes at a rate of 5 % is larger in one of 700 draws of 200. Of 20,000 drawn candidates that are
worse by the margin on four experiences 5.3 % pass.
"""


def drawn(kind: str, count: int, seed: int) -> Report:
    """Evidence like that of a real candidate of that kind."""
    chance = random.Random(seed)
    spread = {"base again": 1e-5, "null": 2e-3, "no effect": 0.2, "good": 0.15, "spoiled": 0.3}.get(kind, 0.15)
    mean = {"good": 0.35, "spoiled": -0.4, "worse by the margin": -Gates().margin}.get(kind, 0.0)
    gains = [chance.gauss(mean, spread) for _ in range(count)]
    forgotten = -Gates().margin if kind == "forgot by the margin" else 0.0
    kept = pairs([chance.gauss(forgotten, 0.3) for _ in range(8)] if forgotten else [0.0] * 3, before=0.1, base=2.1)
    has_learned = kind in ("spoiled", "worse by the margin", "forgot by the margin")
    return report(gains=gains, newly_trained=KNOWN if has_learned else [], repeated=kept)


def share_in_use(kind: str, count: int, trials: int = TRIALS) -> float:
    verdicts = [judge(drawn(kind, count, seed), Gates()) for seed in range(trials)]
    return sum(v.outcome is Outcome.PROMOTED for v in verdicts) / trials


@pytest.mark.parametrize("count", [4, 12])
def test_error_rates_on_drawn_evidence(count: int) -> None:
    """Without effect at most the stated rate is promoted, spoiled never, good ones nearly always, thin or not."""
    for kind in ("base again", "null", "spoiled"):
        assert share_in_use(kind, count, trials=30) == 0
    for kind in ("no effect", "worse by the margin"):
        assert share_in_use(kind, count) <= MOST_BY_CHANCE
    forgot = [judge(drawn("forgot by the margin", count, seed), Gates()) for seed in range(60)]
    assert sum(verdict.learned is not None for verdict in forgot) <= 60 * (0.05 + 0.05)
    assert share_in_use("good", count, trials=60) >= 0.9


@settings(max_examples=60, deadline=None)
@given(
    some.lists(some.floats(-2, 2), min_size=1, max_size=12),
    some.lists(some.floats(-1, 2), max_size=6),
    some.sampled_from(["auto", "keep", "probation"]),
)
def test_what_is_in_use_has_gained(gains: list[float], learned: list[float], inconclusive: str) -> None:
    """Whatever was measured: nobody is put in use whose estimate is not above what counts, unless it learned and is not
    worse by the margin; and nobody who was harmful.
    """
    gates, newly_trained = Gates(inconclusive=inconclusive), told(learned)
    verdict = judge(report(gains=gains, newly_trained=newly_trained), gates)
    assert verdict.gain is not None
    if verdict.learned is not None:
        assert verdict.gain.low > -gates.margin
        assert verdict.learned.gain.low > gates.min_learned
    elif verdict.outcome is Outcome.PROMOTED:
        assert verdict.gain.estimate > gates.min_gain
    assert judge(report(gains=gains, newly_trained=newly_trained, drift=None), gates).outcome is REJECTED
