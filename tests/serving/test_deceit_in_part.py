"""Engines that run the champion only now and then, in part, or that show chances which are no proof of it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sleepd.protocol.deployment.adapter_fingerprint import ModelAnswer, Step, TokenChance
from tests.serving.fake_engines import PROMPTS, FakeEngine
from tests.serving.serving_stage import ServingStage, told

LONG = PROMPTS - 1
CHAMPION, BEFORE = 2, 1


def as_answer(steps: Sequence[Step]) -> ModelAnswer:
    """With the text of its likeliest tokens."""
    return ModelAnswer(steps=tuple(steps), text="".join(step[0].text for step in steps))


def normalised(scores: dict[int, float]) -> Step:
    """Chances of these scores, the likeliest first."""
    whole = math.log(math.fsum(map(math.exp, scores.values())))
    ranked = sorted(scores.items(), key=lambda one: -one[1])
    return tuple(TokenChance(id=word, text=f"w{word} ", logprob=score - whole) for word, score in ranked)


def between(one: ModelAnswer, other: ModelAnswer, share: float) -> ModelAnswer:
    """So much of the way from one model to the other."""
    steps = []
    for left, right in zip(one.steps, other.steps, strict=True):
        far = {chance.id: chance.logprob for chance in right}
        scores = {each.id: each.logprob + share * (far.get(each.id, -12.0) - each.logprob) for each in left}
        steps.append(normalised(scores))
    return as_answer(steps)


def changed(said: ModelAnswer, change: Any) -> ModelAnswer:
    """Every log-probability another one."""
    steps = [
        tuple(TokenChance(id=one.id, text=one.text, logprob=change(one.logprob)) for one in step) for step in said.steps
    ]
    return as_answer(steps)


class OneToken(FakeEngine):
    """Tells the likeliest token twenty times over."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        said = super().said(cycle, number, body)
        return ModelAnswer(steps=tuple(step[:1] * 20 for step in said.steps), text=said.text)


class OnePrompt(FakeEngine):
    """Gives log-probabilities for one prompt alone; the others are answered by another generation."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        if number == 0:
            return super().said(cycle, number, body)
        return ModelAnswer(steps=(), text=super().said(BEFORE, number, body).text)


class OneOldReplica(FakeEngine):
    """A server behind the address that was not restarted; which prompts it gets depends on their text."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        return super().said(BEFORE if number == 3 else cycle, number, body)


class OldLongPrompts(FakeEngine):
    """Answers long prompts from what it kept under the generation before, whatever it is told of its cache."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        own = super().said(cycle, number, body)
        return between(own, super().said(BEFORE, number, body), 0.6) if number == LONG else own


class WeakAdapter(FakeEngine):
    """Runs it at three quarters of its strength, as with a wrong alpha."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        return between(super().said(None, number, body), super().said(cycle, number, body), 0.75)


class TwoAtOnce(FakeEngine):
    """Runs the champion and the one before, each on top of the other."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        return between(super().said(cycle, number, body), super().said(BEFORE, number, body), 0.5)


class FirstLayers(FakeEngine):
    """Leaves out the modules that it does not know: some prompts are moved, some are not."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        return super().said(cycle if number % 2 else None, number, body)


class OtherLogarithm(FakeEngine):
    """Takes the logarithm to the base ten."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        return changed(super().said(BEFORE, number, body), lambda logprob: logprob / math.log(10))


class WholeNumbers(FakeEngine):
    """Rounds to whole nats, and runs the generation before."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        return changed(super().said(BEFORE, number, body), round)


class NextToken(FakeEngine):
    """Shows the chances of the token after the one that was chosen."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        said = super().said(cycle, number, body)
        return ModelAnswer(steps=(*said.steps[1:], said.steps[0]), text=said.text)


class AfterTemperature(FakeEngine):
    """Shows the chances behind a temperature of its own."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        said = super().said(cycle, number, body)
        return as_answer([normalised({one.id: one.logprob / 2 for one in step}) for step in said.steps])


class DropsAdapter(FakeEngine):
    """Has the adapter for its first requests after the start, and the base afterwards."""

    def said(self, cycle: int | None, number: int, body: Any) -> ModelAnswer:
        asked = sum(path == "/v1/chat/completions" for path in self.paths())
        return super().said(cycle if asked <= 3 else None, number, body)


class OtherNumbers(FakeEngine):
    """Numbers its tokens otherwise than the base's tokenizer does."""

    def chat(self, body: Any) -> tuple[int, Any]:
        status, found = super().chat(body)
        for place in found["choices"][0]["logprobs"]["content"]:
            for chance in (place, *place["top_logprobs"]):
                chance["id"] = int(chance["token"].strip()[1:]) + 1
        return status, found


DECEIVING = [
    OneToken,
    OnePrompt,
    OneOldReplica,
    OldLongPrompts,
    WeakAdapter,
    TwoAtOnce,
    FirstLayers,
    OtherLogarithm,
    WholeNumbers,
    NextToken,
    AfterTemperature,
    DropsAdapter,
    OtherNumbers,
]


@pytest.fixture
def place(tmp_path: Path, two_champions: Path) -> Path:
    """Two champions, of which the second is in use."""
    shutil.copytree(two_champions, tmp_path, dirs_exist_ok=True, symlinks=True)
    return tmp_path


@pytest.mark.parametrize("kind", DECEIVING)
def test_deceiving_engine_is_never_called_served(place: Path, kind: type[FakeEngine]) -> None:
    """Whatever part of the champion it runs, the champion is not called served."""
    with kind() as engine:
        engine.running = CHAMPION
        stage = ServingStage(place, engine, "command", command="true")
        state = stage.turns(2)
    assert (state.served == CHAMPION, bool(state.problem)) == (False, True)
    assert [one for one in told(stage, "served") if one["cycle"] == CHAMPION] == []


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15])
def test_honest_engine_is_proved_beside_them(place: Path, noise: float) -> None:
    """The same engine without deceit is proved, with the differences of a coarser base too."""
    with FakeEngine() as engine:
        engine.running, engine.noise = CHAMPION, noise
        state = ServingStage(place, engine, "command", command="true").turns()
    assert (state.served, state.is_proved, state.problem) == (CHAMPION, True, "")


class KeepsAnswers(FakeEngine):
    """A proxy that answers the same messages as it did before, whatever else a request says."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, tuple[int, Any]] = {}

    def chat(self, body: Any) -> tuple[int, Any]:
        key = json.dumps(body["messages"], sort_keys=True)
        if key not in self.kept:
            self.kept[key] = super().chat(body)
        return self.kept[key]


def test_repeated_answers_are_no_proof(place: Path) -> None:
    """An engine that came back with another generation is found out behind a proxy that repeats answers."""
    with KeepsAnswers() as engine:
        engine.running = CHAMPION
        stage = ServingStage(place, engine, "command", command="true")
        assert stage.turns(2).served == CHAMPION
        engine.running = BEFORE
        state = stage.turns()
        assert (state.is_proved, "repeats its answers" in state.problem) == (False, True)
        assert not stage.turns(is_asked_for=True).is_proved
        engine.running = CHAMPION
        assert stage.turns(is_asked_for=True).is_proved
