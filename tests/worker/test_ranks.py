"""One training in two processes: the same result as in one, and what becomes of it where a process is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest
import torch
from safetensors.torch import load_file

from sleepd.protocol.job import RESUME_POINT, Job, Progress, decode_message, encode
from sleepd.worker.data.examples import Encoded
from sleepd.worker.failure import GiveUp, RankLost, Stopped
from sleepd.worker.model import loading
from sleepd.worker.model.device import Device
from sleepd.worker.run import TeamSize, run
from sleepd.worker.training.gradients import count
from sleepd.worker.training.ranks import rank_team
from sleepd.worker.training.step_gradients import deal
from tests.fakes import real_interpreter
from tests.processes import LIMIT_SECONDS

from .conftest import RecordingChannel, examples, make_job

pytestmark = [pytest.mark.worker]
two = pytest.mark.model  # each of these imports torch in a process of its own
TWO = TeamSize(processes=2, silence_seconds=120.0)
TOLERANCE = 1e-4
"""Of the largest weight, after 4 steps in float32. Measured: 3.1e-6; AdamW may turn a rounding error into more."""


@pytest.fixture
def job(tiny_model: Path, models: Path, tmp_path: Path) -> Job:
    """A job of its own."""
    return make_job(tiny_model, models, tmp_path / "staging")


def other_ranks() -> list[int]:
    """The processes that this one has started as ranks."""
    children = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return [each for each in children if b"training.ranks" in Path(f"/proc/{each}/cmdline").read_bytes()]


class Striking(RecordingChannel):
    """Does something to the other rank after an optimizer step."""

    def __init__(self, step: int, strike: Callable[[int], None]) -> None:
        super().__init__()
        self._step, self._strike = step, strike

    def progress(self, message: Progress) -> None:
        super().progress(message)
        if message.phase == "training" and message.step == self._step:
            self._step = -1
            for rank in other_ranks():
                self._strike(rank)


def weights(staging: Path) -> dict[str, torch.Tensor]:
    return load_file(staging / "adapter_model.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two weights, as a share of the largest weight."""
    largest = max(tensor.abs().max().item() for tensor in one.values())
    return max((one[name] - other[name]).abs().max().item() for name in one | other) / largest


def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both ranks compute in float32, so that what differs is the order of sums."""
    monkeypatch.setattr(loading, "choose_device", lambda _: Device(torch.device("cpu"), torch.float32, "cpu"))


def lost(job: Job, channel: RecordingChannel, size: TeamSize = TWO) -> RankLost:
    """How the run ends; no rank is left."""
    with pytest.raises(RankLost) as caught:
        run(job, examples(), channel, size)
    assert other_ranks() == []
    return caught.value


# --- pure ---


def test_shares_have_about_as_many_tokens() -> None:
    """Every chat example is in one share, shares differ by less than the longest one, and are the same each time."""
    members = [Encoded(id=str(number), ids=tuple(range(20 + 7 * number)), prompt_tokens=5) for number in range(9)]
    shares = deal(members, 3)
    assert sorted(one.id for share in shares for one in share) == [one.id for one in members]
    tokens = [sum(len(one.ids) for one in share) for share in shares]
    assert max(tokens) - min(tokens) < 20 + 7 * 8
    assert deal(list(reversed(members)), 3) == shares
    assert deal(members[:1], 2) == [members[:1], []]


def test_counts_are_of_the_whole_step() -> None:
    """Experiences and reference answers are counted apart, and the salience where it counts."""
    members = [Encoded(id=id_, ids=(1, 2, 3, 4), prompt_tokens=2, weight=0.5) for id_ in ("a", "r")]
    found = count(members, {"r"}, is_weighted=True)
    assert (found.supervised, found.reference_tokens, found.salience) == (2, 2, 1.0)
    assert count(members, {"r"}, is_weighted=False).salience == 0.0


# --- two processes ---


@two
@pytest.mark.measured
def test_two_ranks_give_the_same_adapter(
    tiny_model: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and losses are those of one process but for rounding; steps and supervised tokens are equal."""
    in_float32(monkeypatch)
    reports = []
    for processes in (1, 2):
        job = make_job(tiny_model, models, tmp_path / str(processes))
        reports.append(run(job, examples(), RecordingChannel(), TeamSize(processes, 120.0)))
    one, both = reports
    assert distance(weights(tmp_path / "1"), weights(tmp_path / "2")) < TOLERANCE
    assert both.holdout_after == pytest.approx(one.holdout_after, rel=1e-6)
    assert both.epoch_losses == pytest.approx(one.epoch_losses, rel=1e-6)
    assert (both.steps, both.supervised_tokens) == (one.steps, one.supervised_tokens)
    assert [notice.event for notice in both.notices] == ["gradients_shared"]
    left = {file.name for file in (tmp_path / "2" / "work").iterdir()}
    assert left == {Path(RESUME_POINT).name}


@two
@pytest.mark.measured
def test_killed_rank_leaves_a_resume_point(
    job: Job, tiny_model: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed rank ends the cycle in words as died, and one process goes on from there to the same adapter."""
    in_float32(monkeypatch)
    found = lost(job, Striking(2, lambda rank: os.kill(rank, signal.SIGKILL)))
    assert found.kind == "died"
    assert ("rank 1 of 2" in found.message, "SIGKILL" in found.message) == (True, True)
    assert found.hint
    report = run(job, examples(), RecordingChannel())
    assert [notice.text[-1] for notice in report.notices if notice.event == "cycle_resumed"] == ["2"]
    run(make_job(tiny_model, models, tmp_path / "whole"), examples(), RecordingChannel())
    assert distance(weights(tmp_path / "whole"), weights(tmp_path / "staging")) < TOLERANCE


@two
@pytest.mark.measured
def test_hung_rank_is_named_and_killed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that stops without ending is named with what it did, and killed; a resume point is left."""

    def stop(rank: int) -> None:
        os.kill(rank, signal.SIGSTOP)
        monkeypatch.setattr(rank_team, "PATIENCE_SHARE", 0.01)

    found = lost(job, Striking(1, stop))
    assert found.kind == "died"
    assert [part for part in ("rank 1 of 2", "1.2 s", "training") if part not in found.message] == []
    assert (Path(job.staging) / RESUME_POINT).exists()


@two
@pytest.mark.measured
def test_full_memory_of_a_rank_is_named(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank without room has all ranks begin the step again with narrower rows, and the notice names it."""
    program = tmp_path / "rank.py"
    program.write_text(
        "import runpy, torch, sleepd.worker.training.gradients as gradients\n"
        "real = gradients.row_logits\n"
        "def row_logits(model, row, device):\n"
        "    if len(row.members) > 1: raise MemoryError('no room')\n"
        "    return real(model, row, device)\n"
        "gradients.row_logits = row_logits\n"
        "runpy.run_module('sleepd.worker.training.ranks', run_name='__main__', alter_sys=True)\n"
    )
    monkeypatch.setattr(rank_team, "RANK_COMMAND", (sys.executable, "-P", str(program)))
    report = run(job, examples(), RecordingChannel(), TWO)
    narrowed = [notice.text for notice in report.notices if notice.event == "micro_batch_halved"]
    assert narrowed
    assert all("rank 1 of 2" in text for text in narrowed)
    assert report.steps == 4


@two
@pytest.mark.measured
def test_failing_rank_ends_the_cycle_in_words(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that cannot load the base ends the cycle with its own reason."""
    program = tmp_path / "rank.py"
    program.write_text(
        "import runpy, sleepd.worker.model.adapter as adapter\n"
        "def load_base(*_): raise MemoryError('no room for the base')\n"
        "adapter.load_base = load_base\n"
        "runpy.run_module('sleepd.worker.training.ranks', run_name='__main__', alter_sys=True)\n"
    )
    monkeypatch.setattr(rank_team, "RANK_COMMAND", (sys.executable, "-P", str(program)))
    with pytest.raises(GiveUp) as caught:
        run(job, examples(), RecordingChannel(), TWO)
    assert caught.value.kind == "out_of_memory"
    assert caught.value.message.startswith("rank 1 of 2")
    assert caught.value.message.endswith("no room for the base")
    assert caught.value.hint
    assert other_ranks() == []


@two
@pytest.mark.measured
def test_stopped_team_leaves_no_process(job: Job) -> None:
    """A request to stop ends all ranks within a step, with a resume point."""

    class Stopping(RecordingChannel):
        def progress(self, message: Progress) -> None:
            self._stop_requested = message.phase == "training" and message.step == 2
            super().progress(message)

    with pytest.raises(Stopped):
        run(job, examples(), Stopping(), TWO)
    assert other_ranks() == []
    assert (Path(job.staging) / RESUME_POINT).exists()


@two
@pytest.mark.measured
def test_ranks_end_with_a_killed_worker(job: Job, tmp_path: Path) -> None:
    """Where rank 0 is killed the kernel kills the others, and nothing else had to."""
    staging = Path(job.staging)
    (staging / "work" / "job.json").write_bytes(msgspec.json.encode(job))
    (staging / "work" / "experiences.jsonl").write_bytes(b"".join(map(encode, examples())))
    ours, theirs = socket.socketpair()
    command = [real_interpreter(tmp_path / "python"), "--fd", str(theirs.fileno()), "--processes", "2", str(staging)]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as worker, ours, ours.makefile("rb") as lines:
        theirs.close()
        for message in map(decode_message, lines):
            if isinstance(message, Progress) and message.phase == "training" and message.step:
                break
        ranks = psutil.Process(worker.pid).children(recursive=True)
        worker.kill()
        assert len(ranks) == 1
        assert psutil.wait_procs(ranks, timeout=LIMIT_SECONDS)[1] == []
