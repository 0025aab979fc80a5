"""Tests of the recorded facts, from which other thresholds are simulated and the next sleep is foreseen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sleepd.daemon.control_socket import Peer
from sleepd.daemon.publisher import Life
from sleepd.daemon.requests import Requests
from sleepd.protocol.control import Simulate, When
from sleepd.protocol.given_thresholds import GivenTriggers
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.looks import KEPT_LOOKS, LEAST_APART, Looks
from tests.stages import OpenSleeper, Stage, refresh
from tests.test_triggers import facts

PEER = Peer(uid=0, gid=0, pid=1)
NOW = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    return Looks(Ledger(tmp_path / "state.db"))


def test_spread_looks_have_the_newest(looks: Looks) -> None:
    """Of many looks at most so many are read, evenly spread, and the newest is among them."""
    for hour in range(20):
        looks.record(facts(total=10 + hour), at=NOW + timedelta(hours=hour))
    assert [look.facts.total for look in looks.spread(5)] == [14, 19, 24, 29]
    assert len(looks.spread(100)) == 20


def test_same_facts_are_recorded_once(looks: Looks) -> None:
    """A poll that finds what the last one found is not recorded, however much later it is."""
    looks.record(facts(), at=NOW)
    looks.record(facts(hours_since_last_sleep=90.0), at=NOW + timedelta(days=3))
    assert [look.at for look in looks.since(NOW)] == [NOW]


def test_counts_are_recorded_seldom(looks: Looks) -> None:
    """Changed counts are recorded at most every five minutes."""
    for minutes in range(20):
        looks.record(facts(total=10 + minutes), at=NOW + timedelta(minutes=minutes))
    assert [look.facts.total for look in looks.since(NOW)] == [10, 15, 20, 25]
    assert timedelta(minutes=5) == LEAST_APART


@pytest.mark.parametrize(
    "changes", [{"is_paused": True}, {"trainable": 0}, {"held_out": 0}, {"gpu_problem": "busy"}, {"trend": "flat"}]
)
def test_obstacle_is_recorded_at_once(looks: Looks, changes: dict[str, Any]) -> None:
    """What may keep a sleep from starting is recorded as soon as it changes."""
    looks.record(facts(), at=NOW)
    looks.record(facts(**changes), at=NOW + timedelta(seconds=1))
    assert len(looks.since(NOW)) == 2


@pytest.mark.parametrize("column", ["trainable", "held_out"])
def test_first_one_is_recorded_at_once(looks: Looks, column: str) -> None:
    """From none to one a sleep becomes possible; from one to two the counts alone have changed."""
    for count in range(3):
        looks.record(facts(**{column: count}), at=NOW + timedelta(seconds=count))
    assert [getattr(look.facts, column) for look in looks.since(NOW)] == [0, 1]


def test_looks_are_bounded(looks: Looks) -> None:
    """The oldest go once there are ten thousand."""
    database = looks._database
    database.execute("PRAGMA synchronous=OFF")
    database.executemany("INSERT INTO looks(at, facts) VALUES(?, '{}')", [("2020",)] * (KEPT_LOOKS + 5))
    looks.record(facts(), at=NOW)
    assert database.execute("SELECT count(*) FROM looks").fetchone()[0] == KEPT_LOOKS


def test_looks_survive_a_restart(tmp_path: Path) -> None:
    """They stand in the ledger, with every fact, from the asked moment on."""
    first = Ledger(tmp_path / "state.db")
    looks = Looks(first)
    looks.record(facts(total=7, new_salience=0.8), at=NOW)
    looks.record(facts(total=8), at=NOW + timedelta(hours=1))
    first.close()
    found = Looks(Ledger(tmp_path / "state.db"))
    assert [look.facts.total for look in found.since(NOW)] == [7, 8]
    assert [look.facts.total for look in found.since(NOW + timedelta(minutes=1))] == [8]
    assert found.since(NOW)[0].facts.new_salience == 0.8


async def never() -> list[str]:
    return []


def requests_of(sleeper: OpenSleeper) -> Requests:
    return Requests(sleeper, sleeper.reader, Life(config_path=Path()), reload=never)


def given(**changes: Any) -> GivenTriggers:
    defaults: dict[str, Any] = {
        "min_experiences": 5,
        "min_new_experiences": 2,
        "min_hours_between_sleep": 6.0,
        "quality_factor": 1.0,
        "breakthrough_salience": 0.0,
        "adaptive": False,
    }
    return GivenTriggers(**(defaults | changes))


def test_polls_are_simulated(tmp_path: Path) -> None:
    """Three polls, eight hours apart, each with new experiences: asked through the daemon's requests, the configured
    thresholds would have slept three times, and those that want a hundred new experiences never.
    """
    stage = Stage(tmp_path)
    since = stage.clock.now()
    for night in range(1, 4):
        stage.write(12 * night)
        stage.play(refresh)
        stage.clock.advance(8 * 3600)

    async def ask(sleeper: OpenSleeper) -> Any:
        asked = Simulate(triggers=given(min_new_experiences=100), since=since)
        return await requests_of(sleeper).respond(asked, PEER)

    found = stage.play(ask)
    assert (found.looks, found.began, found.first) == (3, 0, since)
    assert [each.new for each in found.configured.sleeps] == [12, 12, 12]
    assert found.given.sleeps == []
    assert set(found.given.hours_waited) == {"min_new_experiences"}


def test_next_sleep_is_foreseen(tmp_path: Path) -> None:
    """One experience an hour came: with three in the buffer the fifth, and the sleep, is two hours away."""
    stage = Stage(tmp_path)
    for count in (1, 2, 3):
        stage.write(count)
        stage.play(refresh)
        if count < 3:
            stage.clock.advance(3600)

    async def ask(sleeper: OpenSleeper) -> Any:
        return await requests_of(sleeper).respond(When(), PEER)

    found = stage.play(ask)
    assert found.per_day == pytest.approx(24.0)
    assert found.at == stage.clock.now() + timedelta(hours=2)
