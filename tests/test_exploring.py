"""Tests of exploring: which cycles try a neighbour strategy, when one is adopted, and how that is taken back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sleepd.config.layers import load
from sleepd.config.strategies import neighbours
from sleepd.cycles.running.planning import Order
from sleepd.daemon.status_view import overview
from sleepd.errors import ConfigError
from sleepd.policy.selecting.exploring import BetterStrategy, ComparedPair, better_strategy, explored
from sleepd.registry.strategy_choice import adopt_better, strategy_in_force
from tests.agents import changed
from tests.stages import OpenSleeper, Stage

NEIGHBOURS = ("careful", "eager", "rehearse")


def of_gains(*gains: float, passed: bool = True, usual_passed: bool = True) -> list[ComparedPair]:
    return [ComparedPair(gain, passed, usual_passed) for gain in gains]


# --- which cycles explore ---


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.2, 160, 240), (0.5, 450, 550), (1.0, 1000, 1000)])
def test_share_of_cycles_explores(share: float, least: int, most: int) -> None:
    """Of a thousand numbers about the wanted share, and all neighbours among them."""
    found = [explored(cycle, share, NEIGHBOURS) for cycle in range(1, 1001)]
    tried = [each for each in found if each]
    assert least <= len(tried) <= most
    assert set(tried) == (set(NEIGHBOURS) if share else set())


def test_number_alone_decides() -> None:
    """The same number always tries the same neighbour; a larger share never tries fewer."""
    assert [explored(n, 0.3, NEIGHBOURS) for n in range(99)] == [explored(n, 0.3, NEIGHBOURS) for n in range(99)]
    few = {n: name for n in range(99) if (name := explored(n, 0.3, NEIGHBOURS))}
    assert {n: explored(n, 0.6, NEIGHBOURS) for n in few} == few


def test_neighbours_are_comparable() -> None:
    """The older recipe adapts other modules, so it is nobody's neighbour and has none."""
    assert neighbours("consolidate") == ["careful", "eager", "rehearse"]
    assert neighbours("gentle") == []


# --- when one is adopted ---

CASES: list[tuple[str, dict[str, list[ComparedPair]], str]] = [
    ("nothing is known", {}, ""),
    ("too few pairs", {"eager": of_gains(0.5, 0.5, 0.5, 0.5)}, ""),
    ("five alike", {"eager": of_gains(0.5, 0.52, 0.49, 0.51, 0.5)}, "eager"),
    ("worse", {"eager": of_gains(-0.5, -0.52, -0.49, -0.51, -0.5)}, ""),
    ("sure, and less than counts", {"eager": of_gains(*[0.005, 0.006, 0.005, 0.006, 0.005])}, ""),
    ("more, and perhaps by chance", {"eager": of_gains(1.5, -0.5, 0.9, -0.4, 0.8)}, ""),
    ("the better of two", {"eager": of_gains(*[0.3, 0.31] * 3), "careful": of_gains(*[0.6, 0.61] * 3)}, "careful"),
    ("refused more often", {"eager": of_gains(*[0.5, 0.51] * 3, passed=False)}, ""),
    ("both were refused", {"eager": of_gains(*[0.5, 0.51] * 3, passed=False, usual_passed=False)}, "eager"),
]


@pytest.mark.parametrize(("pairs", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_surely_better_one_is_found(pairs: dict[str, list[ComparedPair]], expected: str) -> None:
    """Over five pairs or more, beyond chance, by more than counts, and without more refusals."""
    found = better_strategy(pairs, confidence=0.95, min_gain=0.01)
    assert (found.strategy if found else "") == expected


def test_looks_share_the_alpha() -> None:
    """Each further look at each further neighbour needs a surer bound, so that all of them are wrong as one is."""
    confidences = [_found(count, others).confidence for count, others in ((5, 0), (6, 0), (9, 0), (5, 2))]
    alphas = [1 - each for each in confidences]
    assert alphas[0] == pytest.approx(0.05 * 6 / 3.14159265**2, rel=1e-6)
    assert alphas[:3] == sorted(alphas[:3], reverse=True)
    assert alphas[3] == pytest.approx(alphas[0] / 3)


def _found(count: int, others: int) -> BetterStrategy:
    pairs = {"eager": of_gains(*([0.5, 0.501] * count)[:count])} | {f"other {n}": of_gains() for n in range(others)}
    found = better_strategy(pairs, confidence=0.95, min_gain=0.01)
    assert found is not None
    return found


def test_nothing_is_adopted_by_chance() -> None:
    """Of 300 histories of 30 pairs without a difference, looked at after each pair, less than 5 % adopt anything."""
    chance, adopted = random.Random(2), 0
    for _ in range(300):
        gains = [chance.gauss(0, 0.1) for _ in range(30)]
        looks = (better_strategy({"eager": of_gains(*gains[:n])}, confidence=0.95, min_gain=0.0) for n in range(5, 31))
        adopted += any(looks)
    assert adopted <= 15


# --- in the service ---


def exploring(stage: Stage, **training: object) -> Stage:
    stage.config = changed(stage.config, "training", explore=1.0, **training)
    return stage


def sleep_pairs(stage: Stage, behaviour: str, *counts: int) -> None:
    """Pairs, one after the other, on a buffer of so many experiences."""
    for count in counts:
        stage.write(count)
        stage.sleep(behaviour=behaviour)
        stage.clock.advance(7 * 3600)


async def in_force(sleeper: OpenSleeper) -> tuple[str, str]:
    await sleeper.refresh()
    status = overview(sleeper.reader, next_check_at=None, config_path="")
    return strategy_in_force(sleeper.reader.config, sleeper.parts.ledger), status.adopted_strategy


def test_configured_cycle_explores(tmp_path: Path) -> None:
    """A cycle that nobody asked for on other terms is the first of a pair, the second tries a neighbour."""
    stage = exploring(Stage(tmp_path))
    sleep_pairs(stage, "promote,better", 16)

    async def scene(sleeper: OpenSleeper) -> list[str]:
        return [each.strategy for each in sleeper.parts.ledger.summaries()[::-1]]

    assert stage.play(scene) == ["consolidate", explored(1, 1.0, NEIGHBOURS)]


def test_own_terms_do_not_explore(tmp_path: Path) -> None:
    """Whoever names a strategy gets that one."""
    stage = exploring(Stage(tmp_path))
    stage.write(16)
    assert stage.sleep(Order(strategy="careful")).rival is None


def test_nothing_is_adopted_unasked(tmp_path: Path) -> None:
    """The evidence is there, and the configured strategy stays."""
    stage = exploring(Stage(tmp_path))
    sleep_pairs(stage, "promote,better", 16)

    async def scene(sleeper: OpenSleeper) -> str:
        adopt_better(sleeper.reader.config, sleeper.parts.ledger, sleeper.reader.now)
        return (await in_force(sleeper))[0]

    assert stage.play(scene) == "consolidate"


def test_better_one_is_adopted_and_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After enough pairs it replaces the configured one, which status says; either key takes that back."""
    monkeypatch.setattr("sleepd.cycles.running.pair_planning.neighbours", lambda _name: ["eager"])
    stage = exploring(Stage(tmp_path), adopt_better=True)
    sleep_pairs(stage, "promote,better", 16, 28, 40, 52)
    assert stage.play(in_force) == ("consolidate", "")
    sleep_pairs(stage, "promote,better", 64)
    name, text = stage.play(in_force)
    assert name == "eager"
    assert text.startswith("eager replaces consolidate: ")
    assert "it gained +0.500 nats/token" in text
    kept = stage.config
    for change in ({"adopt_better": False}, {"strategy": "careful"}):
        stage.config = changed(kept, "training", **change)
        assert stage.play(in_force) == (stage.config.training.strategy, "")
    stage.config = changed(kept, "training", explore=0.0)
    stage.write(76)
    assert stage.sleep().strategy == "eager"


def test_exploring_without_neighbours_is_refused(tmp_path: Path) -> None:
    """A share that could never have an effect is an error of the configuration."""
    path = tmp_path / "config.toml"
    path.write_text('[training]\nstrategy = "gentle"\nexplore = 0.2\n')
    with pytest.raises(ConfigError, match=r"training\.explore"):
        load(path, environment={})
