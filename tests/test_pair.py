"""Tests of pairs: two strategies on the same examples, judged together, through breaks, cancels and failures."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.cycles.history import without_losers
from sleepd.cycles.running import runner
from sleepd.cycles.running.planning import Order
from sleepd.errors import Busy, StateDirectoryUnusable, UsageError
from sleepd.protocol.checkpoint.checkpoint_files import EVALUATION_FILE, LINEAGE_FILE, Evaluation, Lineage
from sleepd.protocol.job import Job, decode_job
from sleepd.protocol.verdict import PairComparison
from sleepd.store.sqlite.ledger_rows import CycleRecord
from tests.agents import changed, experiences, write_buffer
from tests.stages import OpenSleeper, Stage

PAIR = Order(strategies=("consolidate", "eager"))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Sixteen experiences."""
    stage = Stage(tmp_path)
    stage.write(16)
    return stage


def records(stage: Stage) -> list[CycleRecord]:
    """All cycles, oldest first."""

    async def scene(sleeper: OpenSleeper) -> list[CycleRecord]:
        return sleeper.parts.ledger.summaries()[::-1]

    return stage.play(scene)


def states(stage: Stage) -> list[str]:
    return [str(each.state) for each in records(stage)]


def staged(stage: Stage) -> list[str]:
    return sorted(entry.name for entry in (stage.state / "staging").iterdir())


def in_use(stage: Stage) -> str:
    link = stage.state / "current"
    return link.readlink().name if link.is_symlink() else ""


def job_of(stage: Stage, cycle: int) -> Job:
    return decode_job((stage.state / f"staging/cycle_{cycle:03d}/work/job.json").read_bytes())


def compared(stage: Stage, cycle: int) -> PairComparison:
    async def scene(sleeper: OpenSleeper) -> Any:
        return sleeper.parts.ledger.verdict(cycle)

    verdict = stage.play(scene)
    assert verdict.pair is not None
    return verdict.pair


async def begin(sleeper: OpenSleeper) -> int:
    return await sleeper.begin(PAIR)


async def go_on(sleeper: OpenSleeper) -> CycleRecord | None:
    """What the daemon does at its next look."""
    await sleeper.refresh()
    await sleeper.begin(Order())
    return await sleeper.finished()


async def until_second_trains(sleeper: OpenSleeper) -> None:
    await begin(sleeper)
    while sleeper.parts.state.running_cycle != 2 or sleeper.parts.runner.progress is None:
        await asyncio.sleep(0)


# --- both measured ---


def test_better_one_is_promoted(stage: Stage) -> None:
    """Both pass; the one with the smaller holdout loss is in use, the other is rejected and keeps its figures."""
    shown = stage.sleep(PAIR, behaviour="promote,better")
    assert (shown.cycle, shown.strategy, shown.state) == (2, "eager", "promoted")
    assert states(stage) == ["rejected", "promoted"]
    assert in_use(stage) == "cycle_002"
    loser = msgspec.json.decode((stage.state / "retired/cycle_001" / EVALUATION_FILE).read_bytes(), type=Evaluation)
    assert (loser.verdict.failed, loser.report.holdout_after) == (["rival"], 2.5)
    assert (stage.state / "retired/cycle_001/adapter_model.safetensors").exists()
    assert staged(stage) == []


def test_first_may_be_the_better(stage: Stage) -> None:
    """The order of training decides nothing."""
    shown = stage.sleep(PAIR, behaviour="better,promote")
    assert (shown.cycle, shown.state) == (1, "promoted")
    assert states(stage) == ["promoted", "rejected"]
    assert in_use(stage) == "cycle_001"
    mine, other = compared(stage, 1), compared(stage, 2)
    assert (mine.rival, mine.strategy, mine.decided_by, mine.is_better) == (2, "eager", "holdout", True)
    assert (other.rival, other.is_better) == (1, False)
    assert mine.holdout is not None
    assert other.holdout is not None
    assert mine.holdout.estimate == -other.holdout.estimate == 0.5


def test_one_that_fails_its_gates_loses(stage: Stage) -> None:
    """Only one passes: it is promoted, and the other keeps the reasons of its own gates."""
    stage.sleep(PAIR, behaviour="loop,promote")
    assert states(stage) == ["rejected", "promoted"]
    assert "replies loop" in records(stage)[0].reason
    assert compared(stage, 2).decided_by == "gates"


def test_neither_passes(stage: Stage) -> None:
    """The champion stays; both have their own verdict, and the comparison."""
    shown = stage.sleep(PAIR, behaviour="reject,reject")
    assert (shown.cycle, states(stage), in_use(stage)) == (1, ["rejected", "rejected"], "")
    assert compared(stage, 1).is_better is None


def test_same_examples_and_champion(stage: Stage) -> None:
    """Both jobs differ in number, directory, strategy and rival, and in nothing else; their examples are equal."""
    stage.sleep()
    stage.clock.advance(7 * 3600)
    stage.write(32)

    async def scene(sleeper: OpenSleeper) -> None:
        await begin(sleeper)

    stage.play(scene, behaviour="wait")
    first, second = job_of(stage, 2), job_of(stage, 3)
    assert (first.strategy.name, second.strategy.name) == ("consolidate", "eager")
    assert (first.rival, second.rival, first.parent_cycle) == (3, 2, 1)
    alike = msgspec.structs.replace(second, cycle=2, staging=first.staging, strategy=first.strategy, rival=first.rival)
    assert alike == first
    texts = [(stage.state / f"staging/cycle_00{cycle}/work/experiences.jsonl").read_bytes() for cycle in (2, 3)]
    assert texts[0] == texts[1]


def test_no_verdict_before_both(stage: Stage) -> None:
    """While the second one trains, the first is measured, and nothing of it is in use."""

    async def scene(sleeper: OpenSleeper) -> list[str]:
        await until_second_trains(sleeper)
        return [str(each.state) for each in sleeper.parts.ledger.summaries()]

    assert stage.play(scene, behaviour="better,wait") == ["training", "measured"]
    assert in_use(stage) == ""


def test_pair_is_one_look_at_the_data(stage: Stage) -> None:
    """That one strategy was not as good as the other is no rejection that moves the thresholds."""
    stage.sleep(PAIR, behaviour="better,promote")

    async def scene(sleeper: OpenSleeper) -> Any:
        return [each.cycle for each in without_losers(sleeper.parts.ledger.judged(limit=9))]

    assert stage.play(scene) == [1]


def test_rollback_undoes_a_pair(stage: Stage) -> None:
    """The promoted one is taken back as any other; the other one was never in use."""
    stage.sleep(PAIR, behaviour="promote,better")

    async def scene(sleeper: OpenSleeper) -> Any:
        return sleeper.reader.undo(2), sleeper.reader.undo(1), sleeper.rollback(None)

    assert stage.play(scene) == ("sleepctl rollback 0", "", (None, 2))


def test_lost_ledger_knows_pairs(stage: Stage) -> None:
    """Rebuilt from the checkpoints, both cycles name each other."""
    stage.sleep(PAIR, behaviour="promote,better")
    lineage = msgspec.json.decode((stage.state / "cycle_002" / LINEAGE_FILE).read_bytes(), type=Lineage)
    assert lineage.rival == 1
    for path in stage.state.glob("state.db*"):
        path.unlink()
    assert [(each.cycle, each.rival, str(each.state)) for each in records(stage)] == [
        (1, 2, "rejected"),
        (2, 1, "promoted"),
    ]


# --- what cannot be a pair ---


@pytest.mark.parametrize(
    ("names", "reason"),
    [(("consolidate", "gentle"), "other shapes"), (("eager", "eager"), "twice")],
)
def test_incomparable_strategies_are_refused(stage: Stage, names: tuple[str, str], reason: str) -> None:
    """Another adapter shape cannot continue the same champion; nothing is planned."""
    with pytest.raises(UsageError, match=reason):
        stage.sleep(Order(strategies=names))
    assert records(stage) == []


def test_pair_waits_for_a_suspended_one(stage: Stage) -> None:
    """It asks for other terms than a suspended cycle has, so it is refused until that has ended."""

    async def alone(sleeper: OpenSleeper) -> None:
        await sleeper.begin(Order())

    stage.play(alone, behaviour="wait")
    with pytest.raises(Busy, match="resumed first"):
        stage.sleep(PAIR)


# --- failures of one ---


@pytest.mark.parametrize(("behaviour", "left"), [("fail,promote", 2), ("promote,fail", 1), ("promote,crash", 1)])
def test_other_one_is_judged_alone(stage: Stage, behaviour: str, left: int) -> None:
    """A worker that fails costs its own cycle; the other has its verdict, which says that it was judged alone."""
    shown = stage.sleep(PAIR, behaviour=behaviour)
    assert (shown.cycle, shown.state, in_use(stage)) == (left, "promoted", f"cycle_00{left}")
    assert states(stage)[2 - left] == "failed"
    assert f"judged alone: cycle {3 - left} (strategy {records(stage)[2 - left].strategy}) failed" in shown.reason
    pair = compared(stage, left)
    assert (pair.rival_state, pair.is_better, pair.holdout) == ("failed", None, None)
    assert staged(stage) == []


def test_failure_of_one_is_no_cooldown(stage: Stage) -> None:
    """A verdict came of the pair, so the next cycle does not wait for the failed one."""
    stage.sleep(PAIR, behaviour="promote,fail")

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        return sleeper.parts.finding.facts()

    facts = stage.play(scene)
    assert (facts.unjudged_in_a_row, facts.cooldown_seconds_left) == (0, 0)


def test_pair_counts_as_one(stage: Stage) -> None:
    """Where cycles a day are counted, a pair is one."""
    stage.sleep(PAIR, behaviour="promote,better")

    async def scene(sleeper: OpenSleeper) -> int:
        return sleeper.reader.begun_since(stage.clock.now() - timedelta(days=1))

    assert stage.play(scene) == 1


def test_both_fail(stage: Stage) -> None:
    """Neither has a verdict, and their experiences stay to be learned."""
    shown = stage.sleep(PAIR, behaviour="fail,fail")
    assert (shown.cycle, states(stage), staged(stage)) == (1, ["failed", "failed"], [])


def test_worse_champion_ends_both(tmp_path: Path) -> None:
    """Found worse before the first trains, the champion is rolled back, and neither of the two continues it."""
    stage = Stage(tmp_path)
    stage.make_champions(12, 24)
    stage.write(40)
    stage.sleep(PAIR, behaviour="worse,worse")
    assert states(stage)[2:] == ["interrupted", "interrupted"]
    assert in_use(stage) == "cycle_001"
    assert staged(stage) == []


def test_unwritable_checkpoint_costs_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk does not take the first one's checkpoint, the second is judged alone."""
    settle = runner.settle

    async def full(job: Job, *arguments: Any, **more: Any) -> Any:
        if job.cycle == 1:
            raise OSError(28, "No space left")
        return await settle(job, *arguments, **more)

    monkeypatch.setattr(runner, "settle", full)
    stage.sleep(PAIR, behaviour="better,promote")
    assert states(stage) == ["failed", "promoted"]
    assert compared(stage, 2).rival_state == "failed"


# --- cancel, breaks ---


@pytest.mark.parametrize("is_second", [False, True])
def test_cancel_discards_both(stage: Stage, is_second: bool) -> None:
    """Whichever trains: the operator gave up the pair, and nothing of it is kept."""

    async def scene(sleeper: OpenSleeper) -> None:
        if is_second:
            await until_second_trains(sleeper)
        else:
            await begin(sleeper)
        sleeper.cancel()
        await sleeper.finished()

    stage.play(scene, behaviour="better,wait" if is_second else "wait,wait")
    assert states(stage) == ["cancelled", "cancelled"]
    assert (staged(stage), in_use(stage)) == ([], "")


def test_suspended_pair_is_cancelled(stage: Stage) -> None:
    """After a shutdown, too."""
    stage.play(until_second_trains, behaviour="better,wait")

    async def cancel(sleeper: OpenSleeper) -> int:
        return sleeper.cancel()

    assert stage.play(cancel) == 2
    assert (states(stage), staged(stage)) == (["cancelled", "cancelled"], [])


def test_shutdown_during_first_resumes(stage: Stage) -> None:
    """The first goes on where it was, then the second is trained; the same two numbers end."""
    stage.play(begin, behaviour="wait,wait")
    assert states(stage) == ["suspended", "suspended"]
    assert staged(stage) == ["cycle_001", "cycle_002"]
    shown = stage.play(go_on, behaviour="promote,better")
    assert (shown.cycle, states(stage)) == (2, ["rejected", "promoted"])


def test_shutdown_during_second_resumes(stage: Stage) -> None:
    """The first is not trained again: its figures are in the ledger."""
    stage.play(until_second_trains, behaviour="better,wait")
    assert states(stage) == ["measured", "suspended"]
    shown = stage.play(go_on, behaviour="fail,promote")
    assert (shown.cycle, states(stage), in_use(stage)) == (1, ["promoted", "rejected"], "cycle_001")


def test_dead_worker_is_resumed_with_its_pair(stage: Stage) -> None:
    """The second one's worker dies beside a resume point: the pair waits out the cooldown, and goes on."""
    stage.play(go_pair, behaviour="better,die_resumably")
    assert states(stage) == ["measured", "suspended"]
    stage.clock.advance(700)
    stage.play(go_on)
    assert states(stage) == ["promoted", "rejected"]


async def go_pair(sleeper: OpenSleeper) -> None:
    await begin(sleeper)
    await sleeper.finished()


def test_removed_experience_closes_both(stage: Stage) -> None:
    """What the agent has deleted is in no adapter, also where one of the pair was measured already."""
    stage.play(until_second_trains, behaviour="better,wait")
    write_buffer(stage.buffer, experiences(16)[1:])

    async def look(sleeper: OpenSleeper) -> None:
        await sleeper.refresh()

    stage.play(look)
    assert (states(stage), staged(stage)) == (["interrupted", "interrupted"], [])


def test_changed_base_closes_both(stage: Stage) -> None:
    """A measured one is not promoted on a base that it was not measured on."""
    stage.play(until_second_trains, behaviour="better,wait")
    stage.config = changed(stage.config, "model", base="/models/other")

    async def look(sleeper: OpenSleeper) -> None:
        await sleeper.refresh()

    stage.play(look)
    assert states(stage) == ["interrupted", "interrupted"]


@pytest.mark.parametrize("cycle", [1, 2])
@pytest.mark.parametrize("point", ["before", "after"])
def test_disk_error_between_verdicts(stage: Stage, monkeypatch: pytest.MonkeyPatch, cycle: int, point: str) -> None:
    """What is left open when a verdict cannot be recorded is judged at the next look, with the same result."""
    settle = runner.settle

    async def broken(job: Job, *arguments: Any, **more: Any) -> Any:
        if job.cycle == cycle and point == "before":
            raise runner.LedgerUnusable("the disk is full", hint="df -h")
        done = await settle(job, *arguments, **more)
        if job.cycle == cycle:
            raise runner.LedgerUnusable("the disk is full", hint="df -h")
        return done

    monkeypatch.setattr(runner, "settle", broken)
    with pytest.raises((StateDirectoryUnusable, runner.LedgerUnusable)):
        stage.sleep(PAIR, behaviour="better,promote")
    monkeypatch.setattr(runner, "settle", settle)
    if "measured" in states(stage):
        stage.play(go_on, behaviour="fail,fail")
    assert (states(stage), in_use(stage), staged(stage)) == (["promoted", "rejected"], "cycle_001", [])


def test_cancelled_half_stays_cancelled(stage: Stage) -> None:
    """A cut between the two records of a cancel: the next start closes the other one."""
    stage.play(until_second_trains, behaviour="better,wait")

    async def half(sleeper: OpenSleeper) -> None:
        sleeper.parts.runner.discard(2, runner.Event.CANCEL, "cancelled", with_rival=False)

    stage.play(half)
    assert states(stage) == ["interrupted", "cancelled"]


def test_waiting_one_is_not_counted(stage: Stage) -> None:
    """Each crash is the first one's, until it is given up; the second then has its own tries."""
    stage.play(begin, behaviour="wait,wait")

    async def crash(sleeper: OpenSleeper) -> None:
        sleeper.parts.runner.reopen(1)
        sleeper.parts.runner._advance(1, runner.Event.TRAINING_STARTED)

    for _ in range(4):
        stage.play(crash)
    assert states(stage) == ["interrupted", "suspended"]
    shown = stage.play(go_on, behaviour="fail,promote")
    assert (shown.cycle, shown.state) == (2, "promoted")
