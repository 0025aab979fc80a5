"""Tests of another champion put in use where something goes wrong on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleepd.protocol.job import Failure
from tests.stages import OpenSleeper, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """With one champion."""
    stage = Stage(tmp_path)
    stage.make_champions(12)
    return stage


def test_refused_rollback_is_logged(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the disk refuses a rollback after a cycle, the log says so with its hint, and the next refresh does it."""

    async def scene(sleeper: OpenSleeper) -> None:
        parts, retired = sleeper.parts, stage.state / "retired"
        parts.demotion.set_pending(1, "it is worse")
        retired.rename(stage.state / "away")
        parts.switch.demote_after_cycle()
        (told,) = (line for line in capsys.readouterr().out.splitlines() if "rollback_failed" in line)
        assert "the disk did not take it" in told
        assert "df -h" in told
        (stage.state / "away").rename(retired)
        await sleeper.refresh()
        assert (retired / "cycle_001").is_dir()
        assert sleeper.reader.champion() is None
        assert parts.demotion.pending() is None

    stage.play(scene)


def test_only_the_champion_found_worse_goes(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """A pending rollback of a champion that is not in use changes nothing; one by hand names what is in use."""

    async def scene(sleeper: OpenSleeper) -> None:
        parts = sleeper.parts
        parts.demotion.set_pending(7, "it is worse")
        parts.switch.demote_if_pending()
        assert (sleeper.reader.champion(), parts.demotion.pending()) == (1, None)
        model = parts.state.config.model
        parts.fit.note(Failure(kind="base_changed", message="it belongs to another base"), 1, model.base)
        assert parts.fit.base_changed(model)
        sleeper.rollback(0)
        sleeper.rollback(1)
        assert not parts.fit.base_changed(model)

    stage.play(scene)
    assert capsys.readouterr().out.count("champion_rolled_back") == 2
    told = [fields for event, fields in stage.events if event == "champion_rolled_back"]
    assert [fields["text"] for fields in told] == ["the base is in use: by hand", "cycle 1 is in use: by hand"]
    assert [(fields["champion"], fields["was"]) for fields in told] == [(None, 1), (1, None)]
