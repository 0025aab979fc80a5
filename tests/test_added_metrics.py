"""Tests of figures that the owner adds after the verdict: where they stand, and what a broken limit does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.daemon.control_socket import Peer
from sleepd.daemon.publisher import Life
from sleepd.daemon.requests import Requests
from sleepd.daemon.status_view import detail, overview
from sleepd.errors import CheckpointInvalid, PermissionDenied, UsageError
from sleepd.protocol.answers import MetricResult
from sleepd.protocol.control import AddMetric
from sleepd.store.checkpoints import verify
from tests.agents import changed
from tests.stages import OpenSleeper, Stage

OWNER = Peer(pid=1, uid=0, gid=0)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Two champions."""
    stage = Stage(tmp_path)
    stage.make_champions(12, 24)
    return stage


async def reload() -> list[str]:
    return []


def add(stage: Stage, cycle: int, name: str, value: float | None, peer: Peer = OWNER) -> MetricResult:
    async def scene(sleeper: OpenSleeper) -> Any:
        requests = Requests(sleeper, sleeper.reader, Life(config_path=Path()), reload=reload)
        return await requests.respond(AddMetric(cycle=cycle, name=name, value=value), peer)

    return stage.play(scene)


def limited(stage: Stage, *limits: str) -> Stage:
    stage.config = changed(stage.config, "promotion", limits=limits)
    return stage


def test_a_figure_stands_beside_the_checkpoints(stage: Stage) -> None:
    """The checkpoint is as it was, the figure outlives the ledger, and shows with its cycle."""
    add(stage, 2, "accuracy", 0.9)
    assert verify(stage.state / "cycle_002").cycle == 2
    assert set(stage.read("metrics.json")) == {"2"}
    (stage.state / "state.db").unlink()

    async def scene(sleeper: OpenSleeper) -> Any:
        return detail(sleeper.reader, 2).metrics

    assert [(each.name, each.value) for each in stage.play(scene)] == [("accuracy", 0.9)]


def test_champion_breaking_limit_is_rolled_back(stage: Stage) -> None:
    """At once, by itself, with the limit as the reason; the alarm stands."""
    done = add(limited(stage, "accuracy >= 0.8"), 2, "accuracy", 0.7)
    assert (done.is_broken, done.was_champion, done.champion) == (True, True, 1)
    assert (stage.state / "current").resolve().name == "cycle_001"

    async def scene(sleeper: OpenSleeper) -> Any:
        return overview(sleeper.reader, next_check_at=None, config_path="").alarms

    (alarm,) = stage.play(scene)
    assert "cycle 2 breaks your limit" in alarm.text
    assert alarm.text.endswith(": accuracy 0.7, at least 0.8")


@pytest.mark.parametrize(
    ("limit", "of_parent", "value", "is_broken"),
    [
        ("accuracy >= parent - 0.1", 0.9, 0.8, False),
        ("accuracy >= parent - 0.1", 0.9, 0.7, True),
        ("accuracy >= parent - 0.1", None, 0.1, False),
        ("accuracy >= 0.1", None, 0.1, False),
        ("other >= 0.8", None, 0.1, False),
    ],
)
def test_what_a_limit_rests_on(
    stage: Stage, limit: str, of_parent: float | None, value: float, is_broken: bool
) -> None:
    """On the parent's figure, where it has one: what was not measured breaks nothing."""
    limited(stage, limit)
    if of_parent is not None:
        assert not add(stage, 1, "accuracy", of_parent).is_broken
    done = add(stage, 2, "accuracy", value)
    assert (done.is_broken, done.champion) == (is_broken, 1 if is_broken else 2)


def test_limit_broken_elsewhere_changes_nothing(stage: Stage) -> None:
    """It is said, and what is in use stays."""
    done = add(limited(stage, "accuracy >= 0.8"), 1, "accuracy", 0.1)
    assert (done.is_broken, done.was_champion, done.champion) == (True, False, 2)


def test_what_is_refused(stage: Stage) -> None:
    """A figure that is none; a user who may only look; a damaged file, which shows none and is not overwritten."""
    with pytest.raises(UsageError):
        add(stage, 2, "accuracy", float("nan"))
    with pytest.raises(PermissionDenied):
        add(stage, 2, "accuracy", 1.0, Peer(pid=1, uid=65534, gid=65534))
    (stage.state / "metrics.json").write_text("{")
    with pytest.raises(CheckpointInvalid, match=r"metrics\.json: not understood"):
        add(stage, 2, "accuracy", 1.0)

    async def scene(sleeper: OpenSleeper) -> Any:
        return detail(sleeper.reader, 2).metrics

    assert stage.play(scene) == []
    assert (stage.state / "metrics.json").read_text() == "{"


def test_wire_checks_the_name() -> None:
    """Nothing else than a short word comes through."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"op":"addmetric","cycle":1,"name":"a b"}', type=AddMetric)
