"""The losses that tell a changed library from the tested ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from sleepd import selftest
from sleepd.errors import WorkerFailed
from sleepd.worker.environment import silence_known_warnings
from sleepd.worker.programs import known_loss

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.worker


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose own weights came from another seed than usual."""
    directory = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(5)
    known_loss.make_tiny_model(directory)
    return directory


@pytest.mark.parametrize("dtype", known_loss.TOLERANCES)
def test_known_losses_are_met(tiny: Any, dtype: str) -> None:
    """With the pinned libraries both losses are within the tolerance, whatever torch's generator gives."""
    assert known_loss.difference(known_loss.known_losses(tiny, dtype=dtype), dtype) == ""


@pytest.mark.parametrize(
    ("place", "what"),
    [("torch.optim.AdamW", {"weight_decay": 0.2}), ("peft.LoraConfig", {"use_rslora": True})],
    ids=["optimiser", "adapter"],
)
def test_changed_library_is_noticed(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, place: str, what: dict[str, Any]
) -> None:
    """Another default of the optimiser or another scaling of the adapter runs without an error, to another loss."""
    module, _, name = place.rpartition(".")
    real = getattr(__import__(module, fromlist=[name]), name)
    monkeypatch.setattr(place, lambda *arguments, **options: real(*arguments, **{**options, **what}))
    said = known_loss.difference(known_loss.known_losses(tiny, dtype="float32"), "float32")
    assert " after 8 steps in float32, " in said


def test_changed_template_is_noticed(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more line end in each message changes the loss before any step."""
    from transformers import PreTrainedTokenizerBase

    real = PreTrainedTokenizerBase.apply_chat_template
    monkeypatch.setattr(
        PreTrainedTokenizerBase,
        "apply_chat_template",
        lambda self, messages, **options: real(self, messages, **options) + "\n",
    )
    said = known_loss.difference(known_loss.known_losses(tiny, dtype="float32"), "float32")
    assert "nats a token before 8 steps" in said


def test_known_warnings_are_silent(tiny: Any) -> None:
    """Loading, adapting and training a model leaves no FutureWarning in the worker's log; a new one is still seen."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        silence_known_warnings()
        known_loss.known_losses(tiny, dtype="float32")
        warnings.warn("something new is deprecated", FutureWarning, stacklevel=1)
    told = [str(each.message) for each in seen if issubclass(each.category, FutureWarning)]
    assert told == ["something new is deprecated"]


def test_only_a_number_is_known() -> None:
    """A loss that is no number is within no tolerance."""
    assert known_loss.difference({"before": float("nan"), "after": 0.0}, "bfloat16")


def test_both_ends_know_the_exit_status() -> None:
    """The daemon's side, which does not import torch's, has the same number for another loss."""
    assert selftest.OTHER_LOSS == known_loss.OTHER_LOSS


def test_selftest_tells_another_loss(tmp_path: Path) -> None:
    """What the worker's interpreter found is told, with the list of versions that were tested."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho 'expected a loss of 5.7, found 6' >&2\nexit {known_loss.OTHER_LOSS}\n")
    python.chmod(0o755)
    with pytest.raises(WorkerFailed, match="compute another loss") as caught:
        selftest._make_model(tmp_path / "model", str(python))
    assert "config/requirements/worker.txt" in caught.value.hint
