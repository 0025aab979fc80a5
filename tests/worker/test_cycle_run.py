"""Cycles on a tiny model, in this process: what is trained, from what, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from sleepd.protocol.job import Failure
from sleepd.worker.evaluation import loss_evaluator
from sleepd.worker.failure import GiveUp
from sleepd.worker.model import loading
from sleepd.worker.model.device import choose_device
from sleepd.worker.training import gradients
from sleepd.worker.training.schedule import rate_share

from .conftest import RecordingChannel, RunHere, examples, quick

pytestmark = pytest.mark.worker


def refused(run_here: RunHere, *arguments: Any, **changes: Any) -> Failure:
    """The failure that a cycle ends with."""
    with pytest.raises(GiveUp) as caught:
        run_here(*arguments, **changes)
    return caught.value.to_failure()


def test_supervised_tokens_are_reply_tokens(run_here: RunHere) -> None:
    """The report counts reply and end of turn, once an epoch, and nothing of prompts, general answers or holdout."""
    report = run_here()
    # One token a byte, and one that ends the turn.
    replies = sum(len(example.response.encode()) + 1 for example in examples() if example.role == "train")
    assert report.supervised_tokens == 2 * replies


def test_same_seed_gives_same_adapter(run_here: RunHere, tmp_path: Path) -> None:
    """Two runs of one job write the same bytes; another seed does not."""
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        run_here(name=name, seed=seed)
    one, two, three = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_second_cycle_continues_its_parent(run_here: RunHere, tmp_path: Path) -> None:
    """The child starts where the parent ended, and its weights then really move."""
    first = run_here(name="parent")
    job = {"expected_base": first.base_fingerprint, "strategy": quick(lineage="continue")}
    second = run_here(name="child", parent=str(tmp_path / "parent"), **job)
    assert second.holdout_before == pytest.approx(first.holdout_after, abs=1e-6)
    assert second.holdout_base == pytest.approx(first.holdout_base, abs=1e-6)
    assert second.train_after < first.train_after
    before = load_file(tmp_path / "parent/adapter_model.safetensors")
    after = load_file(tmp_path / "child/adapter_model.safetensors")
    assert all((before[name] != after[name]).any() for name in before)


def test_foreign_adapter_is_only_measured(run_here: RunHere, tmp_path: Path) -> None:
    """An adapter of another machine is compared with the champion, without a step, and its weights stay as they were.

    Its configuration is written anew: nothing of what the sender wrote there is used.
    """
    run_here(name="champion", seed=4)
    there = run_here(name="there", seed=3)
    config = json.loads((tmp_path / "there/adapter_config.json").read_bytes())
    (tmp_path / "there/adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/of/thor"}))
    held_out = [one for one in examples() if one.role == "holdout"]
    job = {"parent": str(tmp_path / "champion"), "foreign": str(tmp_path / "there"), "parent_cycle": 1}
    here = run_here(held_out, name="here", **job)
    assert (here.steps, here.trained, here.supervised_tokens, here.held_out) == (0, 0, 0, 2)
    measured = {one.id: one.candidate for one in there.holdout}
    assert {one.id: one.candidate for one in here.holdout if one.id in measured} == pytest.approx(measured, abs=1e-6)
    assert here.holdout_before != here.holdout_after
    assert [(check.name, check.passed) for check in here.checks] == [
        ("adapter_changed", True), ("reload_matches", True), ("losses_finite", True),
    ]  # fmt: skip
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("there", "here"))
    assert all(torch.equal(one[name], two[name]) for name in one | two)
    assert b"/of/thor" not in (tmp_path / "here/adapter_config.json").read_bytes()
    assert (tmp_path / "here/fingerprint.json").exists()


def test_nothing_supervised_is_a_failure(run_here: RunHere) -> None:
    """Experiences without a reply are refused before any step."""
    empty = [msgspec.structs.replace(one, response=" ") for one in examples()]
    assert refused(run_here, empty).kind == "nothing_supervised"


def test_another_base_than_expected_is_refused(run_here: RunHere) -> None:
    """A parent of another base is never continued."""
    assert refused(run_here, expected_base="0" * 64).kind == "base_changed"


def test_other_parent_shape_is_refused(run_here: RunHere, tmp_path: Path) -> None:
    """Rank and modules must be the parent's."""
    run_here(name="parent")
    failure = refused(run_here, name="rank", parent=str(tmp_path / "parent"), strategy=quick(rank=8, alpha=16))
    assert failure.kind == "shape_changed"
    narrow = quick(target_modules=["q_proj", "v_proj"])
    assert refused(run_here, name="fewer", parent=str(tmp_path / "parent"), strategy=narrow).kind == "shape_changed"


def test_damaged_or_pickled_parent_is_refused(run_here: RunHere, tmp_path: Path) -> None:
    """NaN, another shape, a header of 2^63 bytes, and a pickle are parent_unusable, each with the next step."""
    run_here(name="parent")
    whole = (tmp_path / "parent/adapter_model.safetensors").read_bytes()
    good = load_file(tmp_path / "parent/adapter_model.safetensors")
    name = next(iter(good))

    def spoiled(title: str, weights: Any) -> Failure:
        shutil.copytree(tmp_path / "parent", tmp_path / title)
        if weights is None:
            (tmp_path / title / "adapter_model.safetensors").rename(tmp_path / title / "adapter_model.bin")
        elif isinstance(weights, bytes):
            (tmp_path / title / "adapter_model.safetensors").write_bytes(weights)
        else:
            save_file(weights, tmp_path / title / "adapter_model.safetensors")
        return refused(run_here, name=f"after_{title}", parent=str(tmp_path / title))

    for failure in (
        spoiled("nan", {**good, name: good[name] * float("nan")}),
        spoiled("wrong_shape", {**good, name: good[name][:, :1].clone()}),
        spoiled("huge_header", (2**63).to_bytes(8, "little") + whole[8:]),
        spoiled("pickle", None),
    ):
        assert failure.kind == "parent_unusable"
        assert failure.hint


def test_missing_device_is_reported() -> None:
    """Auto names the reason for the CPU; cuda itself fails with it."""
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert choose_device("auto").description.startswith("cpu (cuda unavailable: ")
    with pytest.raises(GiveUp, match="cuda cannot be used: ") as caught:
        choose_device("cuda")
    assert caught.value.kind == "device_unusable"


def test_missing_base_is_failure_with_hint(run_here: RunHere) -> None:
    """A path that is not there, and a name that is not in the cache."""
    for name, base in (("path", "/nowhere/model"), ("hub", "nobody/no-such-model")):
        failure = refused(run_here, name=name, base=base)
        assert (failure.kind, bool(failure.hint)) == ("base_unusable", True)


def test_epochs_grow_to_enough_steps(run_here: RunHere) -> None:
    """Seven steps take four epochs, of two steps each for six experiences."""
    report = run_here(name="more", strategy=quick(epochs=1, min_steps=7))
    assert (report.epochs, report.steps) == (4, 8)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *, while_wider_than: int) -> list[int]:
    """Let the forward pass of a training step raise ``error`` as long as its row is wider than that many tokens."""
    real = gradients.row_logits
    widths = []

    def row_logits(model: Any, row: Any, device: torch.device) -> Any:
        widths.append(row.tokens)
        if row.tokens > while_wider_than:
            raise error
        return real(model, row, device)

    monkeypatch.setattr(gradients, "row_logits", row_logits)
    return widths


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("unable to mmap 69024 bytes from file </s/adapter_model.safetensors>: Cannot allocate memory (12)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:1154"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "cpu", "file", "jetson"])
def test_out_of_memory_halves_micro_batch(run_here: RunHere, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """In whatever words it comes: narrower rows, the same steps, and a notice in the report."""
    widths = failing(monkeypatch, error, while_wider_than=230)
    report = run_here()
    assert max(widths) > 230 >= widths[-1]
    assert {notice.event for notice in report.notices} == {"micro_batch_halved"}
    assert report.steps == 4
    assert report.truncated == 0


def test_out_of_memory_shortens_sequences_next(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """When one sequence is too much, sequences are cut, said so, and still trained."""
    failing(monkeypatch, OUT_OF_MEMORY[0], while_wider_than=120)
    long = [msgspec.structs.replace(one, prompt="Who? " * 30) for one in examples()]
    report = run_here(long, strategy=quick(kl_weight=0.0))
    events = [notice.event for notice in report.notices]
    assert events[-2:] == ["sequence_length_halved", "experiences_truncated"]
    assert report.supervised_tokens > 0


def test_out_of_memory_finally_gives_up(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an endless loop but a failure with the way out."""
    failing(monkeypatch, OUT_OF_MEMORY[0], while_wider_than=0)
    failure = refused(run_here)
    assert (failure.kind, bool(failure.hint)) == ("out_of_memory", True)


def test_out_of_memory_elsewhere_is_named(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the model itself is loaded there is no step back, but the daemon still hears the reason."""

    def load_base(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(loading, "load_base", load_base)
    failure = refused(run_here)
    assert (failure.kind, failure.message) == ("out_of_memory", "out of memory: no room")


def test_leaking_model_gets_single_rows(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where packed losses differ from single ones, packing is off, said so, and the result is still right."""
    real = loss_evaluator.row_logits

    def row_logits(model: Any, row: Any, device: torch.device) -> Any:
        extra = 5.0 * (len(row.members) > 1)
        rows = real(model, row, device)
        return [(one, logits + extra * torch.randn_like(logits), targets) for one, logits, targets in rows]

    monkeypatch.setattr(loss_evaluator, "row_logits", row_logits)
    report = run_here()
    assert "packing_off" in [notice.event for notice in report.notices]
    assert report.train_after < report.train_before


def test_other_step_error_is_raised(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours is not taken for a full memory."""
    failing(monkeypatch, RuntimeError("shapes cannot be multiplied"), while_wider_than=0)
    with pytest.raises(RuntimeError, match="shapes"):
        run_here()


def test_replayed_are_trained_and_counted(run_here: RunHere) -> None:
    """Replay is trained like the new ones, holdout never."""
    given = [msgspec.structs.replace(one, role="replay") if one.id in ("e0", "e1") else one for one in examples()]
    report = run_here(given)
    assert (report.trained, report.replayed, report.held_out) == (4, 2, 2)


def test_without_holdout_its_figures_are_none(run_here: RunHere) -> None:
    """What could not be measured is None, never 0."""
    report = run_here(examples(6, 0))
    assert (report.holdout_base, report.holdout_before, report.holdout_after) == (None, None, None)
    assert report.replies == []


def test_progress_has_an_estimate(run_here: RunHere) -> None:
    """The time to the end is known once anything was measured, and falls to little at the end."""
    channel = RecordingChannel()
    run_here(channel=channel)
    estimates = [m.eta_seconds for m in channel.messages if getattr(m, "phase", "") in ("training", "evaluating")]
    assert all(one is not None for one in estimates)
    assert estimates[-1] < max(estimates)


def test_rate_rises_then_falls() -> None:
    """Ten steps with a fifth of warm-up."""
    shares = [rate_share(step, 10, 0.2) for step in range(10)]
    assert shares[0] == pytest.approx(1 / 3)
    assert shares[2] == 1
    assert shares[2:] == sorted(shares[2:], reverse=True)
    assert 0.1 < shares[-1] < 0.2
    assert rate_share(0, 1, 0.1) > 0
