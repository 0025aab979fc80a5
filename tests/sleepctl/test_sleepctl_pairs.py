"""Tests of what ``sleepctl`` shows of two strategies on the same experiences, and how it asks for them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from sleepd.protocol import control
from sleepd.protocol.status import CycleDetail, RunResult, Status
from sleepd.protocol.verdict import Interval, PairComparison
from sleepd.sleepctl.pages.decision_page import run_page, why_page
from sleepd.sleepctl.pages.lines.cycle_sentences import sentences
from sleepd.sleepctl.pages.lines.pair_lines import pair_lines
from sleepd.sleepctl.pages.report_page import KnownCycle, report_page
from sleepd.sleepctl.pages.show_page import show_page
from sleepd.sleepctl.pages.status_page import status_page
from sleepd.sleepctl.pages.strategy_page import compare, strategy_page
from sleepd.sleepctl.pages.terminal import Page, render
from tests.kept import kept
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]

FIGURES = {"holdout_before": 3.0, "held_out": 9, "trained": 12, "drift": 0.01, "worker_seconds": 65.0}
LOSER = scenes.cycle(
    8,
    "rejected",
    rival=9,
    pair_gain=-0.2,
    strategy="consolidate",
    holdout_after=2.5,
    reason="cycle 9 is better",
    **FIGURES,
)
WINNER = scenes.cycle(9, "promoted", rival=8, pair_gain=0.2, strategy="eager", holdout_after=2.3, **FIGURES)
COMPARED = PairComparison(
    rival=8,
    strategy="consolidate",
    rival_state="measured",
    holdout=Interval(estimate=0.2, low=0.1, high=0.3, confidence=0.95, experiences=9),
    decided_by="holdout",
    is_better=True,
    text="better than cycle 8 (strategy consolidate): holdout reply loss lower by 0.200 nats/token",
)


def detail_of(pair: PairComparison | None = COMPARED) -> CycleDetail:
    assert scenes.FULL.verdict is not None
    verdict = msgspec.structs.replace(scenes.FULL.verdict, pair=pair)
    return msgspec.structs.replace(scenes.FULL, summary=WINNER, verdict=verdict, rival=LOSER)


def shown(page: Page) -> str:
    return " ".join(render(page, width=200, is_coloured=False).split())


def reported(detail: CycleDetail) -> str:
    """The report's sentences and its part on the pair."""
    known = KnownCycle(detail, None, scenes.BUFFER, [], [], is_live=True)
    whole = shown(report_page(known, scenes.NOW))
    said = "\n".join([*sentences(detail), *(shown([row]) for row in pair_lines(detail))]) + "\n"
    assert all(line in whole for line in said.splitlines())
    return said


def test_report_has_both() -> None:
    """Each with its strategy, state, gain, drift and cost; then what told them apart, and the paired interval."""
    said = reported(detail_of())
    assert said == kept("pair-in-report", said)


def test_show_has_both() -> None:
    """The same rows, in the table of figures."""
    text = shown(show_page(detail_of(), scenes.NOW))
    assert "Pair cycle 9 eager" in text
    assert COMPARED.text in text


def test_alone_is_said() -> None:
    """Where the other one failed, nothing is shown as compared."""
    alone = PairComparison(rival=8, strategy="consolidate", rival_state="failed", text="judged alone: cycle 8 failed")
    said = reported(detail_of(alone))
    assert said == kept("pair-alone", said)


def test_measured_one_waits() -> None:
    """While the other one trains, no verdict is shown."""
    waiting = scenes.cycle(8, "measured", rival=9, ended_at=None)
    said = reported(msgspec.structs.replace(detail_of(None), summary=waiting, verdict=None))
    assert said == kept("pair-waits", said)


def test_run_shows_both_ends() -> None:
    """The better one first."""
    text = shown(run_page(RunResult(is_started=True, reason="", cycle=9, summary=WINNER, rival=LOSER)))
    assert text.startswith("cycle 9 (eager) promoted cycle 8 (consolidate) rejected: cycle 9 is better")


def test_two_strategies_are_sent(daemon: FakeDaemon, sleepctl: Sleepctl) -> None:
    """Both names reach the daemon, in their order."""
    daemon.replies[control.Run] = RunResult(is_started=True, reason="Ready", cycle=9, undo="sleepctl cancel")
    assert sleepctl("run", "--strategies", "consolidate,eager")[0] == 0
    assert daemon.requests == [control.Run(strategies=["consolidate", "eager"])]


@pytest.mark.parametrize(
    "arguments", [("--strategies", "eager"), ("--strategies", "a,b,c"), ("--strategies", "a,b", "--strategy", "c")]
)
def test_other_than_two_is_refused(sleepctl: Sleepctl, arguments: tuple[str, ...]) -> None:
    """One, three, or two beside a single one are no pair."""
    assert sleepctl("run", *arguments)[0] == 2


def test_history_compares_pairs() -> None:
    """Gains on the same experiences stand apart from those of cycles on others, each pair once."""
    cycles = [
        each
        for number, gain in ((1, 0.2), (3, 0.24), (5, 0.22))
        for each in (
            msgspec.structs.replace(LOSER, cycle=number, rival=number + 1, pair_gain=-gain),
            msgspec.structs.replace(WINNER, cycle=number + 1, rival=number, pair_gain=gain),
        )
    ]
    found = compare(cycles)
    assert [(each.one, each.other, each.pairs) for each in found.pairs] == [("consolidate", "eager", 3)]
    assert found.pairs[0].gain.mean == pytest.approx(-0.22)
    text = shown(strategy_page(found))
    assert "consolidate gained -0.22 nats/token (95 %:" in text
    assert "against eager" in text
    assert "took 1 min" in text


def test_adopted_strategy_is_shown() -> None:
    """In ``status`` and in ``why``, with its evidence."""
    adopted = "eager replaces consolidate: in 5 pairs"
    status: Status = msgspec.structs.replace(scenes.STATUSES["promoted"], adopted_strategy=adopted)
    assert f"Strategy {adopted}" in shown(status_page(status, now=scenes.NOW, is_live=True))
    assert f"strategy: {adopted}" in shown(why_page(status.decision, [], scenes.NOW, adopted=adopted))
