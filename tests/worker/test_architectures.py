"""A short cycle on each of many architectures: trained and read back alike, or refused in a sentence.

The ordinary tests run the quick ones. All of them, about four minutes on two idle cores:
``SLEEPD_ALL_ARCHITECTURES=1 pytest tests/worker/test_architectures.py``.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

from sleepd.protocol.job import Report
from sleepd.worker.failure import GiveUp

from . import architectures
from .conftest import RecordingChannel, RunHere

pytestmark = [pytest.mark.worker, pytest.mark.no_cover]  # what it adds to the coverage, others measure
RUNS_ALL = bool(os.environ.get("SLEEPD_ALL_ARCHITECTURES"))
NAMES = [name for name, one in architectures.BY_NAME.items() if RUNS_ALL or one.is_quick]


def knows_places(base: Path) -> bool:
    """Whether the library can be asked for some places' logits alone: of transformers 4 not every architecture can."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.from_pretrained(base))]
    return "logits_to_keep" in inspect.signature(model.forward).parameters


@pytest.mark.parametrize("name", NAMES)
def test_each_architecture_trains_or_refuses(name: str, run_here: RunHere, tmp_path: Path) -> None:
    """A cycle ends with all proofs of effect and the notices that are due, or as base_unusable with a next step."""
    expected = architectures.BY_NAME[name]
    architectures.make(name, tmp_path / "base")
    channel = RecordingChannel()

    def start() -> Report:
        return run_here(base=str(tmp_path / "base"), channel=channel, models_directory=str(tmp_path / "models"))

    refused = expected.refused or ("" if knows_places(tmp_path / "base") else "cannot be trained")
    if refused:
        with pytest.raises(GiveUp, match=refused) as caught:
            start()
        assert (caught.value.kind, bool(caught.value.hint)) == ("base_unusable", True)
        return
    report = start()
    assert [check.name for check in report.checks if not check.passed] == []
    assert len(report.checks) == 4
    said = {notice.event for notice in report.notices}
    assert said >= expected.notices
    assert ("packing_off" in said) == ("packing_off" in expected.notices)
