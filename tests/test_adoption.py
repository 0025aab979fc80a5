"""Tests of taking over an older trainer's state directory: what comes along, what is refused, what is never touched."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
from array import array
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sleepd.buffer.columns import BufferColumns
from sleepd.clock import SystemClock
from sleepd.daemon.status_view import cycles, detail, overview
from sleepd.errors import CheckpointInvalid
from sleepd.protocol.control import History, Rollback, Run
from sleepd.protocol.status import RunResult
from sleepd.scheduler import SleepScheduler
from sleepd.store import adoption
from sleepd.store.adapter_file import read_adapter_file
from sleepd.store.checkpoints import Checkpoints, file_record, read_manifest, verify
from sleepd.store.legacy_formats import local_naive, read_scheduler_state
from sleepd.store.sqlite.ledger import Ledger
from tests.agents import changed, config_for, experiences, unmet, write_buffer
from tests.fakes import real_interpreter
from tests.older_trainer import adapter_weights, safetensors, write_older_cycle
from tests.processes import DaemonProcess
from tests.stages import OpenSleeper, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Seven older cycles of which the last two stand, and the twelve experiences of that time."""
    stage = Stage(tmp_path)
    stage.config = changed(stage.config, "training", strategy="gentle")
    write_older_cycle(stage.state, 6)
    write_older_cycle(stage.state, 7)
    stage.write(12)
    return stage


async def explain(sleeper: OpenSleeper) -> Any:
    await sleeper.refresh()
    return overview(sleeper.reader, next_check_at=None, config_path="")


async def past(sleeper: OpenSleeper) -> Any:
    await sleeper.refresh()
    return cycles(sleeper.reader, limit=50)


def fingerprint(state: Path) -> dict[str, tuple[str, int]]:
    """Every file of the older folders, its content and its time."""
    files = [file for folder in sorted(state.glob("cycle_00[67]")) for file in sorted(folder.rglob("*"))]
    return {str(f): (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


def test_newest_adapter_is_adopted_unmeasured(stage: Stage) -> None:
    """History, last time and last cycle come over; nobody is led to believe that the adapter was measured."""
    status = stage.play(explain)
    assert (status.champion.cycle, status.champion.is_adopted, status.champion.measured_by) == (7, True, None)
    assert status.champion.holdout_after is None
    assert status.total_cycles == 7
    assert status.last_sleep_at.astimezone().strftime("%d %H:%M") == "07 03:00"
    newest, *older = stage.play(past)
    assert (newest.cycle, newest.state, newest.is_champion) == (7, "adopted", True)
    assert newest.reason.startswith("adopted, not measured: ")
    assert newest.imported_loss == pytest.approx(2.3)
    assert newest.holdout_after is None
    assert [each.cycle for each in older] == [6, 5, 4, 3, 2, 1]
    assert {each.state for each in older} == {"imported"}


def test_cycle_numbering_continues(stage: Stage) -> None:
    """With total_experiences_trained = 7000, two new experiences are still two new ones."""
    assert unmet(stage.play(explain).decision)["min_new_experiences"] == (0, 2)
    stage.write(24)
    status = stage.play(explain)
    assert status.buffer.new == 12
    assert stage.sleep().cycle == 8


def test_the_newest_is_the_highest_number(tmp_path: Path) -> None:
    """cycle_1000 is newer than cycle_999."""
    stage = Stage(tmp_path)
    for cycle in (998, 999, 1000):
        write_older_cycle(stage.state, cycle)
    assert stage.play(explain).champion.cycle == 1000


def test_possibly_trained_is_never_held_out(stage: Stage) -> None:
    """Neither at once nor after a restart: the twelve are learned, and only later ones are measured on."""
    stage.play(explain)
    stage.write(40)
    summary = stage.sleep()
    assert (summary.parent, summary.state) == (7, "promoted")
    lineage = json.loads((stage.state / "cycle_008/lineage.json").read_text())
    old = {record["id"] for record in experiences(12)}
    assert not {entry["id"] for entry in lineage["held_out"]} & old
    assert not {entry["id"] for entry in lineage["trained"]} & old
    assert lineage["held_out"]


def test_first_buffer_entries_are_the_older(stage: Stage) -> None:
    """With the older scheduler's own state, what came after its last sleep is new and may be held out."""
    state = {"last_sleep_time": "2026-01-07T03:00:00", "last_sleep_cycle": 7, "experiences_at_last_sleep": 5}
    (stage.state / "scheduler_state.json").write_text(json.dumps({**state, "total_sleep_cycles": 7}))
    status = stage.play(explain)
    assert (status.buffer.new, status.total_cycles) == (7, 7)
    recorded = json.loads((stage.state / "adopted/cycle_007.trained.json").read_text())
    assert len(recorded) == 5


def test_invented_older_state_is_recognised(stage: Stage) -> None:
    """Its history then has the trainer's form, and its buffer length is the trainer's sum."""
    made_up = {
        "last_sleep_time": "2026-01-07T03:00:00",
        "last_sleep_cycle": "7",
        "experiences_at_last_sleep": 7000,
        "total_sleep_cycles": 7,
        "sleep_history": [{"sleep_cycle": 7, "timestamp": "2026-01-07T03:00:00", "final_loss": 2.3}],
    }
    (stage.state / "scheduler_state.json").write_text(json.dumps(made_up))
    assert stage.play(explain).buffer.new == 0
    stage.write(15)
    assert stage.play(explain).buffer.new == 3


def test_absent_buffer_counts_as_unseen(stage: Stage) -> None:
    """The first look is the first one that finds a buffer."""
    stage.buffer.rename(stage.directory / "elsewhere")
    stage.play(explain)
    (stage.directory / "elsewhere").rename(stage.buffer)
    assert stage.play(explain).buffer.new == 0


def test_older_folders_are_never_written(stage: Stage) -> None:
    """Adoption, a cycle, rolling back and forth, and a lost ledger leave every file and its time as they were."""
    before = fingerprint(stage.state)
    stage.play(explain)
    stage.write(40)
    stage.sleep()

    async def roll(sleeper: OpenSleeper) -> list[int | None]:
        return [sleeper.rollback(to)[0] for to in (None, 0, 7, 8, 7)]

    assert stage.play(roll) == [7, None, 7, 8, 7]
    (stage.state / "state.db").unlink()
    stage.play(explain)
    assert fingerprint(stage.state) == before


def test_a_lost_ledger_changes_no_answer(stage: Stage) -> None:
    """What was adopted, and what is therefore never held out, is known from the files beside it."""
    stage.play(explain)
    stage.write(40)
    stage.sleep()

    async def answers(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        known = sleeper.parts.history.known()
        return (
            cycles(sleeper.reader, limit=50),
            known.splits,
            sleeper.parts.intake.counts,
            sleeper.parts.checkpoints.champion(),
        )

    before = stage.play(answers)
    (stage.state / "state.db").unlink()
    assert stage.play(answers) == before


def test_rolled_back_adapter_is_not_readopted(stage: Stage) -> None:
    """The owner's choice outlives a restart and a lost ledger."""

    async def to_base(sleeper: OpenSleeper) -> None:
        sleeper.rollback(0)

    stage.play(to_base)
    assert stage.play(explain).champion is None
    (stage.state / "state.db").unlink()
    assert stage.play(explain).champion is None


def test_crash_between_link_and_record_readopts(stage: Stage) -> None:
    """The link without its record is no damaged champion."""
    (stage.state / "current").symlink_to("cycle_007")
    status = stage.play(explain)
    assert (status.champion.cycle, status.last_error) == (7, None)


def test_other_lora_shape_starts_new_lineage(stage: Stage) -> None:
    """The default strategy cannot continue it: the status says so before, and the cycle starts from the base."""
    stage.config = changed(stage.config, "training", strategy="consolidate")
    champion = stage.play(explain).champion
    assert "cycle 7 " in champion.new_lineage
    assert " r4:q_proj,v_proj, " in champion.new_lineage
    stage.write(40)
    summary = stage.sleep()
    assert (summary.parent, summary.cycle) == (None, 8)
    assert summary.trained > 20


@pytest.mark.parametrize("kind", ["parent_unusable", "shape_changed"])
def test_unfit_adapter_is_tried_once(stage: Stage, kind: str) -> None:
    """Only a worker can tell; then the next cycle starts from the base and says why, instead of failing for ever."""
    stage.play(explain)
    stage.write(40)
    assert stage.sleep(behaviour=kind).state == "failed"
    stage.clock.advance(601)
    assert stage.play(explain).champion.new_lineage.endswith(": it cannot be done")
    summary = stage.sleep()
    assert (summary.parent, summary.state) == (None, "promoted")


GOOD = adapter_weights()
SPOILED = {
    "truncated": GOOD[:-40],
    "empty": b"",
    "huge_header": (2**63).to_bytes(8, "little") + GOOD[8:],
    "header_past_the_end": len(GOOD).to_bytes(8, "little") + GOOD[8:],
    "no_json": GOOD[:8] + b"x" * (len(GOOD) - 8),
    "deep_json": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "nan": adapter_weights(value=math.nan),
    "infinite": adapter_weights(value=math.inf),
    "pickle": b"\x80\x02}q\x00.",
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "outside": GOOD.replace(b'"data_offsets": [0,', b'"data_offsets": [9,', 1),
    "negative": GOOD.replace(b"[4, 32]", b"[4,-32]", 1),
    "other_rank": GOOD.replace(b'"shape": [4, 32]', b'"shape": [8, 16]', 1),
    "many_dimensions": safetensors({"a.lora_A.b": ([2**62] * 90_000, array("f", [1.0]))}),
    "other_dtype": GOOD.replace(b'"F32"', b'"I32"', 1),
}


@pytest.mark.parametrize("damage", sorted(SPOILED))
def test_damaged_newest_yields_to_previous(tmp_path: Path, damage: str) -> None:
    """Every kind of damage is named, nothing is unpickled, and an older sound adapter is taken."""
    stage = Stage(tmp_path)
    write_older_cycle(stage.state, 6)
    write_older_cycle(stage.state, 7, weights=SPOILED[damage])
    stage.write(12)
    status = stage.play(explain)
    assert status.champion.cycle == 6
    assert status.last_error.message.startswith("not adopted: ")
    assert "cycle_007" in status.last_error.message


def test_sparse_adapter_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 3 GiB is refused for its size alone, and of one that is adopted no more than 1 MiB is held at once."""
    path = write_older_cycle(tmp_path, 7)
    sizes = counted_reads(monkeypatch)
    read_adapter_file(path)
    assert max(sizes) <= 2**20
    sizes.clear()
    with (path / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(CheckpointInvalid, match=r"2147483648 .* 3221225472"):
        read_adapter_file(path)
    assert sizes == []


def test_overlapping_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that stand for the same bytes would have the file read once for each of them."""
    data = bytes(512 * 4)
    entry = {"dtype": "F32", "shape": [4, 128], "data_offsets": [0, len(data)]}
    text = json.dumps({f"q{n}.lora_{side}.weight": entry for n in range(99) for side in "AB"}).encode()
    path = write_older_cycle(tmp_path, 7, weights=len(text).to_bytes(8, "little") + text + data)
    sizes = counted_reads(monkeypatch)
    with pytest.raises(CheckpointInvalid, match="its tensors overlap"):
        read_adapter_file(path)
    assert sum(sizes) <= 8 + len(text)


def test_changed_size_is_noticed_unread(stage: Stage) -> None:
    """A committed file that became larger is not read to find that it is another one."""
    stage.play(explain)
    weights = stage.state / "cycle_007" / "adapter_model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(2**40)
    record = file_record(weights, most=10**6)
    assert (record.sha256, record.bytes) == ("", 2**40)


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each reading of an adapter gives from now on."""
    sizes: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            sizes.append(len(data))
            return data

    monkeypatch.setattr("sleepd.store.adapter_file.open_regular", Counted)
    return sizes


def test_pickled_adapter_is_refused_with_hint(tmp_path: Path) -> None:
    """adapter_model.bin is never opened; the hint says how to convert it where it was made."""
    path = write_older_cycle(tmp_path, 7)
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(CheckpointInvalid, match="a pickle can run code") as refused:
        read_adapter_file(path)
    assert "safe_serialization=True" in refused.value.hint


@pytest.mark.parametrize(
    ("high", "low", "is_finite"),
    [(0x7F, 0x80, False), (0xFF, 0x80, False), (0x7F, 0x00, True), (0x3F, 0x80, True)],
)
def test_bfloat16_weights_are_read(tmp_path: Path, high: int, low: int, is_finite: bool) -> None:
    """Infinity and NaN have all eight exponent bits; the greatest finite number has not."""
    path = write_older_cycle(tmp_path, 7, weights=halved(bytes([low, high])))
    if is_finite:
        assert read_adapter_file(path).lora_shape == "r4:q_proj,v_proj"
    else:
        with pytest.raises(CheckpointInvalid, match="NaN or infinity"):
            read_adapter_file(path)


def halved(value: bytes) -> bytes:
    """The good adapter in bfloat16, every weight of it the same."""
    length = int.from_bytes(GOOD[:8], "little")
    header = json.loads(GOOD[8 : 8 + length])
    for entry in header.values():
        entry["dtype"] = "BF16"
        entry["data_offsets"] = [offset // 2 for offset in entry["data_offsets"]]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + value * ((len(GOOD) - 8 - length) // 4)


def test_own_checkpoint_is_no_older_one(tmp_path: Path) -> None:
    """A folder with a manifest is ours, whatever its number; the others come newest first."""
    for cycle in (7, 9, 8):
        write_older_cycle(tmp_path, cycle)
    (tmp_path / "cycle_009" / "manifest.json").touch()
    assert [path.name for path in adoption.older_directories(tmp_path)] == ["cycle_008", "cycle_007"]


def test_each_damaged_adapter_is_told(tmp_path: Path) -> None:
    """Where none is sound there is a sentence for each, and no champion."""
    ledger, checkpoints = Ledger(tmp_path / "state.db"), Checkpoints(tmp_path)
    for cycle in (7, 8):
        write_older_cycle(tmp_path, cycle, weights=b"")
    told = adoption.adopt(ledger, checkpoints, SystemClock())
    assert [text.partition(": ")[0] for text in told] == ["not adopted"] * 2
    assert ["cycle_008" in told[0], "cycle_007" in told[1]] == [True, True]
    assert checkpoints.champion() is None


def test_record_of_a_large_file_is_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter that is larger than any may be is not read before it is refused."""
    path = write_older_cycle(tmp_path, 7)
    monkeypatch.setattr(adoption, "MAX_FILE_BYTES", 1000)
    record = adoption._records(path)["adapter_model.safetensors"]
    assert (record.sha256, record.bytes) == ("", len(adapter_weights()))


def test_trained_ones_are_noted_once(tmp_path: Path) -> None:
    """What the buffer held at the adoption is recorded; a buffer that grew meanwhile changes nothing of it."""
    ledger, checkpoints = Ledger(tmp_path / "state.db"), Checkpoints(tmp_path)
    write_older_cycle(tmp_path, 7)
    assert adoption.adopt(ledger, checkpoints, SystemClock()) == []
    for count in (3, 5):
        keys = array("Q", range(1, count + 1))
        columns = BufferColumns(keys=keys, groups=keys)
        adoption.note_trained(ledger, checkpoints, columns, count=None)
    assert ledger.trained_groups([7]) == {1, 2, 3}


def test_other_folders_are_ignored(tmp_path: Path) -> None:
    """A file and a link of such a name, another name, and a folder without an adapter."""
    stage = Stage(tmp_path)
    write_older_cycle(stage.state, 3)
    elsewhere = write_older_cycle(tmp_path / "elsewhere", 9)
    (stage.state / "cycle_009").symlink_to(elsewhere)
    (stage.state / "cycle_008").write_text("no folder")
    (stage.state / "cycle_abc").mkdir()
    (stage.state / "cycle_007").mkdir()
    stage.write(12)
    status = stage.play(explain)
    assert status.champion.cycle == 3
    assert status.last_error.message.endswith(" safetensors file, found none")
    stage.write(40)
    assert stage.sleep().cycle == 10


@pytest.mark.parametrize(
    "training",
    [
        {"sleep_cycle_count": "7"},
        {"training_history": [{"sleep_cycle": "7", "timestamp": "2026-01-07T03:00:00", "final_loss": "2.3"}]},
        {"training_history": [{"cycle": 7, "timestamp": "2026-01-07T03:00:00+00:00"}]},
    ],
)
def test_quoted_numbers_are_understood(tmp_path: Path, training: dict[str, Any]) -> None:
    """What other tools have rewritten by hand still tells the last cycle."""
    stage = Stage(tmp_path)
    write_older_cycle(stage.state, 7, **training)
    assert stage.play(explain).total_cycles == 7


@pytest.mark.parametrize(
    ("training", "last_sleep"),
    [({"last_updated": "2026-01-09T20:00:00"}, "2026-01-09T20:00:00"), ({"last_updated": None}, "2026-01-08T12:00:00")],
    ids=["last_updated", "file's time"],
)
@pytest.mark.parametrize("made_up", [None, {"total_sleep_cycles": 0, "sleep_history": []}], ids=["alone", "beside"])
def test_an_empty_history_has_its_count(
    tmp_path: Path, training: dict[str, Any], last_sleep: str, made_up: dict[str, Any] | None
) -> None:
    """A hundred cycles with an empty history are a hundred, with one time of the last sleep in every answer."""
    stage = Stage(tmp_path)
    stage.write(12)
    folder = write_older_cycle(stage.state, 100, training_history=[], **training)
    moment = datetime.fromisoformat("2026-01-08T12:00:00").timestamp()
    os.utime(folder / "training_state.json", (moment, moment))
    if made_up is not None:
        (stage.state / "scheduler_state.json").write_text(json.dumps(made_up))
    status = stage.play(explain)
    assert (status.total_cycles, status.champion.cycle) == (100, 100)
    assert local_naive(status.last_sleep_at) == last_sleep
    written = read_scheduler_state(stage.state)
    assert (written.total_sleep_cycles, written.last_sleep_cycle, written.last_sleep_time) == (100, 100, last_sleep)
    assert written.experiences_at_last_sleep == 12
    older = SleepScheduler(experience_buffer_path=stage.buffer, checkpoint_dir=stage.state).get_status()
    assert (older["total_sleep_cycles"], older["last_sleep_time"]) == (100, last_sleep)
    stage.write(24)
    assert stage.sleep().cycle == 101
    assert stage.play(explain).total_cycles == 101


@pytest.mark.parametrize(
    "training", [{"sleep_cycle_count": "seven"}, {"last_updated": "yesterday"}, {"training_history": 3}]
)
def test_senseless_history_is_ignored(tmp_path: Path, training: dict[str, Any]) -> None:
    """The adapter is adopted all the same; the history is that of the cycle before."""
    stage = Stage(tmp_path)
    write_older_cycle(stage.state, 6)
    write_older_cycle(stage.state, 7, **training)
    status = stage.play(explain)
    assert (status.champion.cycle, status.total_cycles) == (7, 6)


def test_swapped_adapter_is_not_adopted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter that is replaced between the look at it and its record is left, and the one before is adopted."""

    def read(path: Path) -> Any:
        found = read_adapter_file(path)
        if path.name == "cycle_007":
            weights = path / "adapter_model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-4] + b"evil")
        return found

    monkeypatch.setattr(adoption, "read_adapter_file", read)
    assert stage.play(explain).champion.cycle == 6


def test_adopted_adapter_changed_later_is_unused(stage: Stage) -> None:
    """Its files are hashed when it is adopted; what is something else now falls back to the base, and is named."""
    stage.play(explain)
    assert verify(stage.state / "cycle_007").verdict == "adopted"
    (stage.state / "cycle_007/adapter_model.safetensors").write_bytes(adapter_weights(value=0.5))
    status = stage.play(explain)
    assert status.champion is None
    assert "is not what was committed" in status.last_error.message


def test_one_cycle_can_be_shown(stage: Stage) -> None:
    """``sleepctl show 7`` says where its files are, and no more than is known."""

    async def show(sleeper: OpenSleeper) -> Any:
        return detail(sleeper.reader, 7)

    shown = stage.play(show)
    assert (shown.summary.state, shown.report, shown.trained_ids) == ("adopted", None, [])
    assert shown.directory.endswith("cycle_007")


@pytest.mark.worker
@pytest.mark.model
@pytest.mark.measured
def test_first_continuing_cycle_measures_it(tmp_path: Path, tiny_model: Path) -> None:
    """The real worker continues the older adapter; afterwards its own figures are known, and by which cycle."""
    config = changed(config_for(tmp_path), "model", base=str(tiny_model))
    config = changed(config, "worker", python=str(real_interpreter(tmp_path / "python")))
    config = changed(config, "training", strategy="gentle")
    write_older_cycle(tmp_path / "state", 7)
    write_buffer(tmp_path / "buffer.json", experiences(12))
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.await_true(lambda: daemon.status().buffer.total == 12, "the first look")
        write_buffer(tmp_path / "buffer.json", experiences(40))
        result = daemon.call(Run(force=True, wait=True, learning_rate=1e-3), RunResult)
        assert (result.summary.parent, result.summary.cycle) == (7, 8)
        if daemon.status().champion.cycle == 8:
            daemon.call(Rollback(), dict)
        champion = daemon.status().champion
        assert (champion.cycle, champion.is_adopted, champion.measured_by) == (7, True, 8)
        assert champion.holdout_after != champion.holdout_base
        shown = {each["cycle"]: each["reason"] for each in daemon.call(History(), dict)["cycles"]}
        assert shown[7].startswith("adopted; measured ")
        assert shown[7].endswith(" by cycle 8")
    assert read_manifest(tmp_path / "state/cycle_007").verdict == "adopted"
