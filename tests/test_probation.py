"""Tests of the second look at a champion: the comparison, the rollback that follows, crashes in the middle of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sleepd.cycles.running.planning import Order
from sleepd.cycles.running.resume import staged_job
from sleepd.daemon.status_view import detail, overview
from sleepd.policy.judging.probation import MIN_EXPERIENCES, compare
from sleepd.protocol.evidence import LaterLoss, Probation
from sleepd.registry.demotion import Demotion
from sleepd.store.checkpoints import Checkpoints, verify
from sleepd.store.sqlite.database import Database
from tests.agents import experiences, write_buffer
from tests.stages import OpenSleeper, Stage


def measured(gains: list[float], predecessor: int | None = 1) -> Probation:
    losses = [
        LaterLoss(id=str(number), tokens=50, predecessor=3.0, champion=3.0 - gain) for number, gain in enumerate(gains)
    ]
    return Probation(champion=2, predecessor=predecessor, losses=losses)


@pytest.mark.parametrize(
    ("gains", "outcome", "words"),
    [
        ([0.3, 0.2, 0.25, 0.3], "better", "cycle 2 is better than cycle 1 (+0.26"),
        ([0.001, -0.001, 0.002, -0.001], "not_worse", "cycle 2 is not worse than cycle 1"),
        ([0.3, -0.3, 0.2, -0.3], "undecided", "not yet distinguishable from cycle 1"),
        ([-0.3, -0.2, -0.25, -0.3], "worse", "cycle 2 is worse than cycle 1 (-0.26"),
        ([-0.3, -0.2, -0.25], "undecided", "(3 later experiences; 4 are needed)"),
        ([-0.3], "undecided", "(1 later experience; 4 are needed)"),
        ([], "undecided", "(0 later experiences; 4 are needed)"),
    ],
)
def test_what_later_experiences_say(gains: list[float], outcome: str, words: str) -> None:
    """Better, not worse, worse, or nothing; with the figures it rests on."""
    found = compare(measured(gains), 0.95)
    assert found.outcome == outcome
    assert words in found.reason
    assert (found.gain is None) is (len(gains) < MIN_EXPERIENCES)


def test_the_base_as_predecessor() -> None:
    """It is called by its name."""
    assert "worse than the base" in compare(measured([-0.3] * 5, predecessor=None), 0.95).reason


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Two champions, and a night's new experiences."""
    stage = Stage(tmp_path)
    stage.make_champions(12, 24)
    stage.write(36)
    return stage


async def shown(sleeper: OpenSleeper) -> Any:
    await sleeper.refresh()
    return overview(sleeper.reader, next_check_at=None, config_path="")


def test_job_names_comparison(stage: Stage) -> None:
    """The champion before, and the experiences that came after the champion was planned, whatever their side."""
    stage.write(36)
    copies = experiences(2, start=0)
    for number, copy in enumerate(copies):
        copy["id"] = f"{990 + number:016x}"  # an old text under a new id
    write_buffer(stage.buffer, [*experiences(36), *copies])

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.begin(Order())
        job = staged_job(sleeper.parts.checkpoints, 3)
        sleeper.cancel()
        await sleeper.finished()
        return job

    job = stage.play(scene, behaviour="wait")
    assert (job.parent_cycle, job.predecessor_cycle) == (2, 1)
    assert (job.later_margin, job.later_is_capped) == (0.0, False)
    assert job.predecessor == str(stage.state / "cycle_001")
    assert sorted(job.later) == [f"{number:016x}" for number in range(24, 36)]


def test_first_champion_compares_with_base(tmp_path: Path) -> None:
    """Its predecessor is the base: an empty directory and no cycle. Before any champion there is nothing to compare."""
    stage = Stage(tmp_path)

    async def scene(sleeper: OpenSleeper) -> Any:
        cycle = await sleeper.begin(Order())
        job = staged_job(sleeper.parts.checkpoints, cycle)
        (sleeper.parts.checkpoints.staging_path(cycle) / "work" / "go").touch()
        await sleeper.finished()
        return job

    stage.write(12)
    first = stage.play(scene, behaviour="wait")
    assert (first.predecessor, first.later) == (None, [])
    stage.clock.advance(7 * 3600)
    stage.write(24)
    second = stage.play(scene, behaviour="wait")
    assert (second.predecessor, second.predecessor_cycle) == ("", None)


def test_a_worse_champion_is_rolled_back(stage: Stage) -> None:
    """By itself, with its reason; without a pause; shown as an alarm until the next promotion."""
    summary = stage.sleep(behaviour="worse")
    assert (summary.cycle, summary.state, summary.hint) == (3, "interrupted", "")
    assert "worse than cycle 1 (-0.5" in summary.reason
    assert (stage.state / "current").resolve().name == "cycle_001"
    assert [path.name for path in stage.state.glob("cycle_*")] == ["cycle_001"]
    assert verify(stage.state / "retired" / "cycle_002").cycle == 2
    event, fields = next(each for each in stage.events if each[0] == "champion_rolled_back")
    assert (event, fields["champion"], fields["was"]) == ("champion_rolled_back", 1, 2)
    assert "cycle 2 is worse than cycle 1" in fields["text"]

    status = stage.play(shown)
    assert [alarm.name for alarm in status.alarms] == ["champion_rolled_back"]
    assert status.alarms[0].text.startswith("rolled back automatically: ")
    assert status.decision.should_sleep, "it waits for nothing"
    assert status.last_error is None

    async def looked_at(sleeper: OpenSleeper) -> Any:
        return detail(sleeper.reader, 2)

    of_two = stage.play(looked_at)
    assert of_two.summary.is_rolled_back
    assert (of_two.comparison.outcome, of_two.compared_by) == ("worse", 3)

    assert stage.sleep().state == "promoted"
    assert stage.play(shown).alarms == []


def test_the_owners_choice_ends_the_alarm(stage: Stage) -> None:
    """Who puts a champion in use by hand has seen it."""
    stage.sleep(behaviour="worse")

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        assert sleeper.rollback(2) == (2, 1)
        return await shown(sleeper)

    assert stage.play(scene).alarms == []


def test_figures_decide_and_not_the_word(stage: Stage) -> None:
    """A worker that calls the champion worse without figures that say so has failed, and the champion stays."""
    summary = stage.sleep(behaviour="liar")
    assert (summary.state, summary.reason) == ("failed", "the champion is worse")
    assert (stage.state / "current").resolve().name == "cycle_002"


def test_a_passing_comparison_is_kept(stage: Stage) -> None:
    """It is in the next report, and shown with the champion, also after the ledger was lost."""
    stage.sleep(behaviour="reject")
    said = [fields["text"] for name, fields in stage.events if name == "champion_compared"]
    assert "2 is better than cycle 1" in said[-1]

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        champion = overview(sleeper.reader, next_check_at=None, config_path="").champion
        return champion, detail(sleeper.reader, 2).compared_by

    champion, compared_by = before = stage.play(scene)
    assert (champion.cycle, champion.comparison.outcome, compared_by) == (2, "better", 3)
    (stage.state / "state.db").unlink()
    assert stage.play(scene) == before


def test_probation_ends_when_later_experiences_confirm(tmp_path: Path) -> None:
    """Put in use on open, low sample it is on probation, until a comparison says that it is better."""
    stage = Stage(tmp_path)
    stage.write(9)
    summary = stage.sleep(behaviour="open")
    champion = stage.play(shown).champion
    assert (summary.state, champion.is_thin) == ("promoted", True)
    assert summary.is_on_probation
    assert champion.is_on_probation
    stage.clock.advance(7 * 3600)
    stage.write(20)
    stage.sleep(behaviour="reject")
    champion = stage.play(shown).champion
    assert (champion.cycle, champion.is_on_probation, champion.comparison.outcome) == (1, False, "better")


class PowerCut(BaseException):
    """Everything ends here."""


@contextmanager
def power_cut_at(point: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """From the finding on each write of the ledger and each rename counts, before and after; at one all ends."""
    passed: list[str] = []

    def reach(name: str) -> None:
        if passed or name == "before note_failure":
            passed.append(name)
        if len(passed) == point:
            raise PowerCut(name)

    def watched(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def around(self: Any, *arguments: Any, **named: Any) -> Any:
            reach(f"before {name}")
            done = real(self, *arguments, **named)
            reach(f"after {name}")
            return done

        monkeypatch.setattr(kind, name, around)

    with monkeypatch.context():
        for name in ("promote", "retire", "restore"):
            watched(Checkpoints, name)
        watched(Database, "transaction")
        watched(Demotion, "note_failure")
        yield passed


def test_power_cut_keeps_the_rollback(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards the predecessor is in use and the finding is known, or the cycle goes on and finds it again."""
    for point in range(1, 100):
        shutil.copytree(stage.directory, tmp_path / str(point), symlinks=True, ignore=shutil.ignore_patterns("[0-9]*"))
        copy = Stage(tmp_path / str(point))
        copy.clock = stage.clock

        async def scene(sleeper: OpenSleeper, point: int = point) -> list[str]:
            await sleeper.refresh()
            with power_cut_at(point, monkeypatch) as passed:
                await sleeper.begin(Order())
                await sleeper.finished()
            return passed

        try:
            passed = copy.play(scene, behaviour="worse")
        except PowerCut:
            passed = None
        monkeypatch.undo()
        status = copy.play(shown)
        if status.state == "suspended" or status.champion.cycle == 2:
            copy.clock.advance(7 * 3600)
            copy.sleep(behaviour="worse")
            status = copy.play(shown)
        assert (status.champion.cycle, [alarm.name for alarm in status.alarms]) == (1, ["champion_rolled_back"]), point
        assert verify(copy.state / "retired" / "cycle_002").cycle == 2
        assert not list((copy.state / "staging").iterdir())
        if passed is not None:
            return
    pytest.fail("it has no end")
