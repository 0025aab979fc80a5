"""Tests of the steps of a plan that need neither a daemon nor a buffer."""

from __future__ import annotations

import asyncio
from array import array
from pathlib import Path

import msgspec
import pytest

from sleepd.buffer.experience import Experience
from sleepd.config.strategies import find_strategy
from sleepd.cycles.running.planning import finished_lineup, job_for
from sleepd.cycles.running.runner import Lineup
from sleepd.protocol.evidence import RecallQuestion
from sleepd.protocol.job import Job
from sleepd.protocol.strategy import Strategy
from sleepd.store.checkpoints import Checkpoints, Manifest
from tests.agents import changed, config_for

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
