"""Tests of a state directory that 0.1.0 made before an experience could be a conversation: it goes on."""

from __future__ import annotations

import hashlib
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sleepd.cycles.running.planning import Order
from sleepd.daemon.quarantine_view import quarantine_list
from sleepd.daemon.status_view import cycles, detail
from sleepd.store.checkpoints import verify
from sleepd.store.reservoir import read_reservoir
from tests.agents import experiences, write_buffer
from tests.fakes import FakeClock
from tests.stages import OpenSleeper, Stage

OLDER = Path(__file__).with_name("data") / "state_0_1_0"
"""See its README for how it was made."""
EXPECTED: dict[str, Any] = json.loads((OLDER / "expected.json").read_text())
"""What that version said of it."""
ASKED = {"role": "user", "content": "How high is the water at Oban?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "tide", "arguments": '{"place":"Oban"}'}}
TALK = [
    {"role": "system", "content": "You keep the harbour."},
    ASKED,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "3 m"},
    {"role": "assistant", "content": "Three metres."},
]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """That state directory and its buffer, as they were left."""
    with tarfile.open(OLDER / "state.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    stage = Stage(tmp_path)
    stage.clock = FakeClock(datetime(2026, 1, 11, 18, 0, tzinfo=UTC))
    return stage


def hashes(directory: Path) -> dict[str, str]:
    """Every file of the checkpoints, by its path."""
    files = sorted(path for path in directory.glob("**/cycle_00[1-4]/*") if "current" not in path.parts)
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def texts(numbers: Any) -> list[str]:
    return [f"{number:016x}" for number in numbers]


async def answers(sleeper: OpenSleeper) -> dict[str, Any]:
    """What ``expected.json`` has, as it is said today."""
    await sleeper.refresh()
    parts, view = sleeper.parts, sleeper.parts.intake.view
    numbers = [each.cycle for each in cycles(sleeper.reader, limit=50)]
    splits = parts.history.known().splits
    places = {number: parts.ledger.assignments(number) for number in numbers}
    listed = await quarantine_list(sleeper.reader, limit=100)
    return {
        "keys": texts(view.keys),
        "groups": texts(view.groups),
        "saliences": list(view.saliences),
        "held_out": sorted(texts(group for group, is_held_out in splits.items() if is_held_out)),
        "trained": sorted(texts(group for group, is_held_out in splits.items() if not is_held_out)),
        "cycles": {str(each.cycle): each.state for each in cycles(sleeper.reader, limit=50)},
        "champion": parts.checkpoints.champion(),
        "assignments": {
            str(number): sorted([place.id, f"{place.group:016x}", place.role] for place in placed)
            for number, placed in places.items()
        },
        "seen": {str(number): sorted(texts(parts.ledger.seen(number))) for number in numbers},
        "quarantine": sorted([each.id, each.state, each.reason] for each in listed.entries),
        "reservoir": [
            [each.id, each.prompt, each.response, each.salience]
            for each in read_reservoir(Path(parts.checkpoints.promoted_path(4)))
        ],
    }


def test_older_state_says_the_same(stage: Stage) -> None:
    """Ids, splits, ledger, quarantine and reservoir are what that version said, and no checkpoint is written to."""
    before = hashes(stage.state)
    assert stage.play(answers) == EXPECTED
    assert hashes(stage.state) == before
    assert [verify(path).cycle for path in sorted(stage.state.glob("cycle_*"))] == [1, 2, 4]
    assert (stage.state / "state.db.schema-4").exists()
    assert stage.play(answers) == EXPECTED


async def reports(sleeper: OpenSleeper) -> list[str]:
    await sleeper.refresh()
    return [str(detail(sleeper.reader, number).summary.state) for number in (1, 2, 3, 4, 5)]


def test_older_state_sleeps_again(stage: Stage) -> None:
    """The next cycle trains what is new, conversations too, replays what was trained, and measures on what was not."""
    records = [*json.loads(stage.buffer.read_text()), *experiences(8, start=60)]
    write_buffer(stage.buffer, [*records, {"messages": TALK, "conversation": "c1"}])
    done = stage.sleep()
    assert (done.cycle, done.state) == (5, "promoted")
    said = stage.play(answers)
    assert {each: said["assignments"][each] for each in "1234"} == EXPECTED["assignments"]
    placed = [(id_, group, role) for each in "1234" for id_, group, role in EXPECTED["assignments"][each]]
    trained = {group for _, group, role in placed if role != "holdout"}
    now = said["assignments"]["5"]
    assert {group for _, group, role in now if role == "replay"} <= trained
    assert {group for _, group, role in now if role == "holdout"}.isdisjoint(trained)
    own = {id_ for id_, _, _ in placed} | {each["id"] for each in records[38:]}
    assert len([id_ for id_, _, _ in now if id_ not in own]) == 2
    kept = {each.id for each in read_reservoir(stage.state / "current")}
    assert kept >= {id_ for id_, _, _, _ in EXPECTED["reservoir"]}
    assert stage.play(reports) == ["promoted", "promoted", "rejected", "promoted", "promoted"]


def test_older_champion_is_put_back(stage: Stage) -> None:
    """After a cycle of today a rollback puts the older checkpoint in use, whole."""
    stage.write(60)
    stage.sleep(Order(force=True))

    async def scene(sleeper: OpenSleeper) -> int | None:
        return sleeper.rollback(None)[0]

    assert stage.play(scene) == 4
    assert verify(stage.state / "cycle_004").cycle == 4
