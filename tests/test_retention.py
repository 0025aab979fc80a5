"""Tests of which checkpoints keep their weights, and of taking them away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sleepd.daemon.status_view import cycles, overview
from sleepd.errors import CheckpointInvalid, NotFound
from sleepd.policy.retention import Keep, Stored, to_prune
from sleepd.store.checkpoints import Checkpoints, has_weights, read_manifest, verify
from tests.agents import changed
from tests.older_trainer import write_older_cycle
from tests.stages import OpenSleeper, Stage, refresh


def stored(*cycles: int, kind: str = "promoted", tagged: tuple[int, ...] = ()) -> list[Stored]:
    return [Stored(cycle=cycle, kind=kind, is_tagged=cycle in tagged) for cycle in cycles]


KEEP = Keep(promoted=2, rejected=1)

CASES = [
    ("nothing is stored", [], 9, 8, []),
    ("few are all kept", stored(1, 2), 2, 1, []),
    ("the oldest go first", stored(1, 2, 3, 4), 4, 3, [1, 2]),
    ("the champion stays however old it is", stored(1, 2, 3, 4), 1, None, [2]),
    ("and the one before it", stored(1, 2, 3, 4, 5), 3, 2, [1]),
    ("a tagged one stays", stored(1, 2, 3, 4, tagged=(1,)), 4, 3, [2]),
    ("a tagged one counts among the newest", stored(1, 2, 3, tagged=(3,)), 3, 2, [1]),
    ("rejected ones have a number of their own", stored(5, 6, 7, kind="rejected") + stored(1, 2), 2, 1, [5, 6]),
    ("with the base in use all old ones may go", stored(1, 2, 3), None, None, [1]),
]


@pytest.mark.parametrize(
    ("there", "champion", "predecessor", "gone"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_retention_rules_hold(
    there: list[Stored], champion: int | None, predecessor: int | None, gone: list[int]
) -> None:
    """Newest N of each kind, the champion, its predecessor, and what is tagged keep their weights."""
    in_use = {cycle for cycle in (champion, predecessor) if cycle is not None}
    found = to_prune(there, KEEP, in_use=in_use)
    assert [cycle for cycle, _ in found] == gone


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Keeps one promoted and no rejected checkpoint beside those that always stay."""
    stage = Stage(tmp_path)
    stage.config = changed(stage.config, "state", keep_promoted=1, keep_rejected=0)
    return stage


def sleep_often(stage: Stage, *behaviours: str) -> None:
    for number, behaviour in enumerate(behaviours, start=1):
        stage.write(12 * number)
        stage.sleep(behaviour=behaviour)
        stage.clock.advance(7 * 3600)


def with_weights(stage: Stage) -> list[int]:
    found = [*stage.state.glob("cycle_*"), *stage.state.glob("retired/cycle_*")]
    return sorted(int(path.name[6:]) for path in found if has_weights(path))


async def shown(sleeper: OpenSleeper) -> dict[int, tuple[str, bool]]:
    return {each.cycle: (each.tag, each.is_pruned) for each in cycles(sleeper.reader, limit=50)}


def test_unkept_weights_go_after_cycle(stage: Stage) -> None:
    """Of four promoted and one rejected cycle the champion and the one before it are left, and all documents."""
    sleep_often(stage, "promote", "promote", "reject", "promote", "promote")
    assert with_weights(stage) == [4, 5]
    assert stage.play(shown) == {5: ("", False), 4: ("", False), 3: ("", True), 2: ("", True), 1: ("", True)}
    for path in (stage.state / "cycle_001", stage.state / "retired/cycle_003"):
        assert verify(path).cycle
        assert {file.name for file in path.iterdir()} >= {"lineage.json", "evaluation.json", "manifest.json"}


def test_lost_ledger_returns_from_pruned(stage: Stage) -> None:
    """What was learned and held out is the same, and so is the history."""
    sleep_often(stage, "promote", "promote", "promote", "promote")

    async def answers(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        return cycles(sleeper.reader, limit=50), sleeper.parts.history.known().splits, sleeper.parts.intake.counts

    before = stage.play(answers)
    (stage.state / "state.db").unlink()
    assert stage.play(answers) == before


def test_tag_keeps_weights_without_ledger(stage: Stage) -> None:
    """Tagged, a rejected cycle stays; the tag taken away, it goes after the next cycle."""
    stage.config = changed(stage.config, "state", keep_rejected=1)
    sleep_often(stage, "promote", "reject")

    async def tag(sleeper: OpenSleeper, name: str | None) -> str | None:
        return sleeper.parts.keeping.tag(2, name)

    assert stage.play(lambda sleeper: tag(sleeper, "worth a look")) is None
    (stage.state / "state.db").unlink()
    stage.config = changed(stage.config, "state", keep_rejected=0)
    stage.write(36)
    stage.sleep()
    assert 2 in with_weights(stage)
    assert stage.play(shown)[2] == ("worth a look", False)
    assert stage.play(lambda sleeper: tag(sleeper, None)) == "worth a look"
    stage.clock.advance(7 * 3600)
    stage.write(48)
    stage.sleep()
    assert 2 not in with_weights(stage)


def test_absent_cycle_cannot_be_tagged(stage: Stage) -> None:
    """Neither a cycle that left nothing, nor a tag that was never given."""
    sleep_often(stage, "fail")

    async def tag(sleeper: OpenSleeper, cycle: int, name: str | None) -> None:
        sleeper.parts.keeping.tag(cycle, name)

    with pytest.raises(NotFound, match="nothing was kept of cycle 1"):
        stage.play(lambda sleeper: tag(sleeper, 1, "x"))
    with pytest.raises(NotFound, match="has no tag"):
        stage.play(lambda sleeper: tag(sleeper, 1, None))


def test_damaged_tags_stop_pruning_only(stage: Stage) -> None:
    """While nobody knows what is tagged nothing is removed; status and cycles go on."""
    sleep_often(stage, "promote", "promote")
    (stage.state / "tags.json").write_text('{"1": ')
    stage.write(36)
    assert stage.sleep().state == "promoted"
    assert with_weights(stage) == [1, 2, 3]

    async def prune(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        assert overview(sleeper.reader, next_check_at=None, config_path="").recent_cycles
        return sleeper.parts.keeping.prune(Keep(promoted=1, rejected=0))

    with pytest.raises(CheckpointInvalid, match=r"tags\.json: not understood"):
        stage.play(prune)


def test_a_dry_run_removes_nothing(stage: Stage) -> None:
    """It names what would go, and how much that is."""
    stage.config = changed(stage.config, "state", keep_promoted=9)
    sleep_often(stage, "promote", "promote", "promote", "promote")

    async def prune(sleeper: OpenSleeper) -> Any:
        return sleeper.parts.keeping.prune(Keep(promoted=1, rejected=0), is_dry_run=True)

    result = stage.play(prune)
    assert [(each.cycle, each.bytes > 0) for each in result] == [(1, True), (2, True)]
    assert with_weights(stage) == [1, 2, 3, 4]


def test_pruned_cycle_is_no_champion(stage: Stage) -> None:
    """Rolling back to it is refused in words, rolling back by one passes over it, recovery does not fall back to it."""
    sleep_often(stage, "promote", "promote", "promote")

    async def back(sleeper: OpenSleeper, to: int | None) -> Any:
        return sleeper.rollback(to)

    with pytest.raises(NotFound, match="cycle 1 were pruned"):
        stage.play(lambda sleeper: back(sleeper, 1))
    assert stage.play(lambda sleeper: back(sleeper, None)) == (2, 3)
    assert stage.play(lambda sleeper: back(sleeper, None)) == (None, 2)
    stage.play(lambda sleeper: back(sleeper, 2))
    (stage.state / "cycle_002/adapter_model.safetensors").write_bytes(b"damaged")

    async def champion(sleeper: OpenSleeper) -> int | None:
        return sleeper.parts.checkpoints.champion()

    assert stage.play(champion) is None


def test_crash_before_weights_damages_nothing(stage: Stage) -> None:
    """A checkpoint with a file too many verifies, and the next pruning finishes it."""
    stage.config = changed(stage.config, "state", keep_promoted=9)
    sleep_often(stage, "promote", "promote", "promote")
    path = stage.state / "cycle_001"
    manifest = read_manifest(path)
    del manifest.files["adapter_model.safetensors"]
    (path / "manifest.json").write_bytes(manifest.encoded())
    assert verify(path).cycle == 1
    stage.config = changed(stage.config, "state", keep_promoted=1)
    stage.write(60)
    stage.sleep()
    assert not has_weights(path)


def test_older_folder_is_never_pruned(stage: Stage) -> None:
    """Adopted weights are not ours to remove."""
    write_older_cycle(stage.state, 3)
    stage.write(12)
    stage.play(refresh)
    for count in (24, 36, 48, 60):
        stage.clock.advance(7 * 3600)
        stage.write(count)
        stage.sleep()
    assert with_weights(stage) == [3, 6, 7]
    assert read_manifest(stage.state / "cycle_003").files


def test_pruning_twice_is_pruning_once(stage: Stage) -> None:
    """Nothing happens the second time."""
    sleep_often(stage, "promote", "promote", "promote")
    checkpoints = Checkpoints(stage.state)
    before = (stage.state / "cycle_001/manifest.json").read_text()
    checkpoints.prune(stage.state / "cycle_001")
    assert (stage.state / "cycle_001/manifest.json").read_text() == before
