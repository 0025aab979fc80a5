"""Tests of the verdict: every rule as a table of cases."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from sleepd.job import Check, Reply, Report
from sleepd.promotion import judge
from sleepd.verdict import Outcome


def report(**changes: Any) -> Report:
    """A report that is promoted."""
    names = ("supervised_tokens", "adapter_changed", "losses_finite", "reload_matches")
    good = Report(
        base_fingerprint="b",
        device="cpu",
        dtype="float32",
        trained=8,
        replayed=0,
        held_out=9,
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
        holdout_after=2.5,
        holdout=[],
        checks=[Check(name=name, passed=True, figure=1, limit=0, detail="fine") for name in names],  # type: ignore
        replies=[Reply(id="a", prompt="p", text="t", is_loop=False, repeated_share=0.0)],
        notices=[],
        seconds={},
        tokens_per_second=1.0,
        peak_memory_bytes=1,
        lora_shape="r16",
    )
    return msgspec.structs.replace(good, **changes)


def failing(name: str) -> list[Check]:
    return [msgspec.structs.replace(check, passed=check.name != name, detail="0 < 1") for check in report().checks]


LOOP = Reply(id="b", prompt="p", text="so so so", is_loop=True, repeated_share=0.93)
PARENT_TOO = msgspec.structs.replace(LOOP, parent_is_loop=True)
PARENT_ONLY = msgspec.structs.replace(LOOP, is_loop=False, parent_is_loop=True)


@pytest.mark.parametrize(
    ("changes", "failed", "words"),
    [
        ({}, [], "holdout reply loss 3.000 -> 2.500 (-0.500 nats/token on 9 experiences)"),
        ({"held_out": 3}, [], "on 3 experiences, thin evidence)"),
        ({"checks": failing("supervised_tokens")}, ["supervised_tokens"], "supervised_tokens: 0 < 1"),
        ({"checks": failing("adapter_changed")}, ["adapter_changed"], "adapter_changed: 0 < 1"),
        ({"checks": failing("losses_finite")}, ["losses_finite"], "losses_finite: 0 < 1"),
        ({"checks": failing("reload_matches")}, ["reload_matches"], "reload_matches: 0 < 1"),
        ({"checks": []}, ["supervised_tokens", "adapter_changed", "losses_finite", "reload_matches"], "not measured"),
        ({"holdout_after": 3.0}, ["holdout"], "did not fall (3.000 -> 3.000 nats/token)"),
        ({"holdout_after": 3.2}, ["holdout"], "did not fall (3.000 -> 3.200 nats/token)"),
        ({"holdout_after": None}, ["holdout"], "nothing was held out"),
        ({"held_out": 0}, ["holdout"], "nothing was held out"),
        ({"holdout_after": math.nan}, ["holdout"], "not finite"),
        ({"holdout_after": -math.inf}, ["holdout"], "not finite"),
        ({"replies": []}, ["replies"], "none were made"),
        (
            {"replies": [*report().replies, LOOP]},
            ["replies"],
            "1 of 2 greedy replies loop, of the parent's 0 (worst: 93%",
        ),
        ({"replies": [LOOP, PARENT_TOO]}, ["replies"], "2 of 2 greedy replies loop, of the parent's 1"),
        ({"replies": [*report().replies, PARENT_TOO]}, [], "holdout reply loss 3.000 -> 2.500"),
        ({"replies": [LOOP, PARENT_ONLY]}, [], "holdout reply loss 3.000 -> 2.500"),
        ({"holdout_after": 3.2, "replies": [LOOP]}, ["holdout", "replies"], "did not fall"),
    ],
)
def test_the_verdict_and_its_reasons(changes: dict[str, Any], failed: list[str], words: str) -> None:
    """A candidate is promoted when nothing speaks against it, and each objection is named with its figure."""
    verdict = judge(report(**changes))
    assert verdict.outcome is (Outcome.REJECTED if failed else Outcome.PROMOTED)
    assert verdict.failed == failed
    assert words in verdict.reason
