"""Tests of the checkpoints on disk: whole or absent, at every point where it can break off."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from sleepd.errors import CheckpointInvalid, NotFound, StateDirectoryUnusable
from sleepd.files import fsync_path, hashed
from sleepd.store import checkpoints
from sleepd.store.checkpoints import Checkpoints, Manifest, read_manifest, verify, verify_usable

POINTS = ["staged", "documents-written", "manifest-written", "committed", "promoted"]


class Broken(Exception):
    """Stands for a power cut."""


def manifest(cycle: int, parent: int | None = None) -> Manifest:
    return Manifest(
        cycle=cycle,
        parent=parent,
        verdict="promoted",
        reason="better",
        base_fingerprint="b",
        lora_shape="r16:all-linear",
        strategy="consolidate",
        created_at="2026-01-10T06:00:00+00:00",
    )


def make(store: Checkpoints, cycle: int, *, promoted: bool = True) -> Path:
    stage = store.stage(cycle)
    (stage / "work" / "job.json").write_text("{}")
    (stage / "adapter_model.safetensors").write_bytes(b"weights %d" % cycle)
    (stage / "adapter_config.json").write_bytes(b"{}")
    path = store.commit(manifest(cycle), {"lineage.json": b"{}"}, promoted=promoted)
    if promoted:
        store.promote(cycle)
    return path


def test_promoted_cycle_is_whole_and_used(tmp_path: Path) -> None:
    """After commit and promote the link leads to a directory that equals its manifest, and the job is gone."""
    store = Checkpoints(tmp_path)
    path = make(store, 7)
    assert store.champion() == 7
    assert os.readlink(tmp_path / "current") == "cycle_007"
    assert set(verify(path).files) == {"adapter_model.safetensors", "adapter_config.json", "lineage.json"}
    assert not (path / "work").exists()
    assert list((tmp_path / "staging").iterdir()) == []


def test_rejected_cycle_is_only_retired(tmp_path: Path) -> None:
    """Older tools that load the newest cycle_NNN never meet a rejected candidate."""
    store = Checkpoints(tmp_path)
    make(store, 1)
    path = make(store, 2, promoted=False)
    assert path == tmp_path / "retired" / "cycle_002"
    assert store.champion() == 1
    assert [entry.name for entry in tmp_path.glob("cycle_*")] == ["cycle_001"]


@pytest.mark.parametrize("point", POINTS)
def test_interruption_leaves_champion_whole(tmp_path: Path, point: str) -> None:
    """Wherever a commit breaks off, the store opens whole: the old champion or the new one, nothing in between."""
    make(Checkpoints(tmp_path), 1)

    def trace(passed: str) -> None:
        if passed == point:
            raise Broken

    with pytest.raises(Broken):
        make(Checkpoints(tmp_path, trace=trace), 2)
    store = Checkpoints(tmp_path)
    store.sweep()
    champion = store.champion()
    assert champion == (2 if point == "promoted" else 1)
    assert verify(store.promoted_path(champion)).cycle == champion
    if store.find(2):
        verify(store.promoted_path(2))
    assert list((tmp_path / "staging").iterdir()) == []


def test_stage_is_fresh(tmp_path: Path) -> None:
    """Nothing of an earlier attempt at a cycle is left in its staging directory."""
    store = Checkpoints(tmp_path)
    (store.stage(1) / "half.safetensors").write_bytes(b"half")
    assert [entry.name for entry in store.stage(1).iterdir()] == ["work"]


def test_disk_has_each_step_before_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and their directory are synced before the rename, both directories after it, and a removed link, too."""
    steps: list[str] = []

    def sync(path: Path) -> None:
        steps.append(str(path.relative_to(tmp_path)))
        fsync_path(path)

    monkeypatch.setattr(checkpoints, "fsync_path", sync)
    store = Checkpoints(tmp_path, trace=steps.append)
    make(store, 1)
    store.promote(None)
    stage = "staging/cycle_001"
    files = [f"{stage}/{name}" for name in ("adapter_config.json", "adapter_model.safetensors", "lineage.json")]
    expected = ["staged", "documents-written", *files, stage, "manifest-written", ".", "staging", "committed"]
    assert steps == [*expected, "promoted", ".", "promoted"]


def test_report_without_adapter_is_no_checkpoint(tmp_path: Path) -> None:
    """A worker that says it is done and left no weights cannot make a champion."""
    store = Checkpoints(tmp_path)
    store.stage(1)
    with pytest.raises(CheckpointInvalid, match=r"left no adapter_model\.safetensors"):
        store.commit(manifest(1), {}, promoted=True)
    assert store.find(1) is None


def test_cycle_number_is_never_reused(tmp_path: Path) -> None:
    """The highest number counts promoted, retired and staged cycles, and sorts by number."""
    store = Checkpoints(tmp_path)
    assert store.highest_number() == 0
    make(store, 9)
    make(store, 10, promoted=False)
    store.stage(1001)
    (tmp_path / "cycle_old").mkdir()
    assert store.highest_number() == 1001


def test_retire_and_restore_undo_each_other(tmp_path: Path) -> None:
    """A crash between two moves is mended by doing them again."""
    store = Checkpoints(tmp_path)
    make(store, 3)
    for _ in range(2):
        store.retire(3)
        assert store.find(3) == tmp_path / "retired" / "cycle_003"
    for _ in range(2):
        store.restore(3)
        assert store.find(3) == tmp_path / "cycle_003"
    with pytest.raises(NotFound) as refused:
        store.restore(4)
    assert "sleepctl history" in refused.value.hint


def test_missing_link_means_the_base(tmp_path: Path) -> None:
    """Promoting nothing removes the link, and may be repeated."""
    store = Checkpoints(tmp_path)
    make(store, 1)
    for _ in range(2):
        store.promote(None)
        assert store.champion() is None


@pytest.mark.parametrize("target", ["cycle_099", "/etc", "../cycle_001", "retired/cycle_001", "nonsense"])
def test_link_elsewhere_is_refused(tmp_path: Path, target: str) -> None:
    """The champion is a committed cycle of this directory or nothing."""
    store = Checkpoints(tmp_path)
    (tmp_path / "current").symlink_to(target)
    with pytest.raises(CheckpointInvalid, match="no checkpoint"):
        store.champion()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest", "newer", "outside", "edited", "number"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    """A checkpoint that is not what was committed is refused, and the error names the file."""
    path = make(Checkpoints(tmp_path), 1)
    weights, written = path / "adapter_model.safetensors", path / "manifest.json"
    said = read_manifest(path)
    match damage:
        case "truncate":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "flip":
            weights.write_bytes(b"W" + weights.read_bytes()[1:])
        case "remove":
            weights.unlink()
        case "manifest":
            written.write_bytes(written.read_bytes()[:-20])
        case "newer":
            written.write_bytes(msgspec.json.encode(msgspec.structs.replace(said, version=2)))
        case "outside":
            record = said.files["lineage.json"]
            written.write_bytes(msgspec.structs.replace(said, files={"../x": record}).encoded())
        case "edited":
            written.write_bytes(msgspec.json.encode(msgspec.structs.replace(said, reason="much better")))
        case "number":
            written.write_bytes(msgspec.structs.replace(said, cycle=2).encoded())
    with pytest.raises(CheckpointInvalid, match="cycle_001") as refused:
        verify(path)
    assert refused.value.hint


def test_grown_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that was put in place of a smaller one no more is read than the manifest says."""
    path = make(Checkpoints(tmp_path), 1)
    limits: list[int] = []

    def counted(path: Path, *, most: int | None) -> tuple[str, int]:
        limits.append(most or 0)
        return hashed(path, most=most)

    monkeypatch.setattr(checkpoints, "hashed", counted)
    files = verify(path).files.values()
    assert sorted(limits) == sorted(record.bytes for record in files)


def test_pruned_checkpoint_is_whole_without_weights(tmp_path: Path) -> None:
    """It passes the check of its files and not that of its use; pruning it again changes nothing."""
    store = Checkpoints(tmp_path)
    path = make(store, 1)
    for _ in range(2):
        store.prune(path)
        assert set(verify(path).files) == {"adapter_config.json", "lineage.json"}
        with pytest.raises(CheckpointInvalid, match="its weights were pruned"):
            verify_usable(path)


def test_only_numbered_records_are_adopted(tmp_path: Path) -> None:
    """Another file beside the records of an older trainer's cycles is none."""
    (tmp_path / "adopted").mkdir()
    for name in ("cycle_012", "cycle_003", "cycle_old"):
        (tmp_path / "adopted" / f"{name}.json").write_text("{}")
    assert Checkpoints(tmp_path).adopted() == [3, 12]


def test_sweep_removes_temporary_files_only(tmp_path: Path) -> None:
    """Staging leftovers and temporary files go; what was committed stays."""
    store = Checkpoints(tmp_path)
    make(store, 2)
    store.stage(1)
    (tmp_path / ".status.json.77.tmp").write_text("half")
    assert store.sweep() == ["cycle_001"]
    assert verify(store.promoted_path(2)).cycle == 2
    assert not list(tmp_path.glob(".*.tmp"))


def test_impossible_state_directory_is_named(tmp_path: Path) -> None:
    """The error says which directory and what to set."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirectoryUnusable, match="file") as caught:
        Checkpoints(tmp_path / "file")
    assert "[state] directory" in caught.value.hint
