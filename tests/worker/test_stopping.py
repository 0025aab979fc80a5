"""When a night ends early: what is looked at, which weights are kept, and what is said about it."""

from __future__ import annotations

import msgspec
import pytest
import torch

from sleepd.job import RESUME_POINT, Lesson
from sleepd.worker.model import read_adapter
from sleepd.worker.resume import read_resume_point
from sleepd.worker.run import run
from sleepd.worker.stopping import Look, divide_holdout, is_enough, kept, shortened_text, steps_to_look, stopped_text

from .conftest import RecordingChannel, lessons, make_job, quick


def look(step: int, drift: float | None = None, loss: float | None = None) -> Look:
    return Look(step=step, drift=drift, loss=loss)


def held_out(count: int) -> list[Lesson]:
    return [
        Lesson(id=f"h{i}", prompt=f"question {i}", response=f"answer {i}", salience=0.7, role="holdout")
        for i in range(count)
    ]


def test_the_looks_are_even_and_the_last_is_after_the_last_step():
    """Six looks where there are steps enough, otherwise one after each step."""
    assert steps_to_look(60) == [10, 20, 30, 40, 50, 60]
    assert steps_to_look(3) == [1, 2, 3]


def test_few_held_out_experiences_all_judge():
    """Below twelve none is given away; above, about a third, and the same ones whatever else is there."""
    assert divide_holdout(held_out(11)) == (held_out(11), [])
    judging, given_away = divide_holdout(held_out(60))
    assert 12 <= len(given_away) <= 28
    assert sorted([*judging, *given_away], key=lambda one: int(one.id[1:])) == held_out(60)
    assert set(divide_holdout(held_out(50))[1]) == set(given_away) & set(held_out(50))


def test_without_a_held_out_loss_the_last_look_within_the_budget_is_kept():
    """The drift may rise and fall again; what counts is the last point that is within the budget."""
    looks = [look(1, 0.01), look(2, 0.05), look(3, 0.02), look(4, 0.04)]
    assert kept(looks, 0.03) == looks[2]
    assert kept(looks, 0.05) == looks[3]
    assert kept(looks, 0.001) is None


def test_with_a_held_out_loss_the_lowest_within_the_budget_is_kept():
    """The best of those that are within the budget, whatever came after."""
    looks = [look(1, 0.01, 3.0), look(2, 0.02, 2.5), look(3, 0.02, 2.6), look(4, 0.09, 2.0)]
    assert kept(looks, 0.03) == looks[1]


def test_a_night_is_over_after_three_looks_in_vain():
    """Two looks may be worse, a third one ends it; over the budget counts as worse."""
    looks = [look(1, 0.01, 2.5), look(2, 0.01, 2.6), look(3, 0.05, 2.0)]
    assert not is_enough(looks, 0.03)
    assert is_enough([*looks, look(4, 0.01, 2.7)], 0.03)
    assert not is_enough([*looks, look(4, 0.01, 2.4)], 0.03)


def test_a_shortened_night_is_said_with_its_figures():
    """Both drifts, both steps and the budget; nothing is said where the budget changed nothing."""
    looks = [look(8, 0.02), look(16, 0.05)]
    text = shortened_text(looks, 0.03)
    assert text == (
        "after 16 steps the drift is 0.0500, over the budget of 0.03; the weights after 8 steps are kept, with a drift "
        "of 0.0200"
    )
    assert shortened_text(looks, 0.05) == ""
    assert "nothing of this night is kept" in shortened_text(looks, 0.001)


def test_an_early_stop_is_said_with_its_figures():
    """The lowest loss and the last one, with their steps; nothing is said where the last step is kept."""
    looks = [look(8, None, 2.5), look(16, None, 2.6)]
    assert "was lowest after 8 steps: 2.5000, against 2.6000 after 16" in stopped_text(looks, 16)
    assert stopped_text([look(8, None, 2.5), look(16, None, 2.4)], 16) == ""


def looks_of(staging) -> list[Look]:
    """Those of a training that is over, from its last resume point."""
    point = read_resume_point(staging / RESUME_POINT, torch.device("cpu"))
    assert point is not None
    return point.position.training.looks


@pytest.mark.worker
def test_a_night_beyond_its_budget_keeps_the_last_weights_within(tiny_model, models, tmp_path):
    """Trained hard on a budget between two looks, the earlier weights are saved, and report and notice say so."""
    strategy = quick(epochs=6, learning_rate=2e-2, kl_weight=0.0, drift_budget=1e9)
    free = run(make_job(tiny_model, models, tmp_path / "free", strategy=strategy), lessons(), RecordingChannel())
    assert free.kept_step == free.steps
    assert "night_shortened" not in {notice.event for notice in free.notices}
    drifts = [look.drift for look in looks_of(tmp_path / "free")]
    strategy = msgspec.structs.replace(strategy, drift_budget=(drifts[0] + max(drifts)) / 2)
    tight = run(make_job(tiny_model, models, tmp_path / "tight", strategy=strategy), lessons(), RecordingChannel())
    assert tight.kept_step is not None
    assert 0 < tight.kept_step < free.steps
    (notice,) = [notice for notice in tight.notices if notice.event == "night_shortened"]
    assert f"the weights after {tight.kept_step} steps are kept" in notice.text
    weights, last = read_adapter(tmp_path / "tight"), read_adapter(tmp_path / "free")
    assert any(not torch.equal(weights[name], last[name]) for name in weights)


@pytest.mark.worker
def test_a_night_that_is_never_within_its_budget_keeps_nothing(tiny_model, models, tmp_path):
    """The adapter is then the null one it began as, which no check lets pass for learning."""
    strategy = quick(drift_budget=0.0)
    report = run(make_job(tiny_model, models, tmp_path / "none", strategy=strategy), lessons(), RecordingChannel())
    assert report.kept_step == 0
    assert not {check.name: check.passed for check in report.checks}["adapter_changed"]


@pytest.mark.worker
def test_what_says_when_to_stop_is_in_no_figure(tiny_model, models, tmp_path):
    """Of enough held-out experiences some stop the training, and the report judges on the others alone."""
    job = make_job(tiny_model, models, tmp_path / "staging", strategy=quick(drift_budget=1e9))
    report = run(job, lessons(6, 16), RecordingChannel())
    assert report.stopping >= 3
    assert report.held_out == len(report.holdout) == 16 - report.stopping
    assert all(look.loss is not None for look in looks_of(tmp_path / "staging"))


@pytest.mark.worker
def test_retraining_starts_from_the_base_and_is_measured_against_the_parent(tiny_model, models, tmp_path):
    """The adapter does not depend on the parent's weights; the losses before are the parent's all the same."""
    strategy = quick(lineage="retrain", kl_weight=0.0)
    reports, weights = [], []
    for seed in (1, 2):
        parent, again = tmp_path / f"parent_{seed}", tmp_path / f"again_{seed}"
        run(make_job(tiny_model, models, parent, seed=seed), lessons(), RecordingChannel())
        job = make_job(tiny_model, models, again, strategy=strategy, parent=str(parent))
        reports.append(run(job, lessons(), RecordingChannel()))
        weights.append(read_adapter(again))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert reports[0].holdout_after == reports[1].holdout_after
    assert reports[0].holdout_before != reports[1].holdout_before
