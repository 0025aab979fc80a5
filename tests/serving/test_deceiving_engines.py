"""Engines that answer in good form and yet deceive, or that answer now and then: what is then called served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sleepd.protocol.deployment.adapter_fingerprint import LEAST_CHANCES
from tests.serving.fake_engines import FakeRouter
from tests.serving.serving_stage import ServingStage, fake_gguf, told

Chat = Callable[[Any], tuple[int, Any]]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_champions: Path) -> Iterator[ServingStage]:
    """Two champions, of which the second is in use, and a router that runs the base."""
    shutil.copytree(two_champions, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.setattr("sleepd.serving.serve_process.prepared_gguf", fake_gguf)
    monkeypatch.setattr("sleepd.serving.engines.engine.PAUSE_SECONDS", 0.01)
    ini = tmp_path / "state" / "serving" / "llama-server.ini"
    ini.parent.mkdir(parents=True)
    ini.write_text("[agent]\nmodel = base.gguf\n")
    with FakeRouter(ini) as router:
        yield ServingStage(tmp_path, router, "llama-router", ready_seconds=1.0, wait_idle_seconds=0.05)


def changed_answers(router: FakeRouter, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Have the list of each answer's tokens changed on its way."""
    chat = router.chat

    def other(body: Any) -> tuple[int, Any]:
        status, found = chat(body)
        if status == 200:
            change(found["choices"][0]["logprobs"]["content"])
        return status, found

    router.chat = other  # type: ignore[method-assign]


def every_ninth(router: FakeRouter, status: int) -> None:
    """Have every ninth answer to a chat request be a failure of that status."""
    chat, asked = router.chat, 0

    def other(body: Any) -> tuple[int, Any]:
        nonlocal asked
        asked += 1
        return (status, {"error": "later"}) if asked % 9 == 0 else chat(body)

    router.chat = other  # type: ignore[method-assign]


def flat(tokens: list[dict[str, Any]]) -> None:
    """Every token is as likely as every other."""
    for token in tokens:
        for chance in (token, *token["top_logprobs"]):
            chance["logprob"] = -4.0


def sampled(tokens: list[dict[str, Any]]) -> None:
    """What is left after the choice of a token: that one is certain, the others cannot come."""
    for token in tokens:
        token["logprob"] = 0.0
        for chance in token["top_logprobs"]:
            chance["logprob"] = 0.0 if chance["token"] == token["token"] else -9999.0


def huge_numbers(tokens: list[dict[str, Any]]) -> None:
    """Token numbers that no vocabulary has, beyond 64 bits."""
    for token in tokens:
        for number, chance in enumerate((token, *token["top_logprobs"])):
            chance["id"] = 2**70 + number


@pytest.mark.parametrize("change", [flat, sampled, huge_numbers])
def test_made_up_chances_prove_nothing(
    stage: ServingStage, router: FakeRouter, change: Callable[[list[dict[str, Any]]], None]
) -> None:
    """Chances that no model has are those of no generation, and the daemon goes on."""
    changed_answers(router, change)
    state = stage.turns(2)
    assert (state.served, state.is_proved) == (None, False)
    assert "the proof failed" in state.problem
    assert told(stage, "served") == []


@pytest.mark.parametrize("given", [0, 1, LEAST_CHANCES - 2])
def test_few_chances_prove_nothing(stage: ServingStage, router: FakeRouter, given: int) -> None:
    """With few log-probabilities for a token another adapter passes too often: the champion stays, not proved."""

    def cut(tokens: list[dict[str, Any]]) -> None:
        for token in tokens:
            del token["top_logprobs"][given + 1 :]

    changed_answers(router, cut)
    state = stage.turns(2)
    assert (state.served, state.is_proved, router.running) == (None, False, 2)
    assert f"fewer than {LEAST_CHANCES} log-probabilities" in state.problem
    assert stage.steps.count("swapping") == 1


def test_two_servers_behind_one_address(stage: ServingStage, router: FakeRouter, monkeypatch: Any) -> None:
    """Where every second answer comes from a server that was not swapped, nothing is called served."""
    asked = 0

    def runs(_model: str) -> int | None:
        nonlocal asked
        asked += 1
        return router.running if asked % 2 else 1

    monkeypatch.setattr(router, "runs", runs)
    state = stage.turns()
    assert (state.served, state.is_proved) == (None, False)
    assert "several of them" in state.problem


@pytest.mark.parametrize("late", [1, 3, 7])
def test_late_swap_is_no_proof(stage: ServingStage, router: FakeRouter, late: int, monkeypatch: Any) -> None:
    """An engine that answers some requests with the old model after a load is proved later, not at once."""
    load, left, before = router.load, 0, router.running

    def load_late() -> None:
        nonlocal left, before
        before, left = router.running, late
        load()

    def runs(_model: str) -> int | None:
        nonlocal left
        left -= 1
        return before if left >= 0 else router.running

    monkeypatch.setattr(router, "load", load_late)
    monkeypatch.setattr(router, "runs", runs)
    assert not stage.turns().is_proved
    assert told(stage, "served") == []
    monkeypatch.setattr(router, "load", load)
    assert stage.turns(is_asked_for=True).served == 2


def test_kept_answers_are_no_proof(stage: ServingStage, router: FakeRouter, monkeypatch: Any) -> None:
    """A proxy that gives kept answers to the same requests hides no engine that came back with another generation."""
    chat, kept = router.chat, dict[str, tuple[int, Any]]()

    def replay(body: Any) -> tuple[int, Any]:
        key = json.dumps({name: value for name, value in body.items() if not name.startswith("cache_")}, sort_keys=True)
        if key not in kept:
            kept[key] = chat(body)
        return kept[key]

    assert stage.turns().served == 2
    monkeypatch.setattr(router, "chat", replay)
    assert stage.turns().served == 2
    router.running, router.path = 1, "old.gguf"
    assert stage.turns().served == 2
    assert (router.running, stage.steps.count("swapping")) == (2, 2)


@pytest.mark.parametrize("status", [429, 503])
def test_busy_engine_is_asked_again(stage: ServingStage, router: FakeRouter, status: int) -> None:
    """An engine that refuses a request now and then, because it is busy, is proved all the same."""
    every_ninth(router, status)
    state = stage.turns(2)
    assert (state.served, state.is_proved, state.problem) == (2, True, "")
    assert stage.steps.count("swapping") == 1


def test_failure_in_a_proof_is_put_right(stage: ServingStage, router: FakeRouter) -> None:
    """An engine that breaks off in a proof is called served only once it answers everything."""
    chat = router.chat
    every_ninth(router, 500)
    assert not stage.turns().is_proved
    assert told(stage, "served") == []
    router.chat = chat  # type: ignore[method-assign]
    assert stage.turns(is_asked_for=True).served == 2


def test_engine_that_is_always_busy(stage: ServingStage, router: FakeRouter) -> None:
    """Where no pause between requests comes, the swap goes ahead after the configured seconds."""
    router.is_processing = 10**6
    assert stage.turns().served == 2


def test_load_without_end_is_given_up(stage: ServingStage, router: FakeRouter, monkeypatch: Any) -> None:
    """A model that never ends loading is not called served; what answers meanwhile is what is shown."""
    monkeypatch.setattr(router, "load", lambda: router.state.update(value="loading"))
    state = stage.turns()
    assert state.served is None
    assert "was not loaded within 1 s" in state.problem
