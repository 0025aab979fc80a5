"""Tests of the steps of a plan that need neither a daemon nor a buffer."""

from __future__ import annotations

import asyncio
import math
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from sleepd.buffer.experience import Experience, group_of, id_hash
from sleepd.config.strategies import find_strategy
from sleepd.cycles.running import planning
from sleepd.cycles.running.planning import Order, Taken, fetch, finished_lineup, job_for, select_for
from sleepd.cycles.running.runner import Lineup
from sleepd.errors import NothingToDo
from sleepd.policy.selecting.selection import HashSet, Known, Selection, SelectionRule
from sleepd.policy.timing.triggers import Thresholds
from sleepd.protocol.evidence import RecallQuestion
from sleepd.protocol.job import Job
from sleepd.protocol.strategy import Strategy
from sleepd.store.checkpoints import Checkpoints, Manifest
from tests.agents import changed, columns, config_for
from tests.test_conversation import replies, talk
from tests.test_facts import told

PARENT = Manifest(
    cycle=6,
    parent=None,
    verdict="promoted",
    reason="",
    base_fingerprint="0123",
    lora_shape="r16",
    strategy="consolidate",
    created_at="",
)


def planned(directory: Path, strategy: Strategy, parent: Manifest | None) -> Job:
    return asyncio.run(job_for(7, config_for(directory), strategy, Checkpoints(directory), parent))


@pytest.mark.parametrize(
    ("parent", "lineage", "share"),
    [(None, "continue", 1.0), (None, "retrain", 1.0), (PARENT, "continue", 0.25), (PARENT, "retrain", 1.0)],
)
def test_rate_is_lower_where_continued(tmp_path: Path, parent: Manifest | None, lineage: str, share: float) -> None:
    """Only what goes on from the champion's weights takes smaller steps; from the base the whole rate is taken."""
    strategy = msgspec.structs.replace(find_strategy("consolidate"), lineage=lineage, continued_rate_share=0.25)
    job = planned(tmp_path, strategy, parent)
    assert job.strategy.learning_rate == share * strategy.learning_rate
    named = ("0123", str(tmp_path / "cycle_006"), 6) if parent else ("", "", None)
    assert (job.expected_base, job.parent, job.parent_cycle) == named


def test_job_has_the_configuration(tmp_path: Path) -> None:
    """Every field that is configured comes from its key; the seed is another one in each cycle."""
    config = config_for(tmp_path)
    config = changed(
        config, "model", base="b", cache_directory="/cache", quantization="int8", system_prompt="You are a gull."
    )
    config = changed(config, "training", seed=100, thoughts="drop", reservoir=17)
    config = changed(config, "worker", device="cuda:1", threads=3, resume_point_minutes=7)
    config = changed(config, "evaluation", command=["/bin/judge"], seconds=77.0)
    config = changed(config, "promotion", confidence=0.8)
    strategy = find_strategy("consolidate")
    found = asyncio.run(job_for(7, config, strategy, Checkpoints(tmp_path), None))
    assert found == Job(
        cycle=7,
        base="b",
        models_directory=str(tmp_path / "models"),
        cache_directory="/cache",
        quantization="int8",
        staging=str(tmp_path / "staging" / "cycle_007"),
        system_prompt="You are a gull.",
        thoughts="drop",
        strategy=strategy,
        seed=107,
        evaluation_command=["/bin/judge"],
        evaluation_seconds=77.0,
        device=config.worker.torch_device,
        threads=3,
        reservoir=17,
        resume_point_seconds=420.0,
        confidence=0.8,
    )
    assert "cuda" in found.device


@pytest.mark.parametrize("handling", ["keep", "mask"])
def test_personal_data_are_masked_if_wanted(tmp_path: Path, handling: str) -> None:
    """Texts and questions are changed where that is configured, and nowhere else; each has its rank."""
    config = changed(config_for(tmp_path), "quarantine", personal_data=handling)
    told = [
        (Experience(id="a", prompt="Who?", response="anna.berg@example.org", salience=0.8), "train"),
        (Experience(id="b", prompt="Who else?", response="Nobody.", salience=0.8), "holdout"),
    ]
    job = planned(tmp_path, find_strategy("consolidate"), None)
    job = msgspec.structs.replace(job, questions=[RecallQuestion(question="bob.kidd@example.org?", expected=["Bob"])])
    lineup = Lineup(job=job, parent=None, is_forced=False, experiences=told, seen=array("Q"))
    found = asyncio.run(finished_lineup(lineup, config, b"secret"))
    texts = [one.response for one, _ in found.experiences] + [each.question for each in found.job.questions]
    assert ["example.org" in text for text in texts] == [handling == "keep", False, handling == "keep"]
    assert found.job.masked.startswith("personal data masked in 1 of 2 experiences" if handling == "mask" else "")
    assert bool(found.job.masked) == (handling == "mask")
    assert set(found.ranks) == {"a", "b"}


@pytest.mark.parametrize(
    ("parent", "lineage", "order", "share", "most", "least_salience"),
    [
        (PARENT, "continue", Order(), 0.3, 200, 0.5),
        (PARENT, "retrain", Order(max_experiences=7), math.inf, 7, 0.5),
        (None, "continue", Order(thresholds=Thresholds(min_salience=0.9)), 0.3, 200, 0.9),
    ],
)
def test_selection_has_order_and_strategy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parent: Manifest | None,
    lineage: str,
    order: Order,
    share: float,
    most: int,
    least_salience: float,
) -> None:
    """A retrained lineage replays all; an order goes before the configuration; a new lineage has learned nothing."""
    config = changed(config_for(tmp_path), "training", max_experiences=200, max_holdout=5, min_salience=0.5, seed=100)
    strategy = msgspec.structs.replace(find_strategy("consolidate"), lineage=lineage, replay_share=0.3, min_replayed=2)
    job = asyncio.run(job_for(7, config, strategy, Checkpoints(tmp_path), parent))
    asked: list[Any] = []

    async def excluded(_view: object, known: Known, min_salience: float) -> str:
        asked.append((list(known.learned), min_salience))
        return "excluded"

    intake: Any = SimpleNamespace(quarantine=SimpleNamespace(excluded=excluded))
    known = Known(seen=HashSet(), learned=HashSet([1]), splits={}, secret=b"")
    monkeypatch.setattr(planning, "select", lambda *given, **more: (given, more))
    view: Any = columns([1, 2])
    found: Any = asyncio.run(select_for(order, config, job, Taken(view, known, {}), intake))
    learned = [1] if parent else []
    assert asked == [(learned, least_salience)]
    more = found[1]
    assert (list(more["known"].learned), more["excluded"]) == (learned, "excluded")
    assert more["rule"] == SelectionRule(
        min_salience=least_salience, max_experiences=most, max_holdout=5, replay_share=share, min_replayed=2, seed=107
    )


def fetched(directory: Path, train: list[Experience], holdout: list[Experience], *, foreign: str = "") -> Lineup:
    """What a cycle takes of these, where the buffer holds nothing else."""
    texts = [*holdout, *train]
    keys, groups = [id_hash(one.id) for one in texts], [group_of(one) for one in texts]
    selection = Selection(train=keys[len(holdout) :], replay=[], holdout=keys[: len(holdout)])
    known = Known(seen=HashSet(), learned=HashSet(), splits={}, secret=bytes(32))

    async def extract(wanted: Any, *, answers_of: Any) -> Any:
        return [one for one in texts if id_hash(one.id) in wanted], set()

    buffer: Any = SimpleNamespace(extract_with_answers=extract)
    view: Any = columns(keys, groups=groups)
    job = msgspec.structs.replace(planned(directory, find_strategy("consolidate"), None), foreign=foreign)
    return asyncio.run(fetch(selection, job, Taken(view, known, {}), buffer, is_forced=False))


@pytest.mark.parametrize(("foreign", "held_out"), [("", 5), ("bundle", 30)])
def test_trial_is_measured_on_all_facts(tmp_path: Path, foreign: str, held_out: int) -> None:
    """Of many short facts a cycle of one's own releases most for training; one that trains nothing is judged by all."""
    texts = [one for one, _ in told(30, 10)]
    lineup = fetched(tmp_path, texts[30:], texts[:30], foreign=foreign)
    assert len(lineup.experiences) == 40
    assert sum(role == "holdout" for _, role in lineup.experiences) == held_out


def test_held_out_reply_is_no_context(tmp_path: Path) -> None:
    """A reply that this cycle holds out is cut out of the contexts that it trains, and a trained one is not."""
    windows = [talk("u: a", "a: A", "u: b", "a: B", "u: c", "a: C", is_whole=False), talk("u: b", "a: B")]
    trained, judge = (replies(one)[-1].experience(0.7) for one in windows)
    lineup = fetched(tmp_path, [trained], [judge])
    kept = {role: [message.text for message in one.context] for one, role in lineup.experiences}
    assert kept == {"holdout": [], "train": ["c"]}
    other = replies(talk("u: z", "a: Z"))[0].experience(0.7)
    whole = fetched(tmp_path, [trained, judge], [other]).experiences
    assert max(len(one.context) for one, _ in whole) == len(trained.context)


def test_nothing_left_to_train_or_judge(tmp_path: Path) -> None:
    """A cycle without anything to train does not begin, and a trial without anything that is held out."""
    (one, _), (other, _) = told(1, 1)
    for foreign, train, holdout in (("", [], [one]), ("bundle", [one], [])):
        with pytest.raises(NothingToDo, match="have just left the buffer"):
            fetched(tmp_path, train, holdout, foreign=foreign)
    assert len(fetched(tmp_path, [], [one], foreign="bundle").experiences) == 1
    assert len(fetched(tmp_path, [one], [other]).experiences) == 2
