"""Two champions with their fingerprints, made once: a test works on a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.fake_engines import FakeRouter
from tests.serving.serving_stage import ServingStage, make_champions


@pytest.fixture(autouse=True)
def busy_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy engine is asked again at once."""
    monkeypatch.setattr("sleepd.serving.endpoint.BUSY_PAUSES", (0.0, 0.0))


@pytest.fixture(scope="session")
def two_champions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a buffer and a state directory; cycle 2 is in use."""
    directory = tmp_path_factory.mktemp("champions")
    make_champions(directory, 12, 24)
    return directory


@pytest.fixture
def router(stage: ServingStage) -> FakeRouter:
    """The engine of a stage that has a router."""
    assert isinstance(stage.engine, FakeRouter)
    return stage.engine
