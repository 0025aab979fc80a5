"""Every figure of a verdict, a decision and a comparison: value, relation, limit and sentence, as they are kept.

A verdict is what an operator believes of an adapter; a figure in it that is wrong is believed, too. The kept files are
in ``tests/data/said/``; ``kept.py`` says how they are written anew.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from sleepd.config.limits import parse_limit
from sleepd.config.schema import Config, PromotionConfig
from sleepd.config.strategies import find_strategy
from sleepd.policy.judging.confidence import gain_interval
from sleepd.policy.judging.probation import MIN_EXPERIENCES, compare
from sleepd.policy.judging.promotion import Gates, judge
from sleepd.policy.selecting import holdout
from sleepd.policy.selecting.selection import Excluded, HashSet, Known, SelectionRule, select
from sleepd.policy.selecting.tally import count
from sleepd.policy.timing.triggers import Facts, Policy, decide
from sleepd.protocol.evidence import Drift, LaterLoss, LossPair, Metric, Probation, RecallQuestion
from sleepd.protocol.job import Job, Reply
from sleepd.protocol.verdict import Figure
from tests.agents import columns
from tests.kept import kept
from tests.test_promotion import ALIKE, KNOWN, answers, failing, pairs, report, told

LIMITS = ("right >= 0.8", "right >= parent", "wrong <= parent + 0.1", "slow <= 3", "bold >= parent - 0.25")
WITH_LIMITS = Gates(limits=tuple(map(parse_limit, LIMITS)), has_command=True, has_questions=True)
MEASURED = [
    Metric(name="right", parent=0.9, candidate=0.85),
    Metric(name="wrong", parent=None, candidate=0.2),
    Metric(name="bold", parent=0.5, candidate=0.25),
]


def with_tokens(tokens: int, before: float = 3.0) -> list[LossPair]:
    """Eight experiences, of which the last has so many tokens, and that loss before."""
    return [*pairs([0.5] * 7), LossPair(id="last", tokens=tokens, base=3.1, parent=before, candidate=2.5)]


LOOP = Reply(id="b", prompt="p", text="t t t", is_loop=True, repeated_share=0.75)
SYLLABLE = Reply(id="c", prompt="p", text="tttt", is_loop=True, repeated_share=0.0)
PLAIN = Reply(id="d", prompt="p", text="t", is_loop=False, repeated_share=0.0, parent_is_loop=True)
VERDICTS: dict[str, tuple[dict[str, Any], Gates]] = {
    "good": ({}, Gates()),
    "low sample": ({"gains": [0.5, 0.4, 0.6]}, Gates()),
    "seven": ({"gains": [0.5] * 7}, Gates()),
    "eight": ({"gains": [0.5] * 8}, Gates()),
    "eight, one without tokens": ({"holdout": with_tokens(0)}, Gates()),
    "eight, one with one token": ({"holdout": with_tokens(1)}, Gates()),
    "one experience": ({"gains": [0.5]}, Gates()),
    "one, anyhow": ({"gains": [0.5]}, Gates(inconclusive="probation")),
    "nothing held out": ({"gains": []}, Gates()),
    "infinite loss": ({"gains": [math.inf, 0.5]}, Gates()),
    "infinite loss before": ({"holdout": with_tokens(9, before=math.inf)}, Gates()),
    "no gain": ({"gains": [0.0] * 9}, Gates()),
    "too small a gain": ({"gains": [0.005] * 9}, Gates()),
    "noise above the least gain": ({"gains": [0.2, 0.3] * 5, "noise_floor": 0.4}, Gates()),
    "noise not measured": ({"noise_floor": None}, Gates()),
    "no checks": ({"checks": []}, Gates()),
    "reload differs": ({"checks": failing("reload_matches")}, Gates()),
    "two faults": ({"checks": failing("losses_finite"), "noise_floor": None}, Gates()),
    "no replies": ({"replies": []}, Gates()),
    "loops": ({"replies": [PLAIN, PLAIN, LOOP, SYLLABLE, LOOP]}, Gates()),
    "a stuck syllable": ({"replies": [SYLLABLE, PLAIN]}, Gates()),
    "drift not measured": ({"drift": None}, Gates()),
    "drifted": ({"drift": Drift(prompts=8, tokens=9, parent=0.02, candidate=0.0812)}, Gates()),
    "answers lost": ({"recall": answers(6, 1)}, Gates(has_questions=True)),
    "nothing asked": ({}, Gates(has_questions=True)),
    "learned": ({"gains": ALIKE, "newly_trained": KNOWN}, Gates()),
    "learned, low sample": ({"gains": ALIKE[:3], "newly_trained": KNOWN[:2]}, Gates()),
    "learned one reply": ({"gains": ALIKE, "newly_trained": KNOWN[:1]}, Gates()),
    "learned, first cycle": (
        {"gains": ALIKE, "newly_trained": KNOWN, "repeated": []},
        Gates(has_champion=False),
    ),
    "learned, and forgot": (
        {"gains": ALIKE, "newly_trained": KNOWN, "repeated": pairs([-0.4] * 9, before=0.1)},
        Gates(),
    ),
    "learned, and worse": ({"gains": [-0.4] * 9, "newly_trained": KNOWN}, Gates()),
    "learned, the champion gained nothing": (
        {"holdout": pairs(ALIKE, base=3.0), "newly_trained": KNOWN},
        Gates(),
    ),
    "learned, and drifted": (
        {
            "gains": ALIKE,
            "newly_trained": KNOWN,
            "drift": Drift(prompts=8, tokens=9, parent=0.02, candidate=0.0812),
        },
        Gates(),
    ),
    "limits": ({"metrics": MEASURED, "recall": answers(1, 1)}, WITH_LIMITS),
    "limits without a command": ({}, Gates(limits=WITH_LIMITS.limits)),
}


def shown(value: Any) -> str:
    """One line of JSON, its numbers with six digits behind the point: a processor may differ in the last ones."""

    def rounded(each: Any) -> Any:
        if isinstance(each, float) and math.isfinite(each):
            return round(each, 6)
        if isinstance(each, dict):
            return {key: rounded(one) for key, one in each.items()}
        return [rounded(one) for one in each] if isinstance(each, list) else each

    return f"{json.dumps(rounded(msgspec.to_builtins(value)))}\n"


def test_verdicts_are_as_kept() -> None:
    """Each verdict has the kept outcome, reason and figures; those that the good one has too are left out."""
    said, usual = "", list[Figure]()
    for name, (changes, gates) in VERDICTS.items():
        verdict = judge(report(**changes), gates)
        figures = [figure for figure in verdict.figures if figure not in usual]
        usual = usual or verdict.figures
        said += f"# {name}\n{shown(msgspec.structs.replace(verdict, figures=[]))}{''.join(map(shown, figures))}"
    assert said == kept("verdicts", said)


def facts(**changes: Any) -> Facts:
    due: dict[str, Any] = {"total": 9, "new": 3, "hours_since_last_sleep": 7.0, "trainable": 3, "held_out": 1}
    return Facts(**(due | changes))


DECISIONS: dict[str, dict[str, Any]] = {
    "due": {},
    "never slept": {"hours_since_last_sleep": None},
    "exactly enough": {"total": 5, "new": 2, "hours_since_last_sleep": 6.0},
    "nothing is enough": {"total": 3, "new": 0, "hours_since_last_sleep": 0.41},
    "resumed": {"suspended_cycle": 4},
    "paused": {"is_paused": True},
    "under way": {"running_cycle": 7},
    "cooling down": {"cooldown_seconds_left": 600.0, "unjudged_in_a_row": 1, "last_ending": "interrupted"},
    "cooling down for an hour": {"cooldown_seconds_left": 3600.0, "unjudged_in_a_row": 1, "suspended_cycle": 4},
    "cooling down for a moment": {"cooldown_seconds_left": 0.5, "unjudged_in_a_row": 1, "last_ending": "failed"},
    "nothing to train": {"trainable": 0},
    "quarantined": {"trainable": 0, "quarantined": 6},
    "unscreened": {"trainable": 0, "quarantined": 6, "unscreened": 2},
    "nothing held out": {"held_out": 0},
    "full disk": {"free_megabytes": 499},
    "just room enough": {"free_megabytes": 500},
    "other base": {"base_changed": "other weights"},
    "unreadable": {"buffer_problem": "permission denied"},
    "gpu in use": {"gpu_problem": "another daemon trains"},
}


def test_decisions_are_as_kept() -> None:
    """Each decision has the kept conditions and vetoes, with their figures; and so has a forced one."""
    decisions = {name: decide(facts(**changes), Policy()) for name, changes in DECISIONS.items()}
    decisions["forced"] = decide(facts(total=1, new=0), Policy(), force=True)
    said = "".join(f"# {name}\n{shown(decision)}" for name, decision in decisions.items())
    assert said == kept("decisions", said)


def later(*gains: float, predecessor: int | None = 1) -> Probation:
    losses = [LaterLoss(id=str(n), tokens=50, predecessor=3.0, champion=3.0 - gain) for n, gain in enumerate(gains)]
    return Probation(champion=2, predecessor=predecessor, losses=losses)


def test_comparisons_are_as_kept() -> None:
    """Each comparison has the kept outcome, interval and reason."""
    compared = {
        "nothing": later(),
        "one": later(0.5),
        "too few": later(*[0.5] * (MIN_EXPERIENCES - 1)),
        "enough": later(0.5, 0.4, 0.6, 0.5),
        "worse": later(-0.5, -0.4, -0.6, -0.5, predecessor=None),
        "not worse": later(*[0.01, -0.01] * 20),
        "undecided": later(0.5, -0.5, 0.4, -0.3),
        "exactly as good": later(0.0, 0.0, 0.0, 0.0),
        "one token": msgspec.structs.replace(later(), losses=[LaterLoss(id="a", tokens=1, predecessor=1, champion=2)]),
        "not worse by the margin": msgspec.structs.replace(later(-0.05, -0.06, -0.05, -0.04), margin=0.1),
        "worse by the margin": msgspec.structs.replace(later(-0.5, -0.4, -0.6, -0.5), margin=0.1),
        "worse by just the margin": msgspec.structs.replace(later(*[-0.125] * 4), margin=0.125),
        "no tokens": msgspec.structs.replace(
            later(0.5), losses=[LaterLoss(id="a", tokens=0, predecessor=1, champion=2)]
        ),
    }
    said = "".join(f"# {name}\n{shown(compare(measured, 0.95))}" for name, measured in compared.items())
    assert said == kept("comparisons", said)


def test_a_gain_must_exceed_its_limit() -> None:
    """A lower bound that is exactly the least gain promotes nobody outright; one that is above it does."""
    gains = [0.5, 0.4, 0.6, 0.5, 0.5, 0.45, 0.55, 0.5, 0.5]
    bound = gain_interval([(100, 3.0, 3.0 - gain) for gain in gains], 0.95).low
    assert bound is not None
    exactly, below = (judge(report(gains=gains), Gates(min_gain=least)) for least in (bound, bound * 0.999))
    assert [figure.is_open for figure in exactly.figures if figure.name == "holdout"] == [True]
    assert (exactly.outcome, below.outcome) == ("inconclusive", "promoted")


def test_margin_and_least_must_be_exceeded() -> None:
    """A bound that is exactly minus the margin, or exactly the least that is to be learned, promotes nobody."""
    taught = told([1.8, 1.7, 1.9] * 4)
    bound = gain_interval([(10, 2.1, one.candidate) for one in taught], 0.95).low
    found = report(gains=[-0.125] * 9, newly_trained=taught)
    for margin, least, outcome in (
        (0.126, 0.1, "promoted"),
        (0.125, 0.1, "rejected"),
        (0.126, bound, "rejected"),
        (0.126, bound * 0.999, "promoted"),
    ):
        assert judge(found, Gates(margin=margin, min_learned=least)).outcome == outcome


def test_gates_follow_the_job() -> None:
    """The operator's figures and questions are asked for only where the job has them measured."""

    def gates(**changes: Any) -> Gates:
        needed = {"cycle": 1, "base": "b", "models_directory": "m", "staging": "s", "system_prompt": ""}
        given = {"strategy": find_strategy("consolidate"), "device": "cpu", "threads": 1}
        return Gates.of(PromotionConfig(), Job(**needed, **given, **changes))

    assert gates() == Gates(has_champion=False)
    assert gates(parent="cycle_001").has_champion
    assert (gates().has_command, gates().has_questions) == (False, False)
    assert gates(evaluation_command=("true",)).has_command
    assert gates(questions=[RecallQuestion(question="Who?", expected=["me"])]).has_questions


def test_minimum_of_disk_is_configured() -> None:
    """The least free space comes from the configuration."""
    config = msgspec.structs.replace(Config(), state=msgspec.structs.replace(Config().state, min_free_megabytes=7))
    assert Policy.of(config).min_free_megabytes == 7


# --- what is held out ---

RANKS = [3718755705, 310855322, 843527200]


def test_ranks_never_change() -> None:
    """A text's split depends on these numbers: another one would train what was held out before."""
    secret = bytes(range(32))
    assert [holdout.rank(group) for group in (0, 1, 2**63, 2**64 - 1)] == [0, 2654435769, 2147483648, 1640531526]
    assert [holdout.keyed_rank(group, secret) for group in (0, 1, 2**64 - 1)] == RANKS
    assert [holdout.is_held_out_by_rank(rank) for rank in range(6)] == [True, False, False, False, False, True]


def in_training(secret: bytes, many: int) -> list[int]:
    """That many groups whose rank alone holds none of them out."""
    free = (group for group in range(10_000) if not holdout.is_held_out_by_rank(holdout.keyed_rank(group, secret)))
    return [next(free) for _ in range(many)]


@pytest.mark.parametrize(
    ("groups", "recorded", "held_out"),
    [
        ([0, 1, 2, 3], {}, 0),
        ([0, 1, 2, 3, 4], {}, 1),
        ([0, 0, 0, 0, 0], {}, 0),
        ([0, 0, 0, 0, 1], {1: False}, 1),
        ([0, 1, 2, 3, 4], {0: False, 1: False, 2: False, 3: False, 4: False}, 0),
        ([0, 1, 2, 3, 4], {3: True}, 1),
    ],
    ids=["four", "five", "copies", "one-free", "all-recorded", "one-recorded"],
)
def test_five_have_one_held_out(groups: list[int], recorded: dict[int, bool], held_out: int) -> None:
    """From five experiences on one is held out, the free group of the smallest rank, where there are two groups."""
    secret = b"s" * 32
    named = in_training(secret, 5)
    found = holdout.divide([named[each] for each in groups], {named[k]: v for k, v in recorded.items()}, secret)
    assert len(found) == held_out
    free = [named[each] for each in groups if each not in recorded]
    if found and True not in recorded.values():
        assert found == {min(free, key=lambda group: holdout.keyed_rank(group, secret))}


def test_excluded_experiences_are_counted() -> None:
    """What is in quarantine, what was not screened yet and what holds personal data are told apart."""
    known = Known(seen=HashSet(), learned=HashSet(), splits={5: True}, secret=b"s" * 32)
    excluded = Excluded(keys=HashSet({1, 2, 3}), unscreened=1, personal=4)
    figures = count(columns([1, 2, 3, 4, 5, 6]), known=known, min_salience=0.6, excluded=excluded)
    assert (figures.total, figures.eligible, figures.held_out) == (6, 3, 1)
    assert (figures.quarantined, figures.unscreened, figures.personal) == (2, 1, 4)


def test_measured_are_of_smallest_rank() -> None:
    """Of more held-out groups than are measured, those of the smallest ranks are, whatever their order in the file."""
    secret = b"s" * 32
    known = Known(seen=HashSet(), learned=HashSet(), splits=dict.fromkeys(range(1, 13), True), secret=secret)
    rule = SelectionRule(min_salience=0.6, max_experiences=9, max_holdout=5, replay_share=0.0, min_replayed=0, seed=0)
    chosen = select(columns(range(1, 13)), known=known, rule=rule)
    assert chosen.holdout == sorted(sorted(range(1, 13), key=lambda group: holdout.keyed_rank(group, secret))[:5])
