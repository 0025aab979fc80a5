"""Tests of the gate that asks whether what was trained answers its prompts."""

from __future__ import annotations

import random

import pytest

from sleepd.policy.judging.relevance_gate import FEWEST_PROMPTS, FEWEST_REPLIES, is_enough, relevance_figure
from sleepd.protocol.evidence import Relevance, ReplyLosses


def relevance(gains: list[float], prompts: int = FEWEST_PROMPTS) -> Relevance:
    losses = [ReplyLosses(id=str(number), tokens=50, own=3.0, other=3.0 + gain) for number, gain in enumerate(gains)]
    is_told = is_enough(replies=len(gains), prompts=prompts)
    return Relevance(prompts=prompts, replies=len(gains), losses=losses if is_told else [])


@pytest.mark.parametrize(
    ("found", "is_met", "is_binding", "words"),
    [
        (None, False, True, "not measured"),
        (
            relevance([], 0),
            False,
            False,
            "undecided with 0 replies to 0 different prompts; at least 16 to 4 are needed",
        ),
        (relevance([0.2] * (FEWEST_REPLIES - 1)), False, False, "undecided with 15 replies to 4 different prompts"),
        (relevance([0.2] * 16, FEWEST_PROMPTS - 1), False, False, "undecided with 16 replies to 3 different prompts"),
        (relevance([0.2] * FEWEST_REPLIES), True, True, "after others by 0.200 nats/token, above 0.200"),
        (relevance([0.3, -0.05, 0.25, 0.2] * 4), True, True, "by 0.175 nats/token, above 0."),
        (relevance([0.2, -0.2] * 8), False, True, "nothing shows that what was trained fits its prompts"),
        (relevance([0.4, -0.25] * 8), False, True, "does the agent write each reply beside its own prompt?"),
        (relevance([-0.2] * 16), False, True, "by -0.200 nats/token"),
        (relevance([0.004, -0.004] * 8), False, False, "do not depend on the prompt (0.004 nats/token)"),
        (relevance([0.015] * 16), False, False, "do not depend on the prompt (0.015 nats/token)"),
    ],
)
def test_lower_bound_must_exceed_zero(found: Relevance | None, is_met: bool, is_binding: bool, words: str) -> None:
    """Above zero beyond chance meets it; too few prompts, or a base that heeds none, decide nothing."""
    figure = relevance_figure(found)
    assert (figure.is_met, figure.is_binding) == (is_met, is_binding)
    assert words in figure.text
    assert (figure.value is not None) == (is_binding and found is not None)


def test_random_replies_pass_at_stated_rate() -> None:
    """Of 300 sets of replies without any relation to their prompts no more than one in forty passes, give or take."""
    chance = random.Random(1)
    sets = [relevance([chance.gauss(0, 0.17) for _ in range(24)]) for _ in range(300)]
    assert sum(relevance_figure(each).is_met for each in sets) < 14
