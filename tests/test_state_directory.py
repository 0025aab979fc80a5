"""A state directory in which links, other users' files and wide permissions wait for the daemon."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import structlog

from sleepd.errors import StateDirectoryUnusable
from sleepd.files import replace_file, replace_link, write_durably
from sleepd.store.checkpoints import Checkpoints, Manifest
from sleepd.store.state_directory import DIRECTORIES, _close, prepare
from sleepd.store.state_lock import StateLock
from tests.stages import Stage, refresh

FILES = (
    *("lock", "state.db", "state.db-wal", "state.db.building", "status.json", "history.json", "scheduler_state.json"),
    *("quarantine.json", "rated_down.json", "tags.json", "metrics.json", ".status.json.7.tmp", "secret"),
)
WORLD = stat.S_IRWXO


def modes(directory: Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): stat.S_IMODE(path.lstat().st_mode) for path in directory.rglob("*")}


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory of the owner's, with a file in a directory."""
    (tmp_path / "big" / "photos").mkdir(parents=True)
    (tmp_path / "big" / "photos" / "one").write_text("x")
    (tmp_path / "big" / "letter").write_text("x")
    return tmp_path / "big"


@pytest.mark.parametrize("name", [*DIRECTORIES[1:], *FILES])
def test_link_in_state_directory_is_refused(tmp_path: Path, precious: Path, name: str) -> None:
    """A link in the place of any of our names is refused by name, and nothing is touched behind it."""
    stage = Stage(tmp_path)
    stage.write(6)
    stage.state.mkdir(exist_ok=True)
    (stage.state / name).unlink(missing_ok=True)
    (stage.state / name).symlink_to(precious if name in DIRECTORIES else precious / "letter")
    with pytest.raises(StateDirectoryUnusable, match="a link") as caught:
        stage.play(refresh)
    assert name in caught.value.message
    assert "nothing was read or removed" in caught.value.message
    left = {str(path.relative_to(precious)): path.read_text() for path in precious.rglob("*") if path.is_file()}
    assert left == {"letter": "x", "photos/one": "x"}


def test_linked_staging_is_not_swept(tmp_path: Path, precious: Path) -> None:
    """A link in the place of staging gives way to a directory, is named, and nothing is removed behind it."""
    stage = Stage(tmp_path)
    stage.state.mkdir(exist_ok=True)
    (stage.state / "staging").symlink_to(precious)
    with structlog.testing.capture_logs() as events:
        stage.make_champions(12)
    assert [event["event"] for event in events].count("staging_link_set_aside") == 1
    assert (stage.state / "staging.link").resolve() == precious
    assert {path.name for path in precious.rglob("*")} == {"letter", "photos", "one"}


def test_half_made_link_is_removed(tmp_path: Path, precious: Path) -> None:
    """What a loss of power left of a new ``current`` is removed at the next start, and what it points to stays."""
    stage = Stage(tmp_path)
    stage.write(6)
    (stage.state / ".current.7.tmp").symlink_to(precious)
    stage.play(refresh)
    assert not (stage.state / ".current.7.tmp").is_symlink()
    assert {path.name for path in precious.rglob("*")} == {"letter", "photos", "one"}


@pytest.mark.parametrize("name", ["lock", "state.db", "status.json"])
def test_other_file_kind_is_refused(tmp_path: Path, name: str) -> None:
    """A pipe in a file's place is neither waited for nor replaced."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(StateDirectoryUnusable, match="something else"):
        StateLock(tmp_path, socket="")


def test_large_file_is_no_lock(tmp_path: Path) -> None:
    """What is larger than a lock is not emptied, whatever name leads to it."""
    (tmp_path / "thesis").write_text("x" * 5000)
    (tmp_path / "state").mkdir()
    os.link(tmp_path / "thesis", tmp_path / "state" / "lock")
    with pytest.raises(StateDirectoryUnusable, match="as small as a lock"):
        StateLock(tmp_path / "state", socket="")
    assert (tmp_path / "thesis").stat().st_size == 5000


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a file away")
def test_other_users_directory_is_refused(tmp_path: Path) -> None:
    """A staging directory that a third user made is not swept."""
    (tmp_path / "staging").mkdir()
    os.chown(tmp_path / "staging", 4242, 4242)
    with pytest.raises(StateDirectoryUnusable, match="found one of user 4242"):
        prepare(tmp_path)


@pytest.mark.parametrize("write", [write_durably, replace_file])
def test_guessed_temporary_name_is_not_followed(tmp_path: Path, precious: Path, write: Any) -> None:
    """A link that waits under the name of a temporary file, or of the file itself, is replaced and not written to."""
    for name in ("status.json", f".status.json.{os.getpid()}.tmp"):
        (tmp_path / name).symlink_to(precious / "letter")
    write(tmp_path / "status.json", b"new")
    assert (tmp_path / "status.json").read_bytes() == b"new"
    assert (precious / "letter").read_text() == "x"


def test_linked_checkpoint_is_none(tmp_path: Path, precious: Path) -> None:
    """A link that is called like a cycle is no checkpoint: nothing behind it is pruned, restored or put in use."""
    checkpoints = Checkpoints(tmp_path / "state")
    (precious / "adapter_model.safetensors").write_text("weights")
    (tmp_path / "state" / "cycle_007").symlink_to(precious)
    (tmp_path / "state" / "retired" / "cycle_008").symlink_to(precious)
    assert [checkpoints.find(cycle) for cycle in (7, 8)] == [None, None]
    checkpoints.retire(7)
    replace_link(tmp_path / "state" / "current", "cycle_007")
    with pytest.raises(Exception, match="no checkpoint here"):
        checkpoints.champion()
    assert (precious / "adapter_model.safetensors").read_text() == "weights"


def test_link_in_staging_is_not_committed(tmp_path: Path, precious: Path) -> None:
    """A worker's link in the place of an adapter is not followed into a checkpoint."""
    checkpoints = Checkpoints(tmp_path / "state")
    stage = checkpoints.stage(1)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (stage / name).symlink_to(precious / "letter")
    manifest = Manifest(
        cycle=1, parent=None, verdict="", reason="", base_fingerprint="", lora_shape="", strategy="", created_at=""
    )
    with pytest.raises(Exception, match="left no adapter_model"):
        checkpoints.commit(manifest, {"lineage.json": b"{}"}, promoted=True)


def test_new_state_directory_is_private(tmp_path: Path) -> None:
    """Under umask 022 nothing that a whole cycle leaves can be entered from outside, and no file there is for all."""
    was = os.umask(0o022)
    try:
        stage = Stage(tmp_path)
        secret = (stage.state / "secret").read_bytes()
        shutil.rmtree(stage.state)
        stage.play(refresh)
        (stage.state / "secret").write_bytes(secret)  # the split decides whether the first one is promoted
        stage.make_champions(12)
    finally:
        os.umask(was)
    assert stat.S_IMODE(stage.state.stat().st_mode) == 0o750
    found = modes(stage.state)
    assert {"state.db", "lock", "scheduler_state.json", "cycle_001", "cycle_001/lineage.json", "staging"} <= set(found)
    of_worker = {name for name in found if name.startswith("cycle_001/adapter_")}
    assert [name for name, mode in found.items() if mode & WORLD and name not in {"current", *of_worker}] == []


def test_wide_state_directory_is_tightened(tmp_path: Path) -> None:
    """A directory from before is taken away from the world at the next start, once, and that is said."""
    stage = Stage(tmp_path)
    stage.make_champions(12)
    for path in (stage.state, *stage.state.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    with structlog.testing.capture_logs() as events:
        stage.play(refresh)
        stage.play(refresh)
    told = [event["text"] for event in events if event["event"] == "state_directory_tightened"]
    assert len(told) == 1
    assert str(stage.state) in told[0]
    assert not stage.state.stat().st_mode & WORLD
    assert not (stage.state / "cycle_001").stat().st_mode & WORLD


@pytest.mark.parametrize(
    ("count", "more"), [(1, ""), (3, ""), (4, " and 1 more"), (6, " and 3 more")], ids=["1", "3", "4", "6"]
)
def test_tightened_files_are_named(tmp_path: Path, count: int, more: str) -> None:
    """The message names three of the files that everybody could read, and counts the others."""
    tmp_path.chmod(0o750)
    for name in FILES[:count]:
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    with structlog.testing.capture_logs() as events:
        prepare(tmp_path)
    (text,) = [event["text"] for event in events]
    assert text.count(str(tmp_path)) == min(count, 3)
    assert text.startswith(f"every user could read {tmp_path}/")
    assert f"{more}; from now on" in text
    assert (" more;" in text) == bool(more)


def test_link_is_not_closed(tmp_path: Path, precious: Path) -> None:
    """A link that takes a file's place after that was looked at is not followed; no descriptor stays open."""
    (tmp_path / "lock").touch(mode=0o644)
    status, opened = (tmp_path / "lock").stat(), set(os.listdir("/proc/self/fd"))
    assert _close(tmp_path / "lock", status) is True
    assert not (tmp_path / "lock").stat().st_mode & WORLD
    (precious / "letter").chmod(0o644)
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").symlink_to(precious / "letter")
    assert _close(tmp_path / "lock", status) is False
    assert stat.S_IMODE((precious / "letter").stat().st_mode) == 0o644
    assert set(os.listdir("/proc/self/fd")) == opened


def test_shared_directory_stays_open(tmp_path: Path) -> None:
    """Where more than ours stands in the directory, only ours is closed; an older trainer's cycle stays as it is."""
    stage = Stage(tmp_path)
    stage.make_champions(12)
    older = stage.state / "cycle_000"
    older.mkdir()
    (stage.state / "notes.txt").write_text("the owner's")
    for path in (stage.state, older, stage.state / "notes.txt", stage.state / "state.db"):
        path.chmod(0o755)
    stage.play(refresh)
    wide = {path.name for path in (stage.state, *stage.state.iterdir()) if path.stat().st_mode & WORLD}
    assert wide == {"state", "cycle_000", "notes.txt"}
