"""Tests of held-out experiences that have judged and are learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sleepd.daemon.status_view import detail
from sleepd.policy.selecting.holdout import YOUNGER
from sleepd.sleepctl.offline_cycle import read_detail
from tests.agents import experiences, write_buffer
from tests.stages import OpenSleeper, Stage

AND_MORE = " The keeper wrote it down, and the boy from the pier read it aloud twice, for the wind was loud."


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Three nights of a hundred long replies each, the second of which is rejected."""
    stage = Stage(tmp_path)
    for night, behaviour in enumerate(("promote", "reject", "promote"), 1):
        write_buffer(stage.buffer, [one | {"response": one["response"] + AND_MORE} for one in experiences(100 * night)])
        stage.sleep(behaviour=behaviour)
        stage.clock.advance(7 * 3600)
    return stage


def lineage(stage: Stage, name: str) -> dict[str, Any]:
    return json.loads((stage.state / name / "lineage.json").read_text())


def ids(entries: list[dict[str, str]]) -> set[str]:
    return {entry["id"] for entry in entries}


def test_judges_are_trained_later(stage: Stage) -> None:
    """Of the first night's held-out experiences the second night trains the oldest, and twelve or more judge on."""
    first, second = lineage(stage, "cycle_001"), lineage(stage, "retired/cycle_002")
    assert second["released"]
    assert set(second["released"]) == ids(first["held_out"]) & ids(second["trained"])
    assert len(second["held_out"]) >= YOUNGER


def test_rejected_cycle_ends_judging(stage: Stage) -> None:
    """What a rejected cycle trained is trained again by the next one, and no cycle is ever measured on it."""
    second, third = lineage(stage, "retired/cycle_002"), lineage(stage, "cycle_003")
    assert set(second["released"]) <= ids(third["trained"])
    assert not ids(third["held_out"]) & (ids(second["trained"]) | ids(third["trained"]) | ids(third["replayed"]))


def test_released_are_shown(stage: Stage) -> None:
    """The daemon shows them, from its ledger, from a rebuilt one, and from a ledger that dropped the old rows."""
    released = set(lineage(stage, "cycle_003")["released"])

    async def shown(sleeper: OpenSleeper) -> set[str]:
        return set(detail(sleeper.reader, 3).released_ids)

    async def shown_of_old(sleeper: OpenSleeper) -> set[str]:
        sleeper.parts.ledger.database.execute("UPDATE cycles SET trained=1, replayed=1, held_out=1 WHERE cycle=3")
        sleeper.parts.ledger.database.execute("DELETE FROM placements WHERE role='holdout'")
        return set(detail(sleeper.reader, 3).released_ids)

    assert stage.play(shown) == released
    (stage.state / "state.db").unlink()
    assert stage.play(shown) == released
    assert stage.play(shown_of_old) == released


def test_released_are_read_from_disk(stage: Stage) -> None:
    """While the daemon is down, the report reads them from the checkpoint."""

    async def summary(sleeper: OpenSleeper) -> Any:
        return detail(sleeper.reader, 3).summary

    found = read_detail(stage.state, stage.play(summary))
    assert found.released_ids == lineage(stage, "cycle_003")["released"]
