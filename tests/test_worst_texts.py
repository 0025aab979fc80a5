"""The worst texts among good ones, met by a real daemon and worker: a sample of ``tests/faults/worst_texts.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agents import changed, config_for, experiences
from tests.fakes import real_interpreter
from tests.faults.worst_texts import GOOD, live, worst, write

pytestmark = [pytest.mark.worker, pytest.mark.model]


def test_worst_texts_stop_no_learning(tmp_path: Path, tiny_model: Path) -> None:
    """With the daemon killed in screening and training, all good ones are learned from, and all bad ones are named."""
    bad = worst()
    write(tmp_path / "buffer.json", "array", list(bad.values()))
    config = config_for(tmp_path, min_experiences=GOOD, cooldown_seconds=0.0)
    config = changed(config, "worker", python=str(real_interpreter(tmp_path / "python")))
    result = live(tmp_path, changed(config, "model", base=str(tiny_model)), kills=True)
    assert result.learned == {record["id"] for record in experiences(GOOD)}
    assert len(result.set_aside) + len(result.quarantined) == len(bad) == 30
    assert all([*result.set_aside, *result.quarantined.values()])
