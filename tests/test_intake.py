"""Tests of how a buffer is read and counted again: when, under which configuration, and since when it is not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sleepd.buffer.reading.view import View
from sleepd.policy.selecting.selection import Counts
from tests.agents import changed, experiences, write_buffer
from tests.stages import OpenSleeper, Stage

MAIL = {"id": "mail", "prompt": "Who?", "response": "Write to anna.berg@gmail.com, please.", "salience": 0.9}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path)
    write_buffer(stage.buffer, [*experiences(11), MAIL])
    return stage


def test_unread_since_the_first_failure(stage: Stage) -> None:
    """The time at which the file could first not be read stays until it can be read; the counts stay as they were."""

    async def scene(sleeper: OpenSleeper) -> None:
        intake = sleeper.parts.intake
        assert intake.counts == Counts(total=0, new=0, eligible=0, unlearned=0, held_out=0)
        await sleeper.refresh()
        assert (intake.unread_since, intake.problem, intake.counts.total) == (None, "", 12)
        stage.buffer.rename(stage.directory / "away")
        stage.buffer.mkdir()
        began = stage.clock.now()
        for _ in range(2):
            await sleeper.refresh()
            assert intake.unreadable is not None
            assert intake.problem == intake.unreadable.message
            assert (intake.unread_since, intake.counts.total) == (began, 12)
            stage.clock.advance(60)
        stage.buffer.rmdir()
        (stage.directory / "away").rename(stage.buffer)
        await sleeper.refresh()
        assert (intake.unread_since, intake.unreadable, intake.problem) == (None, None, "")

    stage.play(scene)


def test_same_buffer_is_counted_once(stage: Stage) -> None:
    """It is counted again where the threshold, the handling of personal data or the file is another, and not else."""

    async def scene(sleeper: OpenSleeper) -> None:
        intake = sleeper.parts.intake
        await sleeper.refresh()
        first, buffer = intake.counts, intake.buffer
        await intake.recount()
        assert intake.counts is first
        config = changed(stage.config, "training", min_salience=0.85)
        sleeper.reconfigure(config)
        await sleeper.refresh()
        assert (first.eligible, intake.counts.eligible) == (12, 1)
        sleeper.reconfigure(changed(config, "quarantine", personal_data="set_aside"))
        await sleeper.refresh()
        assert (first.quarantined, intake.counts.quarantined) == (0, 1)
        assert intake.buffer is buffer
        write_buffer(stage.directory / "other.json", experiences(3))
        sleeper.reconfigure(changed(config, "buffer", path=str(stage.directory / "other.json"), default_salience=0.4))
        await sleeper.refresh()
        assert (intake.counts.total, intake.buffer.settings.default_salience) == (3, 0.4)

    stage.play(scene)


def test_two_polls_count_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two polls at once, one for a change and one for a request, count the buffer once."""
    monkeypatch.setattr("sleepd.buffer.reading.open_file.FRESH_NANOSECONDS", 0)  # an array is read anew while it is new
    counted: list[int] = []

    async def scene(sleeper: OpenSleeper) -> None:
        intake = sleeper.parts.intake
        count = intake._tally.count

        def noting(view: View, **more: Any) -> Any:
            counted.append(len(view.keys))
            return count(view, **more)

        monkeypatch.setattr(intake._tally, "count", noting)
        await asyncio.gather(sleeper.refresh(), sleeper.refresh())

    stage.play(scene)
    assert counted == [12]


def test_unnoted_rating_is_an_alarm(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be noted that a reply was rated down, an alarm says so until it is noted."""

    async def full(*_: Any) -> None:
        raise OSError(28, "No space left")

    async def scene(sleeper: OpenSleeper) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(sleeper.parts.intake.rated_down, "follow", full)
            await sleeper.refresh()
            (alarm,) = sleeper.parts.alarms.active
            assert alarm.name == "ratings_not_noted"
            assert "No space left" in alarm.text
        await sleeper.refresh()
        assert sleeper.parts.alarms.active == []

    stage.play(scene)
