"""A tiny model for all the worker's tests, and a way to start the real worker on it."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from sleepd.config.strategies import find_strategy
from sleepd.protocol.job import Job, Progress, Report, TrainingExample, decode_message, encode
from sleepd.protocol.strategy import Strategy
from sleepd.worker.channel import Channel
from tests.fakes import real_interpreter
from tests.processes import LIMIT_SECONDS

NEED_TORCH = (
    "test_sampling.py",
    "test_cycle_run.py",
    "test_resume.py",
    "test_data.py",
    "test_hangs.py",
    "test_packing.py",
    "test_small_parts.py",
    "test_evaluation.py",
    "test_fingerprint.py",
    "test_stopping.py",
    "test_architectures.py",
    "test_any_base.py",
    "test_chat_templates.py",
    "test_chat_contract.py",
    "test_old_encodings.py",
    "test_tool_templates.py",
    "test_bounding.py",
    "test_conversation_cycle.py",
    "test_gguf_adapter.py",
    "test_quantization.py",
)
collect_ignore = [] if importlib.util.find_spec("torch") else list(NEED_TORCH)


REFERENCE_PROMPTS = 8
"""Of each set, in the cycles of this process."""


@dataclass
class Ended:
    """What came over the wire, and how the process ended."""

    messages: list[Any] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def last(self) -> Any:
        return self.messages[-1]


RunHere = Callable[..., Report]
"""What ``run_here`` gives; its arguments are those of ``make_job``."""
StartWorker = Callable[..., Ended]
"""What ``start_worker`` gives."""
BaseWith = Callable[[str | None], Path]
"""Makes a base with that chat template."""


@pytest.fixture(scope="session")
def plain_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, which says plain characters."""
    directory = tmp_path_factory.mktemp("plain") / "model"
    shutil.copytree(tiny_model, directory)
    make_plain(directory)
    return directory


def make_plain(directory: Path) -> None:
    """Have a tiny model say plain characters: as it is made, all its tokens are about as likely."""
    from safetensors.torch import load_file, save_file

    weights = load_file(directory / "model.safetensors")
    vocabulary = json.loads((directory / "tokenizer.json").read_bytes())["model"]["vocab"]
    plain = [number for token, number in vocabulary.items() if len(token) == 1 and " " < token < "\x7f"]
    weights["lm_head.weight"][plain] *= 15
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One models directory for all, so that the base's answers are made once."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Each phase of a cycle collects garbage, and looks through all that the tests before have left in this process."""
    gc.collect()
    gc.freeze()


def some_prompts(strategy: Strategy, seed: int, steps: int) -> Any:
    """The first ``REFERENCE_PROMPTS`` of each set of reference prompts."""
    from sleepd.worker.evaluation.reference_answers import Prompts, chosen_prompts

    chosen = chosen_prompts(strategy, seed, steps)
    return Prompts(*(each[:REFERENCE_PROMPTS] for each in (chosen.regularise, chosen.monitor, chosen.probe)))


@pytest.fixture(scope="package", autouse=True)
def short_replies() -> Iterator[None]:
    """In this process replies are short, which the tiny model never ends by itself, and reference prompts are few."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("torch"):
            for name in ("REPLY_TOKENS", "PROBE_TOKENS", "RECALL_TOKENS", "TALK_TOKENS"):
                patch.setattr(f"sleepd.worker.evaluation.probe_generation.{name}", 6)
            patch.setattr("sleepd.worker.measure.chosen_prompts", some_prompts)
        yield


def quick(**changes: Any) -> Strategy:
    """The default strategy, cut down to a second."""
    small = {"rank": 4, "alpha": 8, "epochs": 2, "min_steps": 0, "most_repeats": 1, "kl_prompts": 4, "kl_batch_size": 2}
    return msgspec.structs.replace(find_strategy("consolidate"), **{**small, "learning_rate": 5e-3, **changes})


def examples(trained: int = 6, held_out: int = 2, *, characters: int = 0) -> list[TrainingExample]:
    """Short experiences, or ones with replies of at least so many characters; the first ones to train on."""
    return [
        TrainingExample(
            id=f"e{i}",
            prompt=f"Who is number {i}?",
            response=f"Number {i} likes {['blue', 'green', 'red'][i % 3]}.".ljust(characters, "!"),
            salience=0.5 + i / 50,
            role="train" if i < trained else "holdout",
        )
        for i in range(trained + held_out)
    ]


@pytest.fixture
def start_worker(tiny_model: Path, models: Path, tmp_path: Path) -> StartWorker:
    """Returns a function that runs a whole worker process on a job and gathers its messages."""

    def start(*, stop_at_step: int | None = None, die_at_step: int | None = None, **changes: Any) -> Ended:
        job = make_job(tiny_model, models, tmp_path / "staging", **changes)
        (tmp_path / "staging/work/job.json").write_bytes(msgspec.json.encode(job))
        (tmp_path / "staging/work/experiences.jsonl").write_bytes(b"".join(encode(one) for one in examples()))
        python = real_interpreter(tmp_path / "python")
        return run_process(tmp_path / "staging", stop_at_step, die_at_step, python=str(python))

    return start


def said_by(program: Callable[[], int], *arguments: object, given: bytes = b"") -> str:
    """What a program of the worker's prints when it runs in this process, which saves importing torch."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ), contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", ["program", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert program() == 0
    return said.getvalue()


class RecordingChannel(Channel):
    """A channel that keeps its messages instead of sending them."""

    def __init__(self) -> None:
        super().__init__(socket.socket())
        self._end.close()
        self.messages: list[Any] = []

    def send(self, message: Any) -> None:
        self.messages.append(message)


@pytest.fixture
def run_here(tiny_model: Path, models: Path, tmp_path: Path) -> RunHere:
    """Returns a function that runs a cycle in this process, which saves importing torch, and gives its report."""

    def start(
        experiences: list[TrainingExample] | None = None,
        *,
        name: str = "staging",
        channel: Channel | None = None,
        **changes: Any,
    ) -> Report:
        from sleepd.worker.run import run

        job = make_job(tiny_model, models, tmp_path / name, **changes)
        return run(job, examples() if experiences is None else experiences, channel or RecordingChannel())

    return start


def make_job(model: Path, models: Path, staging: Path, **changes: Any) -> Job:
    """A job on the tiny model."""
    (staging / "work").mkdir(parents=True)
    given = {
        "cycle": 1,
        "base": str(model),
        "models_directory": str(models),
        "staging": str(staging),
        "system_prompt": "You are a test.",
        "strategy": quick(),
        "device": "cpu",
        "threads": 1,
    }
    return Job(**{**given, **changes})


def run_process(
    staging: Path, stop_at_step: int | None = None, die_at_step: int | None = None, *, python: str = sys.executable
) -> Ended:
    """Start ``python -m sleepd.worker`` as the daemon does, and read it to its end."""
    ours, theirs = socket.socketpair()
    command = [python, "-P", "-m", "sleepd.worker", "--fd", str(theirs.fileno()), str(staging)]
    ended = Ended()
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process, ours:
        theirs.close()
        for line in ours.makefile("rb"):
            message = decode_message(line)
            ended.messages.append(message)
            is_training = isinstance(message, Progress) and message.phase == "training"
            if is_training and stop_at_step is not None and message.step >= stop_at_step:
                process.send_signal(signal.SIGTERM)
                stop_at_step = None
            if is_training and die_at_step is not None and message.step >= die_at_step:
                break
        ours.shutdown(socket.SHUT_RDWR)
        ended.exit_code = process.wait(timeout=LIMIT_SECONDS)
    return ended
