"""Tests of what a cycle announces on its way and at its end, and of what stands in the log with which level."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from sleepd.cycle import Event
from sleepd.cycles.running import runner
from sleepd.cycles.running.planning import Order
from sleepd.errors import Busy, LedgerUnusable, NothingToDo, StateDirectoryUnusable
from sleepd.protocol.job import RESUME_POINT, Notice, Phase, Progress
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.ledger import Ledger
from tests.stages import OpenSleeper, Stage

LOGGED = re.compile(r"\[(info|warning|error) *\] ((?:cycle|candidate)_\w+)")


async def begin(sleeper: OpenSleeper) -> None:
    await sleeper.begin(Order(force=True))


async def cancel(sleeper: OpenSleeper) -> None:
    await begin(sleeper)
    sleeper.cancel()
    await sleeper.finished()


def test_each_end_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Failed, cancelled, shut down and resumed, rejected: each has its event, its level, its text and its hint."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep(behaviour="fail")
    stage.play(cancel, behaviour="wait")
    stage.play(begin, behaviour="wait")
    stage.clock.advance(7 * 3600)
    stage.sleep()
    stage.write(24)
    stage.sleep(Order(force=True), behaviour="reject")
    shown = capsys.readouterr().out
    assert "worker_traceback" not in shown
    told = LOGGED.findall(shown)
    assert told == [
        ("info", "cycle_started"),
        ("error", "cycle_failed"),
        ("info", "cycle_started"),
        ("info", "cycle_cancelled"),
        ("info", "cycle_started"),
        ("info", "cycle_suspended"),
        ("info", "cycle_resumed"),
        ("info", "candidate_promoted"),
        ("info", "cycle_started"),
        ("warning", "candidate_rejected"),
    ]
    names = {name for _, name in told}
    said = [(name, fields) for name, fields in stage.events if name in names]
    assert [name for name, _ in said] == [name for _, name in told]
    assert [fields["cycle"] for _, fields in said] == [1, 1, 2, 2, 3, 3, 3, 3, 4, 4]
    ends = {name: (fields.get("text"), fields.get("hint")) for name, fields in said}
    assert ends["cycle_failed"] == ("it cannot be done", "do something else")
    assert ends["cycle_cancelled"] == ("cancelled", "")
    assert ends["cycle_suspended"] == ("sage-sleepd was shut down", "")
    states = [fields["state"] for name, fields in stage.events if name == "state" and fields["cycle"] < 4]
    assert states == ["training", "failed", "training", "cancelled", "training", "suspended", "training", "evaluating"]
    directories = [Path(fields["directory"]).name for _, fields in said if "directory" in fields]
    assert directories == ["cycle_003", "cycle_004"]
    first, last = said[0][1], said[-2][1]
    assert (first["parent"], last["parent"], first["strategy"]) == (None, 3, "consolidate")
    assert (first["trained"] + first["held_out"], first["replayed"]) == (12, 0)
    assert last["replayed"] > 0


def test_progress_is_announced_by_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message is passed on, each new phase is announced, and a GPU that is there and cannot be used."""
    stage = Stage(tmp_path)
    stage.write(12)
    has_gpu = [False]
    monkeypatch.setattr(runner, "has_gpu", lambda: has_gpu[0])
    unusable = "cpu (cuda unavailable: no driver)"

    async def scene(sleeper: OpenSleeper) -> list[tuple[str, dict[str, Any]]]:
        await begin(sleeper)
        parts, told = sleeper.parts, stage.events
        told.clear()

        def hear(phase: Phase, device: str) -> None:
            parts.runner._hear(1, Progress(phase=phase, device=device))

        hear("measuring", unusable)
        has_gpu[0] = True
        hear("measuring", unusable)
        hear("training", unusable)
        hear("measuring", "cuda")
        assert [name for name, _ in told if name == "gpu_unusable"] == []
        hear("loading", unusable)
        hear("measuring", unusable)
        parts.runner._hear(1, Notice(event="text_cut", text="cut", level="warning"))
        assert parts.runner.stop(Event.CANCEL)
        await sleeper.finished()
        assert parts.runner.progress is None
        return told

    told = stage.play(scene, behaviour="wait")
    names = [name for name, _ in told]
    assert names.count("progress") == 6
    phases = [fields["phase"] for name, fields in told if name == "phase_started"]
    assert phases == ["measuring", "training", "measuring", "loading", "measuring"]
    (gpu,) = (fields for name, fields in told if name == "gpu_unusable")
    assert (gpu["cycle"], gpu["text"], gpu["hint"]) == (1, unusable, "sleepctl doctor")
    (cut,) = (fields for name, fields in told if name == "text_cut")
    assert cut == {"cycle": 1, "text": "cut"}


def test_stranger_stops_the_worker(tmp_path: Path) -> None:
    """Stopped by somebody else, a cycle goes on later where there is a resume point."""
    stage = Stage(tmp_path)
    stage.write(12)

    async def scene(sleeper: OpenSleeper) -> str:
        await begin(sleeper)
        (stage.state / "staging/cycle_001" / RESUME_POINT).touch()
        await asyncio.sleep(0)  # the cycle's task starts its worker
        assert sleeper.parts.runner._worker is not None
        sleeper.parts.runner._worker.stop()
        summary = await sleeper.finished()
        assert summary is not None
        return summary.state

    assert stage.play(scene, behaviour="wait") == "suspended"


def test_judged_cycle_is_not_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the worker has reported, a cancel comes too late and says so; the next cycle can be cancelled."""
    stage = Stage(tmp_path)
    stage.write(12)
    settle, refused = runner.settle, []

    async def scene(sleeper: OpenSleeper) -> str:
        async def settle_late(*arguments: Any, **more: Any) -> Any:
            with pytest.raises(Busy, match="cycle 1 has its verdict already") as told:
                sleeper.cancel()
            refused.append(told.value.hint)
            return await settle(*arguments, **more)

        monkeypatch.setattr(runner, "settle", settle_late)
        await begin(sleeper)
        summary = await sleeper.finished()
        assert summary is not None
        with pytest.raises(NothingToDo, match="no cycle is under way"):
            sleeper.cancel()
        stage.write(24)
        await begin(sleeper)
        assert sleeper.cancel() == 2
        cancelled = await sleeper.finished()
        assert cancelled is not None
        return f"{summary.state}, {cancelled.state}"

    assert stage.play(scene) == "promoted, cancelled"
    assert len(refused) == 1


@pytest.mark.parametrize("is_committed", [False, True])
def test_refused_checkpoint_fails_the_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    """Without a checkpoint the cycle has failed; once there is one its verdict stands, and the error goes on."""
    stage = Stage(tmp_path)
    stage.write(12)
    settle = runner.settle

    async def full(*arguments: Any, **more: Any) -> Any:
        if is_committed:
            await settle(*arguments, **more)
        raise OSError(28, "No space left")

    monkeypatch.setattr(runner, "settle", full)
    if is_committed:
        with pytest.raises(StateDirectoryUnusable, match="No space left"):
            stage.sleep()
        return
    summary = stage.sleep()
    assert (summary.state, summary.reason.endswith(": [Errno 28] No space left")) == ("failed", True)
    assert "df -h" in summary.hint
    assert list((stage.state / "staging").iterdir()) == []


def test_unplanned_cycle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was staged for a cycle that the ledger does not take is removed at once."""
    stage = Stage(tmp_path)
    stage.write(12)

    def full(*_: Any) -> None:
        raise LedgerUnusable("the ledger is full", hint="df -h")

    monkeypatch.setattr(Ledger, "plan", full)
    with pytest.raises(LedgerUnusable, match="full"):
        stage.sleep()
    assert list((stage.state / "staging").iterdir()) == []


def test_refused_commit_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judged cycle whose checkpoint could not be written has failed, and was not interrupted."""
    stage = Stage(tmp_path)
    stage.write(12)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left")

    monkeypatch.setattr(Checkpoints, "commit", full)
    assert stage.sleep().state == "failed"
