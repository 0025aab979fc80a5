"""Replies that are rated down after they were trained: none is repeated, whether it is still in the buffer or not."""

from __future__ import annotations

import asyncio
import json
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sleepd.buffer.columns import BufferColumns
from sleepd.buffer.experience import Experience, id_hash
from sleepd.buffer.rating.rated_down import FILE_NAME, encode_rated_down, rated_down, read_rated_down
from sleepd.buffer.rating.rating_names import REJECTED, rating_key, rating_names
from sleepd.cycles.rated_down_keeper import RatedDownKeeper
from sleepd.daemon.trained_texts_view import learned as recollected
from sleepd.errors import CheckpointInvalid
from sleepd.protocol.answers import Learned
from tests.agents import experiences, write_buffer
from tests.stages import OpenSleeper, Stage

A, B = id_hash("a"), id_hash("b")


def columns(**saliences: float) -> BufferColumns:
    """A buffer of these."""
    keys = [id_hash(name) for name in saliences]
    return BufferColumns(
        keys=array("Q", keys),
        groups=array("Q", keys),
        saliences=array("d", saliences.values()),
        conversations=array("Q", keys),
        marked=array("B", bytes(len(keys))),
    )


@pytest.mark.parametrize(
    ("before", "buffer", "ratings", "after"),
    [
        ((), {"a": REJECTED}, {}, {A}),
        ((), {"x": REJECTED}, {}, set()),
        ((A,), {"a": 0.7}, {}, set()),
        ((A,), {}, {}, {A}),
        ((), {}, {"a": REJECTED}, {A}),
        ((), {}, {rating_key("c", 2): REJECTED}, {A}),
        ((), {}, {rating_key("c", 0): REJECTED}, {A}),
        ((), {}, {rating_key("c", 0): REJECTED, "a": 1.0}, set()),
        ((), {}, {rating_key("c", 3): REJECTED}, set()),
        ((A,), {}, {"a": 1.0}, set()),
        ((A,), {}, {"b": REJECTED}, {A, B}),
        ((), {"a": 0.7}, {"a": REJECTED}, set()),
    ],
)
def test_last_word_on_a_reply_counts(
    before: tuple[int, ...], buffer: dict[str, float], ratings: dict[str, float], after: set[int]
) -> None:
    """Of what the buffer holds its word counts, of what has left it the last rating; ``x`` was not learned."""
    kept = [
        Experience(id="a", prompt="p", response="r", salience=0.7, rated_as=rating_names("c", 2)),
        Experience(id="b", prompt="p", response="s", salience=0.7),
    ]
    found = rated_down(before, buffer=columns(**buffer), is_learned={A, B}.__contains__, kept=kept, ratings=ratings)
    assert found == after


def cycle(stage: Stage, number: int) -> dict[str, set[str]]:
    """The ids of a cycle by their role."""
    lineage = json.loads((stage.state / f"cycle_{number:03}/lineage.json").read_text())
    return {role: {one["id"] for one in lineage[role]} for role in ("trained", "replayed")}


def report(stage: Stage, number: int) -> Learned:
    """As the daemon answers for the report."""

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        return await recollected(sleeper.reader, number, limit=9)

    found: Learned = stage.play(scene)
    return found


def test_rated_down_reply_is_not_repeated(tmp_path: Path) -> None:
    """A reply that has left the buffer and is rated down then is named in the report, and no later cycle repeats it."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep()
    bad, *others = sorted(cycle(stage, 1)["trained"])
    write_buffer(stage.buffer, experiences(12, start=12))
    (tmp_path / "feedback.jsonl").write_text(json.dumps({"id": bad, "rating": -1}) + "\n")
    told = report(stage, 1)
    assert (told.rejected, bad in told.gone) == ([bad], True)
    (tmp_path / "feedback.jsonl").unlink()
    stage.clock.advance(7 * 3600)
    stage.sleep()
    assert cycle(stage, 2)["replayed"] == set(others)
    assert report(stage, 1).rejected == [bad]


@pytest.mark.parametrize(
    ("before", "buffer", "ratings", "after"),
    [
        (set(), {"a": 0.7}, {}, None),
        (set(), {"a": 0.7}, {"b": -1.0}, None),
        (set(), {"a": REJECTED}, {}, {A}),
        ({A}, {"a": 0.7}, {}, set()),
        ({A}, {"b": 0.7}, {}, {A}),
    ],
)
def test_record_follows_the_buffer(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    before: set[int],
    buffer: dict[str, float],
    ratings: dict[str, float],
    after: set[int] | None,
) -> None:
    """What the buffer rates down is written and logged, what it rates up is taken out; None: nothing is written."""
    path = tmp_path / FILE_NAME
    if before:
        path.write_bytes(encode_rated_down(before))
    keeper = RatedDownKeeper(tmp_path)
    view: Any = columns(**buffer)
    known = SimpleNamespace(learned={A})
    history: Any = SimpleNamespace(known=lambda: known, champion_directory=lambda: None)
    asyncio.run(keeper.follow(view, ratings, history))
    assert (read_rated_down(tmp_path) if path.exists() else None) == after
    assert keeper.keys == (after or set())
    is_told = "1 learned replies were rated down" in capsys.readouterr().out
    assert is_told == (after == {A} and not before)
    path.unlink(missing_ok=True)
    asyncio.run(keeper.follow(view, ratings, history))
    keeper.keys = frozenset()
    asyncio.run(keeper.follow(view, ratings, history))
    assert not path.exists(), "nothing is asked again about what is the same"


def test_damaged_record_stops_the_start(tmp_path: Path) -> None:
    """A record that cannot be read is an error with the next step: nobody would know what must not be repeated."""
    for text in ("{", '{"keys": ["x"]}', '{"keys": [""]}'):
        (tmp_path / FILE_NAME).write_text(text)
        with pytest.raises(CheckpointInvalid, match=r"rated_down\.json") as raised:
            read_rated_down(tmp_path)
        assert "mv" in raised.value.hint
