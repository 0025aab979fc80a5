"""Tests of the sleeping itself: whole cycles with a worker that does what it is told."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from sleepd.config.strategies import STRATEGIES
from sleepd.cycles.composition import Parts
from sleepd.cycles.running.planning import Order
from sleepd.daemon.status_view import cycles, detail, overview
from sleepd.errors import Busy, NotFound, NothingToDo, StateLocked
from sleepd.policy.selecting.facts import MOST_HELD_OUT
from sleepd.policy.timing.triggers import Thresholds
from sleepd.protocol.strategy import Strategy
from sleepd.store.checkpoints import verify
from sleepd.store.sqlite.ledger_rows import CycleRecord
from tests.agents import changed, unmet
from tests.stages import OpenSleeper, Stage, refresh


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def continuing(monkeypatch: pytest.MonkeyPatch) -> Strategy:
    """The default strategy is one that continues its champion, at a lower rate."""
    strategy = replace(STRATEGIES["consolidate"], lineage="continue", continued_rate_share=0.4)
    monkeypatch.setitem(STRATEGIES, "consolidate", strategy)
    return strategy


def test_absent_buffer_is_no_error(stage: Stage) -> None:
    """Before the agent has written anything, the daemon waits and says for what."""
    decision = stage.play(refresh)
    assert unmet(decision) == {"min_experiences": (0, 5), "min_new_experiences": (0, 2)}


def test_a_cycle_from_buffer_to_champion(stage: Stage) -> None:
    """Twelve experiences become a whole checkpoint in use, with the files that older tools read."""
    stage.write(12)
    summary = stage.sleep()
    assert (summary.state, summary.cycle) == ("promoted", 1)
    assert summary.trained + summary.held_out == 12
    assert summary.held_out >= 1
    path = (stage.state / "current").resolve()
    assert verify(path).cycle == 1
    results = json.loads((path / "cycle_results.json").read_text())
    assert set(results) == {
        "sleep_cycle",
        "num_experiences",
        "epochs",
        "final_loss",
        "avg_salience",
        "epoch_losses",
        "learning_rate",
        "timestamp",
    }
    training = json.loads((path / "training_state.json").read_text())
    assert training["total_experiences_trained"] == summary.trained
    lineage = json.loads((path / "lineage.json").read_text())
    assert len(lineage["seen"]) == 12
    state = stage.read("scheduler_state.json")
    assert (state["last_sleep_cycle"], state["total_sleep_cycles"], state["experiences_at_last_sleep"]) == (1, 1, 12)
    assert state["sleep_history"][0]["final_loss"] == results["final_loss"] == 2.0


def test_second_cycle_trains_new_and_replays(stage: Stage, continuing: Strategy) -> None:
    """The next cycle continues the champion with the unlearned experiences and a sample of the learned ones."""
    stage.write(20)
    first = stage.sleep()
    stage.clock.advance(7 * 3600)
    stage.write(30)
    second = stage.sleep()
    assert second.parent == 1
    lineages = [json.loads((stage.state / f"cycle_00{n}" / "lineage.json").read_text()) for n in (1, 2)]
    trained = [{entry["id"] for entry in lineage["trained"]} for lineage in lineages]
    held = [{entry["id"] for entry in lineage["held_out"]} for lineage in lineages]
    assert not trained[0] & trained[1]
    assert held[0] <= held[1] | trained[1]
    assert len(held[1]) <= MOST_HELD_OUT
    assert not (trained[0] | trained[1]) & held[1]
    assert {entry["id"] for entry in lineages[1]["replayed"]} <= trained[0]
    assert len(trained[0] | trained[1] | held[1]) == 30
    assert second.replayed == max(continuing.min_replayed, round(continuing.replay_share * second.trained))
    assert first.replayed == 0


def test_removed_experience_is_still_replayed(stage: Stage) -> None:
    """A buffer cleared after the first night: what was trained comes back from the checkpoint, as replay only."""
    stage.write(20)
    stage.sleep()
    trained = {entry["id"] for entry in json.loads((stage.state / "cycle_001/lineage.json").read_text())["trained"]}
    stage.write(10, start=20)
    stage.clock.advance(7 * 3600)
    second = stage.sleep()
    lineage = json.loads((stage.state / "cycle_002/lineage.json").read_text())
    replayed = {entry["id"] for entry in lineage["replayed"]}
    assert second.replayed == len(replayed) >= 4
    assert replayed <= trained
    assert not trained & {entry["id"] for role in ("trained", "held_out") for entry in lineage[role]}
    assert verify(stage.state / "cycle_002").files.keys() >= {"reservoir.jsonl"}
    assert len((stage.state / "cycle_002/reservoir.jsonl").read_text().splitlines()) == len(trained) + second.trained


def test_no_texts_kept_when_configured(stage: Stage) -> None:
    """With training.reservoir = 0 there is no such file, and a cleared buffer leaves nothing to replay."""
    stage.config = changed(stage.config, "training", reservoir=0)
    stage.write(20)
    stage.sleep()
    assert not (stage.state / "cycle_001/reservoir.jsonl").exists()
    stage.write(10, start=20)
    stage.clock.advance(7 * 3600)
    assert stage.sleep().replayed == 0


def test_second_sleep_needs_new_and_time(stage: Stage) -> None:
    """After a cycle the three conditions count again from there."""
    stage.write(12)
    stage.sleep()
    assert unmet(stage.play(refresh)) == {"min_new_experiences": (0, 2), "min_hours_between_sleep": (0, 6)}
    stage.write(15)
    assert unmet(stage.play(refresh)) == {"min_hours_between_sleep": (0, 6)}
    stage.clock.advance(6 * 3600)
    assert stage.play(refresh).reason.startswith("Ready: 15 experiences (3 new)")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [("reject", "did not fall (3.000 -> 3.500"), ("loop", "greedy replies loop")],
)
def test_rejected_candidate_leaves_experiences_unlearned(stage: Stage, behaviour: str, words: str) -> None:
    """A rejection counts as a sleep, leaves the champion alone, and is kept with its reason."""
    stage.write(12)
    stage.sleep()
    stage.clock.advance(7 * 3600)
    stage.write(20)
    summary = stage.sleep(behaviour=behaviour)
    assert summary.state == "rejected"
    assert words in summary.reason
    assert verify((stage.state / "current").resolve()).cycle == 1
    assert verify(stage.state / "retired" / "cycle_002").verdict == "rejected"
    stage.clock.advance(7 * 3600)
    stage.write(23)
    again = stage.sleep()
    assert again.cycle == 3
    assert again.trained >= summary.trained


@pytest.mark.parametrize("behaviour", ["crash", "fail", "kill", "garbage"])
def test_failed_cycle_starts_a_cooldown(stage: Stage, behaviour: str) -> None:
    """Failure leaves new and last sleep as they were, says why, and waits before it tries again."""
    stage.config = changed(stage.config, "worker", stop_seconds=0.3)
    stage.write(12)
    summary = stage.sleep(behaviour=behaviour)
    assert summary.state == "failed"
    assert summary.reason
    assert summary.hint
    assert list((stage.state / "staging").iterdir()) == []
    assert not (stage.state / "current").exists()
    decision = stage.play(refresh)
    assert decision.reason.endswith("a failed cycle (10 min left)")
    assert decision.conditions[1].found == 12
    stage.clock.advance(601)
    assert stage.sleep().state == "promoted"


def test_failure_is_last_error_until_success(stage: Stage) -> None:
    """The status names the failure and its hint, across a restart, and forgets it after a verdict."""
    stage.write(12)
    stage.sleep(behaviour="fail")

    async def error(sleeper: OpenSleeper) -> Any:
        return sleeper.reader.last_error

    noted = stage.play(error)
    assert "it cannot be done" in noted.message
    assert noted.hint == "do something else"
    stage.clock.advance(601)
    stage.sleep()
    assert stage.play(error) is None


def test_other_base_is_vetoed(stage: Stage) -> None:
    """A worker that finds other weights than the champion's stops the cycles; rolling back to the base frees them."""
    stage.write(12)
    stage.sleep()
    stage.clock.advance(7 * 3600)
    stage.write(20)
    stage.sleep(behaviour="base_changed")
    stage.clock.advance(3600)

    async def scene(sleeper: OpenSleeper) -> list[str]:
        reasons = [(await sleeper.refresh()).reason]
        sleeper.rollback(0)
        reasons.append((await sleeper.refresh()).reason)
        return reasons

    blocked, freed = stage.play(scene)
    assert blocked.startswith("Base model changed")
    assert freed.startswith("Ready")


def test_other_quantization_is_vetoed(stage: Stage) -> None:
    """A champion of the unquantised base stops the cycles on the base in nf4 before a worker starts.

    Its way out is the base itself; what is then trained was measured on nf4, and says so in the status.
    """
    stage.write(12)
    stage.sleep()
    stage.clock.advance(7 * 3600)
    stage.write(20)
    stage.config = changed(stage.config, "model", quantization="nf4")

    async def scene(sleeper: OpenSleeper) -> list[str]:
        reasons = [(await sleeper.refresh()).reason]
        sleeper.rollback(0)
        reasons.append((await sleeper.refresh()).reason)
        return reasons

    async def measured(sleeper: OpenSleeper) -> str:
        champion = overview(sleeper.reader, next_check_at=None, config_path="").champion
        assert champion is not None
        return champion.quantization

    blocked, freed = stage.play(scene)
    assert blocked.startswith("Base model changed: cycle 1 was measured with model.quantization = none, and it is nf4")
    assert freed.startswith("Ready")
    assert stage.sleep().parent is None
    assert stage.play(measured) == "nf4"


def test_a_cancelled_cycle_is_discarded(stage: Stage) -> None:
    """Cancelling ends the worker, keeps nothing, is no error, and starts a cooldown instead of the same cycle again."""
    stage.write(12)

    async def scene(sleeper: OpenSleeper) -> CycleRecord | None:
        await sleeper.begin(Order())
        with pytest.raises(Busy, match="cycle 1"):
            await sleeper.begin(Order(force=True))
        with pytest.raises(Busy):
            sleeper.rollback(None)
        assert sleeper.cancel() == 1
        return await sleeper.finished()

    summary = stage.play(scene, behaviour="wait")
    assert summary.state == "cancelled"
    assert list((stage.state / "staging").iterdir()) == []
    assert stage.play(refresh).reason.endswith("cancelled cycle (10 min left)")
    stage.clock.advance(601)
    assert stage.play(refresh).should_sleep


def test_force_still_needs_training_data(stage: Stage) -> None:
    """Forced, a cycle runs at once; with nothing unlearned it is nothing to do."""
    stage.write(12)
    stage.sleep()
    with pytest.raises(NothingToDo, match="Nothing to train"):
        stage.sleep(Order(force=True))
    stage.write(24)
    summary = stage.sleep(Order(force=True))
    assert (summary.state, summary.is_forced) == ("promoted", True)


def test_pause_survives_a_restart(stage: Stage) -> None:
    """Paused stays paused until resumed, for a forced sleep too."""
    stage.write(12)

    async def pause(sleeper: OpenSleeper) -> None:
        sleeper.pause(is_paused=True)

    stage.play(pause)
    with pytest.raises(NothingToDo, match="Paused"):
        stage.sleep(Order(force=True))


async def discard(sleeper: OpenSleeper) -> None:
    sleeper.cancel()
    await sleeper.finished()


def test_overrides_reach_the_worker(stage: Stage) -> None:
    """Epochs, learning rate, strategy and max_experiences of an order are those of its job."""
    stage.write(30)

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.begin(Order(epochs=7, learning_rate=1e-3, max_experiences=4, strategy="gentle"))
        job = json.loads((sleeper.parts.checkpoints.staging_path(1) / "work" / "job.json").read_text())
        await discard(sleeper)
        return job

    job = stage.play(scene, behaviour="wait")
    strategy = job["strategy"]
    assert (strategy["name"], strategy["epochs"], strategy["learning_rate"]) == ("gentle", 7, 1e-3)
    with pytest.raises(NotFound, match="no strategy"):
        stage.sleep(Order(force=True, strategy="hard"))
    summary = stage.sleep(Order(force=True, max_experiences=4))
    assert summary.trained == 4


def test_continuing_cycle_has_lower_rate(stage: Stage, continuing: Strategy) -> None:
    """Its job has the strategy's share of the learning rate; a rate that is asked for by number stays as it is."""
    stage.write(20)
    stage.sleep()
    stage.write(30)

    async def rate(sleeper: OpenSleeper, asked: float | None) -> float:
        cycle = await sleeper.begin(Order(force=True, learning_rate=asked))
        job = json.loads((sleeper.parts.checkpoints.staging_path(cycle) / "work" / "job.json").read_text())
        await discard(sleeper)
        return float(job["strategy"]["learning_rate"])

    slower = stage.play(lambda sleeper: rate(sleeper, None), behaviour="wait")
    assert slower == continuing.learning_rate * continuing.continued_rate_share < continuing.learning_rate
    assert stage.play(lambda sleeper: rate(sleeper, 1e-3), behaviour="wait") == 1e-3


def test_retraining_uses_full_rate(stage: Stage) -> None:
    """Every trained experience is replayed, and the champion is there to be measured against."""
    stage.write(40)
    first = stage.sleep()
    stage.write(50)

    async def job(sleeper: OpenSleeper) -> Any:
        cycle = await sleeper.begin(Order(force=True))
        job = json.loads((sleeper.parts.checkpoints.staging_path(cycle) / "work" / "job.json").read_text())
        await discard(sleeper)
        return job

    usual = STRATEGIES["consolidate"]
    staged = stage.play(job, behaviour="wait")
    assert usual.lineage == "retrain"
    assert staged["strategy"]["learning_rate"] == usual.learning_rate
    assert staged["parent"].endswith("cycle_001")
    assert stage.sleep(Order(force=True)).replayed == first.trained


def test_other_lora_shape_restarts_from_base(stage: Stage) -> None:
    """A strategy that cannot continue the champion trains everything anew, without a parent."""
    stage.write(20)
    first = stage.sleep()
    stage.write(25)
    summary = stage.sleep(Order(force=True, strategy="gentle"))
    assert summary.parent is None
    assert summary.trained > first.trained


def test_caller_thresholds_apply_once(stage: Stage) -> None:
    """An older caller's thresholds decide its own question and are not recorded."""
    stage.write(4)

    async def scene(sleeper: OpenSleeper) -> tuple[bool, bool, int]:
        await sleeper.refresh()
        loose = sleeper.decide(Thresholds(min_experiences=3))
        return loose.due, sleeper.decide().due, len(sleeper.parts.ledger.decisions(limit=9))

    assert stage.play(scene) == (True, False, 1)


def test_decision_change_is_recorded(stage: Stage) -> None:
    """Looking again at the same facts writes nothing; another reason writes one more."""
    stage.write(3)

    async def scene(sleeper: OpenSleeper) -> list[str]:
        for _ in range(3):
            await sleeper.refresh()
        stage.write(12)
        await sleeper.refresh()
        return [record.decision.reason for record in sleeper.parts.ledger.decisions(limit=9)]

    assert [re.findall(r"\d+", reason) for reason in stage.play(scene)] == [["12", "12"], ["3", "5"]]


def test_rollback_and_its_undo(stage: Stage) -> None:
    """Back to the predecessor, to the base, and forward again: the link, the directories and the lessons follow."""
    stage.write(12)
    stage.sleep()
    stage.clock.advance(7 * 3600)
    stage.write(24)
    stage.sleep()

    async def scene(sleeper: OpenSleeper) -> None:
        assert sleeper.rollback(None) == (1, 2)
        assert [path.name for path in stage.state.glob("cycle_*")] == ["cycle_001"]
        await sleeper.refresh()
        assert sleeper.parts.intake.counts.unlearned > 0
        assert sleeper.rollback(None) == (None, 1)
        assert not (stage.state / "current").exists()
        with pytest.raises(NothingToDo):
            sleeper.rollback(None)
        with pytest.raises(NotFound):
            sleeper.rollback(9)
        assert sleeper.rollback(2) == (2, None)
        assert sorted(path.name for path in stage.state.glob("cycle_*")) == ["cycle_001", "cycle_002"]
        await sleeper.refresh()
        assert sleeper.parts.intake.counts.unlearned == 0

    stage.play(scene)
    assert verify((stage.state / "current").resolve()).cycle == 2


def test_a_number_is_never_used_twice(stage: Stage) -> None:
    """After a rollback and a failure the next cycle has a new number."""
    stage.write(12)
    stage.sleep()

    async def back(sleeper: OpenSleeper) -> None:
        sleeper.rollback(0)

    stage.play(back)
    assert stage.sleep(Order(force=True), behaviour="fail").cycle == 2
    assert stage.sleep(Order(force=True)).cycle == 3


def test_second_state_user_is_refused(stage: Stage) -> None:
    """The lock is held for as long as a sleeper is open."""

    async def scene(sleeper: OpenSleeper) -> None:
        with pytest.raises(StateLocked):
            Parts(stage.config, clock=stage.clock, listener=lambda event, fields: None)

    stage.play(scene)


def test_jumping_clock_neither_blocks_nor_storms(stage: Stage) -> None:
    """A sleep recorded in the future blocks for one interval after a restart; a year's jump makes one sleep due."""
    stage.write(12)
    stage.sleep()
    stage.write(20)
    stage.clock.wall -= timedelta(days=30)

    async def scene(sleeper: OpenSleeper) -> list[bool]:
        due = [(await sleeper.refresh()).due]
        stage.clock.advance(6 * 3600)
        due.append((await sleeper.refresh()).due)
        return due

    assert stage.play(scene) == [False, True]
    stage.clock.wall += timedelta(days=365)
    stage.sleep()
    assert not stage.play(refresh).due


# --- a lost ledger ---


def answers(stage: Stage) -> Any:
    """All that a client can ask, but for times of asking and of screening."""

    async def scene(sleeper: OpenSleeper) -> Any:
        decision = await sleeper.refresh()
        status = overview(sleeper.reader, next_check_at=None, config_path="")
        same = {"written_at": stage.clock.now(), "since": stage.clock.now(), "last_error": None, "free_bytes": None}
        buffer = msgspec.structs.replace(status.buffer, read_at=None, to_learn_since=None)
        details = [detail(sleeper.reader, each.cycle) for each in cycles(sleeper.reader, limit=99)]
        return decision, msgspec.structs.replace(status, buffer=buffer, **same), details, sleeper.parts.intake.counts

    return stage.play(scene)


@pytest.mark.parametrize("loss", ["deleted", "damaged", "torn"])
def test_lost_ledger_is_rebuilt(stage: Stage, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. An older history, three cycles: promoted, rejected, promoted and rolled back. 2. state.db is lost.

    Result: every answer is the same as before, and a damaged file is kept aside.
    """
    monkeypatch.setenv("TZ", "UTC")
    stage.state.mkdir(exist_ok=True)
    (stage.state / "scheduler_state.json").write_text(json.dumps(OLDER))
    for count, behaviour in ((12, "promote"), (18, "reject"), (24, "promote")):
        stage.clock.advance(7 * 3600)
        stage.write(count)
        stage.sleep(behaviour=behaviour)

    async def back(sleeper: OpenSleeper) -> None:
        sleeper.rollback(None)

    stage.play(back)
    stage.write(30)
    before = answers(stage)
    path = stage.state / "state.db"
    match loss:
        case "deleted":
            path.unlink()
        case "damaged":
            path.write_bytes(b"no database at all" * 100)
        case "torn":
            path.write_bytes(path.read_bytes()[:5000])
    after = answers(stage)
    assert after == before
    assert bool(list(stage.state.glob("state.db.damaged-*"))) == (loss != "deleted")
    assert stage.sleep(Order(force=True)).cycle == 8


# --- the older scheduler's state ---


OLDER = {
    "last_sleep_time": "2026-01-10T05:00:00.123456",
    "last_sleep_cycle": 4,
    "experiences_at_last_sleep": 9,
    "total_sleep_cycles": 3,
    "sleep_history": [{"cycle": 4, "timestamp": "2026-01-10T05:00:00", "num_experiences": 6, "final_loss": 4.02}],
}


def test_an_older_state_is_honoured(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first experiences count as seen, the last sleep as slept, and the numbering goes on."""
    monkeypatch.setenv("TZ", "UTC")
    stage.state.mkdir(exist_ok=True)
    (stage.state / "scheduler_state.json").write_text(json.dumps(OLDER))
    stage.write(10)
    assert unmet(stage.play(refresh))["min_new_experiences"] == (1, 2)
    stage.write(12)
    assert unmet(stage.play(refresh)) == {"min_hours_between_sleep": (1, 6)}
    stage.clock.advance(6 * 3600)
    summary = stage.sleep()
    assert summary.cycle == 5
    assert summary.trained + summary.held_out == 12
    state = stage.read("scheduler_state.json")
    assert state["total_sleep_cycles"] == 4
    assert [entry["cycle"] for entry in state["sleep_history"]] == [4, 5]


def test_older_training_state_stays_small(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lists the last cycles only, and still counts what all of them trained."""
    monkeypatch.setattr("sleepd.store.checkpoint_documents.KEPT_RESULTS", 2)
    stage.config = changed(stage.config, "triggers", min_hours_between_sleep=0.0)
    summaries = []
    for count in (12, 20, 28):
        stage.write(count)
        summaries.append(stage.sleep())
    state = json.loads((stage.state / "current" / "training_state.json").read_text())
    assert [entry["sleep_cycle"] for entry in state["training_history"]] == [2, 3]
    assert state["total_experiences_trained"] == sum(each.trained + each.replayed for each in summaries)
