"""Tests of the base's surprise as a salience: the rule, what the ledger knows, and a buffer weighed by it."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.experience import id_hash
from sleepd.cycles.running.planning import Order
from sleepd.errors import NothingToDo
from sleepd.policy.selecting.surprise import salience_of, weighed
from sleepd.protocol.evidence import TrainedLoss
from sleepd.protocol.job import Report
from sleepd.store.reservoir import read_reservoir
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.surprises import Surprises
from tests.agents import changed, columns
from tests.fake_worker import report
from tests.stages import OpenSleeper, Stage


@given(st.floats(-1.0, 1e6), st.floats(-1.0, 1e6))
def test_surprise_becomes_a_salience(one: float, other: float) -> None:
    """From 0 to 1, and never lower for a larger loss; 1.5 nats a token are the default threshold of 0.6."""
    low, high = sorted((one, other))
    assert 0 <= salience_of(low) <= salience_of(high) <= 1
    assert salience_of(1.5) == pytest.approx(0.6)


@pytest.mark.parametrize(("which", "expected"), [("surprise", [0.75, 0.7, 0.75, 0.7, -1.0]), ("both", None)])
def test_few_saliences_are_replaced(which: Any, expected: list[float] | None) -> None:
    """Of five: two measured ones, of which the agent weighed one; two others likewise; one that was rated down.

    ``surprise`` replaces what was given, ``both`` keeps it.
    """
    buffer = columns([1, 2, 3, 4, 5], saliences=[0.9, 0.9, 0.7, 0.7, -1.0])
    buffer.given = array("B", [1, 1, 0, 0, 1])
    found = weighed(buffer, {1: 3.0, 3: 3.0, 5: 3.0}, which, 0.7)
    assert list(found) == (expected or [0.9, 0.9, 0.75, 0.7, -1.0])


def told(identifier: str, base: float | None) -> TrainedLoss:
    return TrainedLoss(id=identifier, tokens=10, parent=2.0, candidate=1.0, base=base)


def test_another_base_begins_anew(tmp_path: Path) -> None:
    """What was measured adds up from cycle to cycle, and with another base nothing that was measured before counts."""
    ledger = Ledger(tmp_path / "state.db")
    surprises, plain = Surprises(ledger), report([], 1e-4, 3.0, 2.0)
    evidence = msgspec.structs.replace(plain.evidence, newly_trained=[told("a", 4.0), told("b", None)])
    first = msgspec.structs.replace(plain, evidence=evidence)
    second = msgspec.structs.replace(plain, evidence=msgspec.structs.replace(evidence, newly_trained=[told("c", 1.0)]))

    def known(*reports: Report) -> dict[int, float]:
        for each in reports:
            columns_ = "state, started_at, strategy, is_forced, report, seen"
            values = ("promoted", "", "", False, msgspec.json.encode(each), b"")
            ledger.database.execute(f"INSERT INTO cycles({columns_}) VALUES(?,?,?,?,?,?)", values)
        return dict(surprises.known())

    assert known() == {}
    assert known(first) == {id_hash("a"): 4.0}
    assert known(second) == {id_hash("a"): 4.0, id_hash("c"): 1.0}
    assert surprises.known() is surprises.known()
    other = msgspec.structs.replace(second, base_fingerprint="another")
    assert known(other) == {id_hash("c"): 1.0}
    assert dict(Surprises(ledger).known()) == {id_hash("c"): 1.0}


def saliences(stage: Stage) -> dict[float, int]:
    """How many experiences of the buffer have each salience."""

    async def scene(sleeper: OpenSleeper) -> dict[float, int]:
        await sleeper.refresh()
        found = list(sleeper.parts.intake.view.saliences)
        return {each: found.count(each) for each in found}

    found: dict[float, int] = stage.play(scene)
    return found


def test_measured_surprise_counts_in_the_next_cycle(tmp_path: Path) -> None:
    """Before a cycle all have the default salience, whatever the agent says, and are trained with it; after it those
    that it measured with the base have theirs. Those below the least salience are trained no more.
    """
    stage = Stage(tmp_path)
    stage.config = changed(stage.config, "buffer", salience="surprise")
    stage.write(20, salience=0.9)
    assert saliences(stage) == {0.7: 20}
    first = stage.sleep()
    assert {one.salience for one in read_reservoir(stage.state / "current")} == {0.7}
    measured = saliences(stage)
    assert measured == {0.7: 20 - first.held_out, salience_of(5.0): first.held_out}
    stage.config = changed(stage.config, "buffer", salience="both")
    assert saliences(stage) == {0.9: 20}
    stage.config = changed(stage.config, "buffer", salience="surprise")
    stage.config = changed(stage.config, "training", min_salience=0.75)
    stage.clock.advance(7 * 3600)
    stage.write(40)
    with pytest.raises(NothingToDo, match="below min_salience"):
        stage.sleep(Order(force=True))
