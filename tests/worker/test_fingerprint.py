"""``fingerprint.json``: which prompts are recorded, whose the answers are, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from sleepd.policy.answer_distance import answers_apart
from sleepd.protocol.chat_example import Message
from sleepd.protocol.deployment.adapter_fingerprint import (
    CHANCES,
    REPLY_STEPS,
    AdapterFingerprint,
    ModelAnswer,
    PromptReference,
)
from sleepd.protocol.job import Report
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.messages import Context
from sleepd.worker.evaluation import fingerprint as module
from sleepd.worker.model.adapter import load_adapted, load_base
from sleepd.worker.model.device import choose_device
from sleepd.worker.process import process_memory

from .conftest import RecordingChannel, RunHere, examples, make_job

pytestmark = pytest.mark.worker
Line = tuple[Path, Report]
"""Where the two cycles stand, and the report of the second."""


def written(directory: Path) -> AdapterFingerprint:
    """What a cycle wrote into that directory."""
    return msgspec.json.decode((directory / "fingerprint.json").read_bytes(), type=AdapterFingerprint)


@pytest.fixture(scope="module")
def line(plain_model: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A cycle, and one that was trained from it."""
    from sleepd.worker.run import run

    directory = tmp_path_factory.mktemp("line")
    run(make_job(plain_model, models, directory / "first", cycle=4), examples(), RecordingChannel())
    given: dict[str, Any] = {"parent": str(directory / "first"), "parent_cycle": 4, "seed": 9}
    second = make_job(plain_model, models, directory / "second", cycle=5, **given)
    return directory, run(second, examples(), RecordingChannel())


def test_answers_are_those_of_the_three_models(line: Line, plain_model: Path) -> None:
    """Base, parent and candidate, loaded anew from disk, say what the fingerprint says, but for bfloat16's rounding."""
    directory, report = line
    found = written(directory / "second")
    assert (found.cycle, found.parent, found.dtype) == (5, 4, "float32")
    assert found.base_fingerprint == report.base_fingerprint
    device = choose_device("cpu")
    device = replace(device, dtype=torch.float32)
    chat = ChatFormat(load_base(plain_model, device)[1], "")
    models = {
        "base": load_base(plain_model, device)[0],
        "parent": load_adapted(plain_model, directory / "first", device)[0],
        "candidate": load_adapted(plain_model, directory / "second", device)[0],
    }
    for prompt in found.prompts:
        ids = chat.tokenizer.apply_chat_template(
            [{"role": one.role, "content": one.text} for one in prompt.messages], add_generation_prompt=True
        )["input_ids"]
        assert len(ids) == prompt.prompt_tokens
        for name, model in models.items():
            _assert_same(getattr(prompt, name), model, list(ids))


def _assert_same(recorded: ModelAnswer, model: Any, ids: list[int]) -> None:
    for step in recorded.steps:
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        for one in step:
            assert one.logprob == pytest.approx(expected[one.id].item(), abs=0.03)
        assert [one.logprob for one in step] == sorted((one.logprob for one in step), reverse=True)
        ids.append(step[0].id)


def test_prompts_are_trained_ones_and_reference_ones(line: Line) -> None:
    """Trained ones in the order of their gaps, three reference prompts, and one behind 700 tokens, all as sent."""
    found = written(line[0] / "second")
    kinds = [prompt.kind for prompt in found.prompts]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"trained": 6, "reference": 3, "long": 1}
    assert all(prompt.messages[0] == Message(role="system", text="You are a test.") for prompt in found.prompts)
    assert next(prompt for prompt in found.prompts if prompt.kind == "long").prompt_tokens >= module.LONG
    asked = {prompt.messages[-1].text for prompt in found.prompts if prompt.kind == "trained"}
    assert asked == {one.prompt for one in examples() if one.role == "train"}
    gaps = [
        min(answers_apart(one.candidate, other) for other in (one.base, one.parent))
        for one in found.prompts
        if one.kind == "trained"
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] > 0


def test_answers_have_their_bounds(line: Line) -> None:
    """At most three steps of at most fifty tokens, whose chances together are at most 1."""
    for prompt in written(line[0] / "second").prompts:
        for answer in (prompt.base, prompt.parent, prompt.candidate):
            assert len(answer.steps) <= REPLY_STEPS
            for step in answer.steps:
                assert len(step) <= CHANCES
                assert sum(math.exp(one.logprob) for one in step) <= 1.001


def test_recorded_answers_are_not_computed_again(line: Line, plain_model: Path, models: Path, tmp_path: Path) -> None:
    """Base and parent answer only those prompts that the parent's own fingerprint lacks, or has in other numbers."""
    parent = written(line[0] / "first")
    job = make_job(plain_model, models, tmp_path / "next", cycle=6, parent=str(tmp_path), parent_cycle=4)
    loaded = SimpleNamespace(fingerprint=parent.base_fingerprint)
    prompts = [module._Prompt(one.kind, Context(one.messages), [0] * one.prompt_tokens) for one in parent.prompts]
    other = replace(prompts[0], ids=[0])

    def recorded(**changes: object) -> dict[int, PromptReference]:
        said = msgspec.json.encode(msgspec.structs.replace(parent, **changes))
        (tmp_path / "fingerprint.json").write_bytes(said)
        return module._recorded(job, loaded, "float32", [other, *prompts])

    assert recorded() == dict(enumerate(parent.prompts, 1))
    for changes in ({"dtype": "bfloat16"}, {"base_fingerprint": "other"}, {"cycle": 3}, {"version": 0}):
        assert recorded(**changes) == {}
    (tmp_path / "fingerprint.json").write_bytes(b"{")
    assert module._recorded(job, loaded, "float32", prompts) == {}


def test_first_cycle_has_no_parent_answers(line: Line) -> None:
    """Where the parent is the base, its answers are not written twice."""
    found = written(line[0] / "first")
    assert found.parent is None
    assert {prompt.parent for prompt in found.prompts} == {None}


def test_cost_is_in_the_report(line: Line) -> None:
    """The report has the phase's seconds, and the file says how many of them the asking took."""
    directory, report = line
    assert 0 < written(directory / "second").seconds <= report.seconds["fingerprinting"]


def test_file_is_for_the_group_only(line: Line) -> None:
    """The file holds trained prompts: others may not read it, whatever the umask."""
    assert (line[0] / "second" / "fingerprint.json").stat().st_mode & 0o777 == 0o640


def test_long_prompts_lose_their_past(run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a conversation that is too long its last question is asked alone; what is too long by itself is left out."""
    monkeypatch.setattr(module, "LONGEST", 120)
    turn = Message(role="user", text="What happened before, and before that, and before all of it?")
    reply = Message(role="assistant", text="Nothing that anybody would remember.")
    talks = [
        msgspec.structs.replace(
            one,
            context=(turn, reply, Message(role="user", text=one.prompt)),
            prompt=one.prompt * (20 if one.id == "e0" else 1),
        )
        for one in examples()
    ]
    run_here(talks)
    trained = [prompt for prompt in written(tmp_path / "staging").prompts if prompt.kind == "trained"]
    assert [[one.role for one in prompt.messages] for prompt in trained] == [["system", "user"]] * 5
    assert "Who is number 0?" not in {prompt.messages[-1].text for prompt in trained}


def test_time_that_runs_out_is_a_warning(run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the seconds for evaluation do not suffice, no half fingerprint is left, and the report says why."""
    monkeypatch.setattr(module, "batched_replies", lambda _model, _device, asked, **_more: [None] * len(asked))
    report = run_here()
    (notice,) = [one for one in report.notices if one.event == "fingerprint_not_written"]
    assert (notice.level, "[evaluation] seconds" in notice.text) == ("warning", True)
    assert not (tmp_path / "staging/fingerprint.json").exists()


def test_memory_that_runs_out_is_a_warning(run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory while the answers are made costs the fingerprint and not the cycle; other errors are errors."""

    def fail(message: str) -> Callable[..., object]:
        def replies(*_arguments: object, **_more: object) -> object:
            raise RuntimeError(message)

        return replies

    monkeypatch.setattr(module, "batched_replies", fail("CUDA out of memory"))
    assert "memory ran out" in run_here().notices[-1].text
    assert not (tmp_path / "staging/fingerprint.json").exists()
    monkeypatch.setattr(module, "batched_replies", fail("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        run_here(name="again")


@pytest.mark.parametrize(("free", "dtype"), [(0, torch.bfloat16), (2**40, torch.float32)])
def test_float32_takes_free_memory_only(
    free: int, dtype: torch.dtype, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model in bfloat16 is widened where there is free memory for it, and else stays as it is."""
    device = replace(choose_device("cpu"), dtype=torch.bfloat16)
    model, _ = load_base(tiny_model, device)
    monkeypatch.setattr(module, "available_bytes", lambda: free)
    assert module.in_float32(model, device).dtype == dtype
    assert {one.dtype for one in model.parameters()} == {dtype}


def test_free_memory_is_that_of_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of a control group counts, also one of a group around it, and so does memory.high."""
    (tmp_path / "system.slice/sage.service").mkdir(parents=True)
    for name, limit, held in (("system.slice", "max", 900), ("system.slice/sage.service", "1000", 400)):
        (tmp_path / name / "memory.max").write_text(f"{limit}\n")
        (tmp_path / name / "memory.current").write_text(f"{held}\n")
    read = process_memory._read

    def seen(file: Path) -> str:
        return "0::/system.slice/sage.service\n" if str(file) == "/proc/self/cgroup" else read(file)

    monkeypatch.setattr(process_memory, "_read", seen)
    monkeypatch.setattr(process_memory, "_CGROUPS", tmp_path)
    assert process_memory.available_bytes() == 600
    (tmp_path / "system.slice/memory.high").write_text("1000")
    assert process_memory.available_bytes() == 100


def test_resumed_cycle_has_one_too(run_here: RunHere, tmp_path: Path) -> None:
    """A channel that breaks off in the middle of the answers leaves no file, and the next run writes it."""

    class Breaking(RecordingChannel):
        def send(self, message: msgspec.Struct) -> None:
            if getattr(message, "phase", "") == "fingerprinting" and len(self.messages) > 3:
                raise KeyboardInterrupt
            super().send(message)

    with pytest.raises(KeyboardInterrupt):
        run_here(channel=Breaking())
    assert not (tmp_path / "staging/fingerprint.json").exists()
