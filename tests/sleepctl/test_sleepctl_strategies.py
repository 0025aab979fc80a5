"""Tests of ``sleepctl history --strategies``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sleepd.protocol import control
from sleepd.protocol.status import CycleSummary
from sleepd.sleepctl.pages.strategy_page import compare, strategy_page
from sleepd.sleepctl.pages.terminal import render
from tests.kept import kept
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]


def judged(number: int, strategy: str, gain: float | None, **fields: Any) -> CycleSummary:
    known = {
        "holdout_before": 3.0,
        "holdout_after": None if gain is None else 3.0 - gain,
        "drift": 0.01 + number / 1000,
    }
    return scenes.cycle(number, "promoted" if gain else "rejected", **{"strategy": strategy, **known, **fields})


CYCLES = [
    *(judged(number, "consolidate", gain) for number, gain in enumerate([0.40, 0.44, 0.42, 0.46], 1)),
    *(judged(number, "eager", gain) for number, gain in enumerate([0.50, 0.20, 0.56], 5)),
    *(judged(number, "careful", gain) for number, gain in enumerate([0.10, 0.12], 8)),
    judged(10, "gentle", None, drift=None),
    scenes.cycle(11, "failed", strategy="rehearse"),
    msgspec.structs.replace(judged(12, "from:thor", 2.0), origin=scenes.ORIGIN),
]


def test_strategies_are_compared() -> None:
    """Each strategy with a verdict has its cycles, its means with bounds, and each difference says whether it may be
    chance; a cycle that failed and one of another machine count for nothing.
    """
    found = compare(CYCLES)
    assert [(each.strategy, each.cycles, each.promoted) for each in found.strategies] == [
        ("careful", 2, 2),
        ("consolidate", 4, 4),
        ("eager", 3, 3),
        ("gentle", 1, 0),
    ]
    sure = {(each.one, each.other): each.gain.is_above_or_below_zero for each in found.differences}
    assert sure == {("careful", "consolidate"): True, ("careful", "eager"): False, ("consolidate", "eager"): False}
    text = render(strategy_page(found), width=80, is_coloured=False)
    assert text == kept("strategies-compared", text)


def test_history_by_strategy(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """``--strategies`` shows them in place of the table, as JSON beside the cycles; without a verdict it says so."""
    daemon.replies[control.History] = {"schema": 1, "cycles": [scenes.REJECTED, scenes.PROMOTED]}
    ran = sleepctl("history", "--strategies", "--json")
    assert [(each["strategy"], each["cycles"]) for each in ran.json["strategies"]] == [("consolidate", 2)]
    assert len(ran.json["cycles"]) == 2
    daemon.replies[control.History] = {"schema": 1, "cycles": []}
    assert "no cycle with a verdict" in sleepctl("history", "--strategies").out
