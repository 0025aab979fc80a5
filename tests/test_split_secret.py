"""Whoever writes into the buffer tries to choose what the verdict is measured on."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sleepd.buffer.experience import content_hash
from sleepd.cycles.running.planning import Order
from sleepd.errors import StateDirectoryUnusable
from sleepd.policy.selecting.holdout import ONE_IN, divide, keyed_rank, rank
from sleepd.protocol.job import TrainingExample, decode_examples, encode
from sleepd.store.split_secret import split_secret
from tests.agents import experiences, place_secret, write_buffer
from tests.stages import OpenSleeper, Stage


def groups(count: int, *, start: int = 0) -> list[int]:
    return [content_hash(one["prompt"], one["response"]) for one in experiences(count, start=start)]


def chosen_by_writer(count: int) -> list[int]:
    """Texts of which a writer, who knows the code, has tried so many that each would be held out by an unkeyed hash."""
    found: list[int] = []
    number = 0
    while len(found) < count:
        group = content_hash("What is rule one?", f"Rule one is {number}.")
        found += [group] if rank(group) % ONE_IN == 0 else []
        number += 1
    return found


def test_writer_cannot_choose_the_holdout() -> None:
    """Of texts that were picked by the public hash a fifth is held out, as of any others, under any secret."""
    picked = chosen_by_writer(400)
    for secret in (b"a" * 32, b"b" * 32, b"c" * 32):
        held = divide(picked, {}, secret)
        assert 50 <= len(held) <= 110
    assert divide(picked, {}, b"a" * 32) != divide(picked, {}, b"b" * 32)


def test_secret_is_made_once(tmp_path: Path) -> None:
    """Thirty-two random bytes for the owner alone; the same at every start, another in another directory."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = split_secret(tmp_path / "one")
    assert len(first) == 32
    assert split_secret(tmp_path / "one") == first != split_secret(tmp_path / "two")
    assert stat.S_IMODE((tmp_path / "one" / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_damaged_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    """A secret that is not what was written is named with the way out, and none is drawn in silence."""
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(StateDirectoryUnusable, match="secret") as caught:
        split_secret(tmp_path)
    assert " split that a cycle has " in caught.value.hint


def test_unwritten_secret_names_the_way_out(tmp_path: Path) -> None:
    """Where the disk takes no new secret, the file is named, and how to see the space."""
    with pytest.raises(StateDirectoryUnusable, match="absent/secret") as caught:
        split_secret(tmp_path / "absent")
    assert f"df -h {tmp_path / 'absent'}" in caught.value.hint


def splits(stage: Stage) -> dict[int, bool]:
    async def scene(sleeper: OpenSleeper) -> dict[int, bool]:
        await sleeper.refresh()
        return dict(sleeper.parts.history.known().splits)

    return stage.play(scene)


def write_long_replies(stage: Stage, count: int) -> None:
    """Of short ones a cycle releases some as soon as there are many."""
    rest = "Whoever comes next finds it written on the board by the door, and asks me where anything is unclear."
    long = [one | {"response": f"{one['response']} {rest}"} for one in experiences(count)]
    write_buffer(stage.buffer, long)


def test_recorded_sides_outlive_secret_and_ledger(tmp_path: Path) -> None:
    """With another secret, and with a ledger that was rebuilt, whatever a cycle recorded stays on its side."""
    stage = Stage(tmp_path)
    write_long_replies(stage, 12)
    stage.sleep()
    before = splits(stage)
    assert {True, False} == set(before.values())
    place_secret(stage.state, os.urandom(32))
    for file in stage.state.glob("state.db*"):
        file.unlink()
    assert splits(stage) == before
    stage.clock.advance(7 * 3600)
    write_long_replies(stage, 24)
    stage.sleep()
    after = splits(stage)
    assert {group: after[group] for group in before} == before


def test_no_secret_reaches_the_worker(tmp_path: Path) -> None:
    """The worker gets a rank for each experience; the secret stands in one file and nowhere else."""
    stage = Stage(tmp_path)
    stage.write(12)
    secret = (stage.state / "secret").read_bytes()

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        await sleeper.begin(Order())
        work = stage.state / "staging" / "cycle_001" / "work"
        examples = decode_examples((work / "experiences.jsonl").read_bytes())
        assert {one.rank for one in examples} <= {keyed_rank(group, secret) for group in groups(12)}
        found = [path.name for path in stage.state.rglob("*") if path.is_file() and secret in path.read_bytes()]
        sleeper.cancel()
        await sleeper.finished()
        return found

    assert stage.play(scene, behaviour="hang") == ["secret"]


def test_older_cycle_keeps_its_order() -> None:
    """A lesson that was staged without a rank is ordered as the version that staged it did."""
    older = [TrainingExample(id=f"e{n}", prompt="p", response="r", salience=0.5, role="holdout") for n in range(40)]
    decoded = decode_examples(b"".join(map(encode, older)))
    by_hash = sorted(older, key=lambda one: sha256(one.id.encode()).digest())
    assert [one.id for one in sorted(decoded, key=lambda one: one.order)] == [one.id for one in by_hash]
