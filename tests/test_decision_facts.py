"""Tests of what a decision rests on: each fact is that of its source."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sleepd.cycles import decision_facts
from sleepd.cycles.history import PastCycles
from sleepd.cycles.running.gpu_lock import GpuLock
from sleepd.cycles.running.planning import Order
from sleepd.cycles.running.resume import note_crash
from sleepd.policy.timing.triggers import Facts
from tests.agents import changed, experiences, write_buffer
from tests.stages import OpenSleeper, Stage

about: Any = pytest.approx
LOOP = {"id": "loop", "prompt": "What?", "response": "I feel ready to learn. " * 20, "salience": 0.9}


def test_each_fact_has_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a champion, a failed cycle and a pause, with the lock held and another quantization, all of it is told."""
    stage = Stage(tmp_path)
    stage.make_champions(12)
    new = [*experiences(10, start=12, salience=0.6), *experiences(1, start=22, salience=0.9)]
    write_buffer(stage.buffer, [*experiences(12), *new, LOOP])
    stage.sleep(behaviour="fail")
    stage.clock.advance(60)
    lock = tmp_path / "gpu.lock"
    lock.touch()
    stage.config = changed(stage.config, "worker", gpu_lock=str(lock))
    stage.config = changed(stage.config, "model", quantization="int8")
    monkeypatch.setattr(decision_facts.shutil, "disk_usage", lambda _path: SimpleNamespace(free=5_999_999_999))
    monkeypatch.setattr(PastCycles, "trend", "flat")

    async def scene(sleeper: OpenSleeper) -> None:
        await sleeper.refresh()
        sleeper.pause(is_paused=True)
        other = GpuLock()
        other.take(str(lock))
        facts, counts = sleeper.parts.finding.facts(), sleeper.parts.intake.counts
        other.release()
        assert "quantization" in facts.base_changed
        assert facts.gpu_problem.startswith("another sage-sleepd trains")
        assert facts == Facts(
            total=24,
            new=12,
            hours_since_last_sleep=about(7 + 1 / 60),
            trainable=counts.unlearned,
            held_out=counts.held_out,
            quarantined=1,
            is_paused=True,
            cooldown_seconds_left=about(540.0),
            unjudged_in_a_row=1,
            last_ending="failed",
            free_megabytes=5999,
            base_changed=facts.base_changed,
            gpu_problem=facts.gpu_problem,
            new_salience=about((10 * 0.6 + 0.9) / 11),
            most_salient_new=0.9,
            trend="flat",
        )
        strict = sleeper.parts.finding.facts(min_salience=0.7)
        assert strict.trainable < facts.trainable
        all_ = sleeper.parts.finding.facts(min_salience=0.0)
        assert (all_.trainable, all_.held_out, all_.quarantined) == (facts.trainable, facts.held_out, 1)
        stage.buffer.unlink()
        stage.buffer.mkdir()
        await sleeper.refresh()
        assert sleeper.parts.finding.facts().buffer_problem

    stage.play(scene)


def test_interrupted_cycle_waits_for_itself(tmp_path: Path) -> None:
    """A suspended cycle is named, and waits after its own crashes."""
    stage = Stage(tmp_path)
    stage.write(12)

    async def begin(sleeper: OpenSleeper) -> None:
        await sleeper.begin(Order())
        assert sleeper.parts.finding.facts().running_cycle == 1

    async def scene(sleeper: OpenSleeper) -> None:
        await sleeper.refresh()
        note_crash(sleeper.parts.ledger, 1, stage.clock.now())
        stage.clock.advance(100)
        facts = sleeper.parts.finding.facts()
        assert (facts.suspended_cycle, facts.running_cycle, facts.unjudged_in_a_row) == (1, None, 0)
        assert facts.cooldown_seconds_left == about(500.0)

    stage.play(begin, behaviour="wait")
    stage.play(scene)
