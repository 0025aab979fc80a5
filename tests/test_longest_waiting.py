"""Tests of the buffer's lag: since when the oldest experience waits to be read, and to be learned."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sleepd.daemon.status_view import overview
from sleepd.protocol.status import BufferStatus
from tests.stages import OpenSleeper, Stage

HOUR = timedelta(hours=1)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """An empty state directory."""
    return Stage(tmp_path)


def polled(stage: Stage) -> BufferStatus:
    """The buffer in the status after one poll of a daemon that was just started."""

    async def scene(sleeper: OpenSleeper) -> BufferStatus:
        await sleeper.refresh()
        return overview(sleeper.reader, next_check_at=None, config_path="").buffer

    return stage.play(scene)


def test_oldest_waits_since_it_was_screened(stage: Stage) -> None:
    """What came first counts, also after a restart; once a cycle has trained it, what came later does."""
    began = stage.clock.now()
    stage.write(12)
    assert polled(stage).to_learn_since == began
    stage.clock.advance(HOUR.total_seconds())
    stage.write(24)
    assert polled(stage).to_learn_since == began
    stage.sleep()
    assert polled(stage).to_learn_since is None
    stage.clock.advance(HOUR.total_seconds())
    later = stage.clock.now()
    stage.write(40)
    assert polled(stage).to_learn_since == later


def test_new_ones_do_not_make_it_younger(stage: Stage) -> None:
    """While a daemon runs, the oldest one is kept in mind until it is learned or gone from the buffer."""
    stage.write(12)

    async def scene(sleeper: OpenSleeper) -> list[datetime | None]:
        found = []
        for count, start in ((12, 0), (24, 0), (12, 24)):
            stage.write(count, start=start)
            await sleeper.refresh()
            found.append(sleeper.reader.buffer.waits_since[1])
            stage.clock.advance(HOUR.total_seconds())
        return found

    began = stage.clock.now()
    assert stage.play(scene) == [began, began, began + 2 * HOUR]


def test_unreadable_buffer_has_its_moment(stage: Stage) -> None:
    """Once its writer has had its patience, it is told since when the buffer cannot be read, until it can be again."""
    stage.write(12)

    async def scene(sleeper: OpenSleeper) -> list[datetime | None]:
        found = []
        for text in (None, "{", "{ still", "{ still not", None):
            if text is None:
                stage.write(12)
            else:
                stage.buffer.write_text(text)
            stage.clock.advance(HOUR.total_seconds())
            await sleeper.refresh()
            found.append(sleeper.reader.buffer.waits_since[0])
        return found

    began = stage.clock.now()
    assert stage.play(scene) == [None, None, began + 3 * HOUR, began + 3 * HOUR, None]
