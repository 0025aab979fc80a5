"""Hostile checkpoints: none is accepted, a whole champion is in use, the pointer is mended, nothing outside touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.cycles.running.planning import Order
from sleepd.daemon.status_view import overview
from sleepd.errors import CheckpointInvalid
from sleepd.protocol.control import Run
from sleepd.store.checkpoints import Manifest, file_record, verify
from tests.agents import changed, config_for, experiences, write_buffer
from tests.fakes import real_interpreter
from tests.faults.damaged_checkpoints import three_champions, try_all
from tests.older_trainer import adapter_weights
from tests.processes import DaemonProcess
from tests.stages import OpenSleeper, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Three champions, each the continuation of the one before."""
    return three_champions(tmp_path / "made")


async def explain(sleeper: OpenSleeper) -> Any:
    await sleeper.refresh()
    return overview(sleeper.reader, next_check_at=None, config_path="")


def test_a_sample_of_damages_is_refused() -> None:
    """What ``tests/faults/damaged_checkpoints.py`` does a thousand times: bits, cuts, links, pipes, removed files."""
    counted, failures = try_all(40, seed=1)
    assert sum(counted.values()) == 40
    assert failures == []


def point_outside(state: Path, outside: Path) -> None:
    (state / "current").unlink()
    (state / "current").symlink_to(outside)


def point_up(state: Path, outside: Path) -> None:
    (state / "current").unlink()
    (state / "current").symlink_to(f"../{outside.name}")


def point_to_itself(state: Path, _outside: Path) -> None:
    (state / "current").unlink()
    (state / "current").symlink_to("current")


def point_to_nothing(state: Path, _outside: Path) -> None:
    (state / "current").unlink()
    (state / "current").symlink_to("cycle_099")


def point_into_retired(state: Path, _outside: Path) -> None:
    (state / "current").unlink()
    (state / "current").symlink_to("retired/cycle_003")


@pytest.mark.parametrize("spoil", [point_outside, point_up, point_to_itself, point_to_nothing, point_into_retired])
def test_misleading_pointer_is_repaired(stage: Stage, spoil: Callable[[Path, Path], None]) -> None:
    """The newest whole champion is in use afterwards, said aloud, and what it pointed to is untouched."""
    outside = stage.directory / "cycle_007"
    outside.mkdir()
    (outside / "adapter_model.safetensors").write_bytes(b"somebody else's")
    spoil(stage.state, outside)
    status = stage.play(explain)
    assert status.champion.cycle == 3
    assert os.readlink(stage.state / "current") == "cycle_003"
    assert "damaged, so cycle 3 is in use" in status.last_error.message
    assert [entry.name for entry in outside.iterdir()] == ["adapter_model.safetensors"]


@pytest.mark.parametrize("name", ["../../buffer.json", "/etc/passwd", "..", "a\0b", ""])
def test_manifest_naming_foreign_files_is_refused(stage: Stage, name: str) -> None:
    """No path of another program is read, whatever hash it is said to have."""
    path = stage.state / "cycle_003/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    path.write_bytes(msgspec.convert(manifest, Manifest).encoded())
    with pytest.raises(CheckpointInvalid, match="names a file outside it"):
        verify(path.parent)
    assert stage.play(explain).champion.cycle == 2


def test_damaged_champion_is_not_continued(stage: Stage) -> None:
    """It is read again before it becomes a parent: the cycle does not begin, and the one before is in use."""
    stage.write(48)

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        with (stage.state / "cycle_003/adapter_model.safetensors").open("r+b") as file:
            file.write(b"\xff")
        with pytest.raises(CheckpointInvalid, match="damaged, so cycle 2 is in use"):
            await sleeper.begin(Order())
        await sleeper.begin(Order())
        return await sleeper.finished()

    summary = stage.play(scene)
    assert (summary.cycle, summary.parent, summary.state) == (4, 2, "promoted")
    assert stage.play(explain).champion.cycle == 4


def lying(checkpoint: Path, **files: bytes) -> None:
    """Put other contents in place, and make the manifest agree with them."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name, content in files.items():
        path = checkpoint / {"weights": "adapter_model.safetensors", "config": "adapter_config.json"}[name]
        path.write_bytes(content)
        record = file_record(path)
        manifest["files"][path.name] = {"sha256": record.sha256, "bytes": record.bytes}
    (checkpoint / "manifest.json").write_bytes(msgspec.convert(manifest, Manifest).encoded())


@pytest.mark.worker
@pytest.mark.model
def test_lying_manifest_is_found(tmp_path: Path, tiny_model: Path) -> None:
    """NaN among the weights: the hashes agree, and still nothing is trained on them."""
    config = changed(config_for(tmp_path, cooldown_seconds=0.0), "model", base=str(tiny_model))
    config = changed(config, "worker", python=str(real_interpreter(tmp_path / "python")))
    config = changed(config, "training", strategy="gentle")
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_true(lambda: daemon.status().total_cycles == 1, "the first verdict")
        promoted = daemon.status().champion is not None
    checkpoint = tmp_path / "state" / ("cycle_001" if promoted else "retired/cycle_001")
    if not promoted:  # the tiny model may learn nothing; as a parent it serves all the same
        checkpoint = checkpoint.rename(tmp_path / "state/cycle_001")
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        evaluation = json.loads((checkpoint / "evaluation.json").read_text())
        evaluation["verdict"]["outcome"] = "promoted"
        (checkpoint / "evaluation.json").write_text(json.dumps(evaluation))
        record = file_record(checkpoint / "evaluation.json")
        manifest["files"]["evaluation.json"] = {"sha256": record.sha256, "bytes": record.bytes}
        lie = msgspec.convert({**manifest, "verdict": "promoted"}, Manifest)
        (checkpoint / "manifest.json").write_bytes(lie.encoded())
        (tmp_path / "state/current").symlink_to("cycle_001")
        (tmp_path / "state/state.db").unlink()
    write_buffer(tmp_path / "buffer.json", experiences(24))
    lying(checkpoint, weights=adapter_weights(value=float("nan")))
    with DaemonProcess(tmp_path, config) as daemon:
        numbers = {each.cycle for each in daemon.status().recent_cycles}
        with daemon.client() as client:
            client.call(Run(force=True), dict)
        daemon.await_true(
            lambda: any(each.state == "failed" and each.cycle not in numbers for each in daemon.status().recent_cycles),
            "a failure",
        )
        error = daemon.status().last_error
        assert error is not None
        assert "NaN or infinity" in error.message
        assert daemon.status().champion.cycle == 1
