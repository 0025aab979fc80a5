"""When a night ends early: what is looked at, which weights are kept, and what is said about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from sleepd.protocol.job import RESUME_POINT, TrainingExample
from sleepd.worker.model.adapter import read_adapter
from sleepd.worker.resume_point import read_resume_point
from sleepd.worker.run import run
from sleepd.worker.training.early_stopping import (
    LONG_CHARACTERS,
    DriftScaling,
    ValidationCheck,
    divide_holdout,
    is_enough,
    kept,
    report_what_was_kept,
    steps_to_check,
)

from .conftest import RecordingChannel, examples, make_job, quick


def look(step: int, loss: float, spread: float = 0.01) -> ValidationCheck:
    """The loss is the mean of three, which lie ``spread`` apart for every step that was made."""
    return ValidationCheck(
        step=step, losses=tuple((10, one) for one in (loss - spread * step, loss, loss + spread * step))
    )


def held_out(count: int, characters: int = LONG_CHARACTERS) -> list[TrainingExample]:
    return [
        TrainingExample(
            id=f"h{i}",
            prompt=f"question {i}",
            response=f"answer {i}".ljust(characters, "."),
            salience=0.7,
            role="holdout",
        )
        for i in range(count)
    ]


def test_validation_checks_are_even() -> None:
    """Six looks where there are steps enough, otherwise one after each step."""
    assert steps_to_check(60) == [10, 20, 30, 40, 50, 60]
    assert steps_to_check(3) == [1, 2, 3]


def test_few_held_out_experiences_all_judge() -> None:
    """Below twelve none is given away; above, about a third, and the same ones whatever else is there."""
    assert divide_holdout(held_out(11)) == (held_out(11), [])
    judging, given_away = divide_holdout(held_out(60))
    assert 12 <= len(given_away) <= 28
    assert sorted([*judging, *given_away], key=lambda one: int(one.id[1:])) == held_out(60)
    assert set(divide_holdout(held_out(50))[1]) == set(given_away) & set(held_out(50))


def test_short_replies_only_judge() -> None:
    """A held-out reply that states a fact says nothing about when to stop: it judges, however many there are."""
    short = held_out(60, LONG_CHARACTERS - 1)
    assert divide_holdout(short) == (short, [])


def test_last_check_within_chance_is_kept() -> None:
    """What differs by less than a standard error is as good, and then more steps are better; what is worse is not."""
    looks = [look(1, 3.0), look(2, 2.5), look(3, 2.6)]
    assert kept(looks) == looks[1]
    as_good = [look(1, 3.0), look(2, 2.5, 0.2), look(3, 2.6, 0.3), look(4, 2.9, 0.2)]
    assert kept(as_good[:3]) == as_good[2]
    assert kept(as_good) == as_good[2]
    assert kept([look(1, 2.5), look(2, 2.5)]).step == 2


def test_three_bad_checks_end_training() -> None:
    """Two looks may be worse, a third one ends it."""
    looks = [look(1, 2.5), look(2, 2.6), look(3, 2.7)]
    assert not is_enough([])
    assert not is_enough(looks)
    assert is_enough([*looks, look(4, 2.7)])
    assert not is_enough([*looks, look(4, 2.4)])


def test_scaling_and_early_stop_are_reported() -> None:
    """Drifts, budget and share; the kept loss and the last one with their steps; otherwise nothing."""
    channel = RecordingChannel()
    short = DriftScaling(whole_drift=0.05, drift=0.028, share=0.75)
    report_what_was_kept([look(8, 2.5), look(16, 2.6)], short, 0.03, channel)
    assert {notice.event: re.findall(r"[\d.]+%?", notice.text) for notice in channel.notices} == {
        "night_shortened": ["0.0500", "0.03", "75%", "0.0280"],
        "training_stopped_early": ["2.5000", "8", "2.6000", "16", "8"],
    }
    channel = RecordingChannel()
    report_what_was_kept([look(8, 2.5), look(16, 2.4)], None, 0.03, channel)
    report_what_was_kept([], None, 0.03, channel)
    assert channel.notices == []


def looks_of(staging: Path) -> list[ValidationCheck]:
    """Those of a training that is over, from its last resume point."""
    point = read_resume_point(staging / RESUME_POINT, torch.device("cpu"))
    assert point is not None
    return point.position.training.checks


@pytest.mark.worker
def test_adapter_over_budget_is_scaled_down(tiny_model: Path, models: Path, tmp_path: Path) -> None:
    """What was trained hard is kept at a share of its effect that is within the budget; report and notice say so."""
    strategy = quick(epochs=6, learning_rate=2e-2, kl_weight=0.0, drift_budget=1e9)
    free = run(make_job(tiny_model, models, tmp_path / "free", strategy=strategy), examples(), RecordingChannel())
    assert "night_shortened" not in {notice.event for notice in free.notices}
    budget = 0.5 * free.evidence.drift.candidate
    strategy = msgspec.structs.replace(strategy, drift_budget=budget)
    tight = run(make_job(tiny_model, models, tmp_path / "tight", strategy=strategy), examples(), RecordingChannel())
    (notice,) = [notice for notice in tight.notices if notice.event == "night_shortened"]
    found = re.search(r"was ([\d.]+), over .* down to (\d+)% of its effect, .* a drift of ([\d.]+)", notice.text)
    assert found is not None
    whole_drift, percent, drift = (float(group) for group in found.groups())
    assert drift <= budget < whole_drift
    shortened, whole = read_adapter(tmp_path / "tight"), read_adapter(tmp_path / "free")
    of_one = next(name for name in whole if ".lora_B." in name)
    share = (shortened[of_one].norm() / whole[of_one].norm()).item()
    assert abs(share - percent / 100) <= 0.006, "the text rounds it"
    for name, tensor in whole.items():
        # DriftScaling leaves the training itself alone, so that both were trained alike.
        torch.testing.assert_close(shortened[name], tensor * share if ".lora_B." in name else tensor)


@pytest.mark.worker
def test_a_budget_of_nothing_keeps_nothing(tiny_model: Path, models: Path, tmp_path: Path) -> None:
    """The adapter is then a null one, which no check lets pass for learning."""
    strategy = quick(drift_budget=0.0)
    report = run(make_job(tiny_model, models, tmp_path / "none", strategy=strategy), examples(), RecordingChannel())
    assert not {check.name: check.passed for check in report.checks}["adapter_changed"]


@pytest.mark.worker
def test_stopping_experiences_are_in_no_figure(tiny_model: Path, models: Path, tmp_path: Path) -> None:
    """Of enough held-out experiences some stop the training, and the report judges on the others alone."""
    job = make_job(tiny_model, models, tmp_path / "staging", strategy=quick(drift_budget=1e9))
    report = run(job, examples(6, 16, characters=LONG_CHARACTERS + 40), RecordingChannel())
    assert report.stopping >= 3
    assert report.held_out == len(report.holdout) == 16 - report.stopping
    assert [len(each.losses) for each in looks_of(tmp_path / "staging")] == [report.stopping] * len(
        looks_of(tmp_path / "staging")
    )
    assert looks_of(tmp_path / "staging")


@pytest.mark.worker
def test_retraining_starts_from_base(tiny_model: Path, models: Path, tmp_path: Path) -> None:
    """The adapter does not depend on the parent's weights; the losses before are the parent's all the same."""
    strategy = quick(lineage="retrain", kl_weight=0.0)
    unasked: dict[str, Any] = {"evaluation_seconds": 0.0}  # replies count for nothing here
    reports, weights = [], []
    for seed in (1, 2):
        parent, again = tmp_path / f"parent_{seed}", tmp_path / f"again_{seed}"
        run(make_job(tiny_model, models, parent, seed=seed, **unasked), examples(), RecordingChannel())
        job = make_job(tiny_model, models, again, strategy=strategy, parent=str(parent), **unasked)
        reports.append(run(job, examples(), RecordingChannel()))
        weights.append(read_adapter(again))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert reports[0].holdout_after == reports[1].holdout_after
    assert reports[0].holdout_before != reports[1].holdout_before
