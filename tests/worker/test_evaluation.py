"""What is measured beside the holdout losses, on a tiny model: drift, noise, speech, recall, figures of one's own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from sleepd.protocol.evidence import TOKEN_CAP, RecallQuestion
from sleepd.protocol.job import Progress
from sleepd.worker.data.examples import ChatFormat
from sleepd.worker.evaluation import evaluation_command, loss_evaluator, probe_generation, reference_answers
from sleepd.worker.evaluation.loss_evaluator import Measured, chosen, noise_floor
from sleepd.worker.evaluation.probe_generation import Answers, HeldOut, Questions
from sleepd.worker.evaluation.reference_answers import chosen_prompts, reference_prompts
from sleepd.worker.failure import Stopped
from sleepd.worker.model import generate
from sleepd.worker.model.adapter import load_base
from sleepd.worker.model.device import choose_device
from sleepd.worker.model.generate import Asked, replies, stop_ids
from sleepd.worker.model.gguf.convert_gguf import open_base
from sleepd.worker.programs.tiny_model import make_tiny_tokenizer

from .conftest import REFERENCE_PROMPTS, RecordingChannel, RunHere, examples, make_job, quick
from .templates import pair

pytestmark = [pytest.mark.worker, pytest.mark.no_cover]  # slow when measured, and others run most of it

QUESTIONS = [RecallQuestion(question="Who is number 3?", expected=["blue"])]


# --- drift and noise ---


def test_drift_is_zero_only_before_training(run_here: RunHere, tmp_path: Path) -> None:
    """Of a first cycle the parent is the base, at 0; of a second it is where the first candidate ended."""
    first = run_here(name="first")
    assert first.evidence.drift.parent == 0.0
    assert first.evidence.drift.candidate > 0
    assert first.evidence.drift.prompts == REFERENCE_PROMPTS
    again = [msgspec.structs.replace(one, role="replay") if one.id in ("e0", "e1") else one for one in examples()]
    second = run_here(again, name="second", parent=str(tmp_path / "first"), measures_surprise=True)
    assert second.evidence.drift.parent == pytest.approx(first.evidence.drift.candidate, rel=1e-3)
    assert second.evidence.drift.candidate != second.evidence.drift.parent
    learned = first.evidence.newly_trained
    assert len(learned) == first.trained
    assert sum(one.candidate for one in learned) < sum(one.parent for one in learned)
    assert first.evidence.repeated == []
    assert {one.id for one in second.evidence.repeated} == {"e0", "e1"}
    surprises = {one.id: one.base for one in second.evidence.newly_trained}
    assert surprises == {one.id: pytest.approx(one.parent, rel=1e-3) for one in learned if one.id in surprises}
    for one in [*second.evidence.repeated, *second.holdout]:
        assert 0 < one.capped.candidate <= min(TOKEN_CAP, one.candidate) * 1.00001
        assert one.base != one.parent


def test_drift_is_measured_without_regulariser(run_here: RunHere) -> None:
    """The probes are there for every strategy; a higher rate drifts further."""
    slow = run_here(name="slow", strategy=quick(kl_weight=0.0, learning_rate=1e-4))
    fast = run_here(name="fast", strategy=quick(kl_weight=0.0, learning_rate=1e-2))
    assert fast.evidence.drift.candidate > 10 * slow.evidence.drift.candidate > 0


def test_noise_floor_is_small(run_here: RunHere) -> None:
    """In float32 two readings of one adapter differ by rounding only, and by less than the training changed."""
    report = run_here()
    assert 0 <= report.evidence.noise_floor < 1e-4
    assert report.holdout_before - report.holdout_after > report.evidence.noise_floor
    assert run_here(examples(6, 0), name="none").evidence.noise_floor is None


def test_noise_floor_is_scaled_rms() -> None:
    """Four experiences of ten tokens, two of them read again 0.3 and 0.4 nats off: sqrt(4 · 0.125) / 40."""
    losses = {name: Measured(20.0, 10, 20.0) for name in "abcd"}
    again = {"a": Measured(20.3, 10, 20.3), "b": Measured(19.6, 10, 19.6)}
    assert noise_floor(losses, again) == pytest.approx((4 * 0.125) ** 0.5 / 40)
    assert noise_floor(losses, {}) is None


def test_large_training_set_is_sampled(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report says of how many, and the sample is the same before and after."""
    monkeypatch.setattr("sleepd.worker.report.SAMPLED", 3)
    report = run_here()
    assert (report.trained, report.trained_measured) == (6, 3)
    assert report.train_after < report.train_before


def test_sample_ignores_the_order(run_here: RunHere) -> None:
    """By hash of the id."""
    channel, chat = RecordingChannel(), ChatFormat(make_tiny_tokenizer(), "")
    from sleepd.worker.data.examples import encode_examples

    sequences = encode_examples(chat, examples(6, 0), 512, channel)
    assert chosen(sequences, 3) == chosen(sequences[::-1], 3)
    assert len(chosen(sequences, 10)) == 6


# --- replies ---


@pytest.fixture(scope="module")
def tiny(tiny_model: Path, models: Path) -> Any:
    """Model, device and chat format of the tiny base."""
    directory, _ = open_base(str(tiny_model), "", models, lambda *_: None)
    device = choose_device("cpu")
    model, tokenizer = load_base(directory, device)
    return model, device, ChatFormat(tokenizer, "You are a test.")


def test_sampled_reply_depends_on_seed(tiny: Any) -> None:
    """The same seed gives the same tokens, alone or beside others; greedy ones beside it are still greedy."""
    model, device, chat = tiny
    prompts = [chat.prompt_ids(text) for text in ("Hi", "Who is number 3, and why?", "Go on.")]

    def made(*asked: Any) -> Any:
        return replies(model, device, asked, stop_ids=stop_ids(model, chat))

    together = made(Asked(prompts[0], 12, 7), Asked(prompts[1], 12, 8), Asked(prompts[2], 12))
    assert together == [*made(Asked(prompts[0], 12, 7)), *made(Asked(prompts[1], 12, 8)), *made(Asked(prompts[2], 12))]
    assert made(Asked(prompts[0], 12, 9)) != together[:1]
    assert made(Asked(prompts[0], 12)) != together[:1]
    assert [len(one) for one in made(Asked(prompts[0], 3), Asked(prompts[1], 5))] == [3, 5]


def test_sampling_follows_the_distribution() -> None:
    """Of two tokens whose probabilities at the temperature are 0.8 and 0.2, a thousand draws take about 800."""
    logits = torch.tensor([[0.0, -1e9, generate.TEMPERATURE * torch.log(torch.tensor(0.25)).item()]])
    draws = [generate._choose(logits.clone(), [torch.Generator().manual_seed(seed)]).item() for seed in range(1000)]
    assert 1 not in draws
    assert 770 < draws.count(0) < 830


def test_talk_uses_own_earlier_replies() -> None:
    """The template writes prompt, reply and the next prompt, with the system prompt once; the plain form too."""
    tokenizer = make_tiny_tokenizer()
    text = tokenizer.decode(ChatFormat(tokenizer, "Be brief.").talk_ids(["Hi", "Hello.", "Go on"]))
    assert text.count("Be brief.") == 1
    assert text.endswith(
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nGo on<|im_end|>\n<|im_start|>assistant\n"
    )
    tokenizer.chat_template = None
    plain = tokenizer.decode(ChatFormat(tokenizer, "").talk_ids(["Hi", "Hello.", "Go on"]))
    assert plain.endswith("User: Hi\nAssistant: Hello.\n\nUser: Go on\nAssistant:")


def test_only_needed_reference_prompts_are_prepared() -> None:
    """As many as stand beside the experiences in all steps, at most the strategy's number; without the term none."""
    strategy = quick(kl_prompts=10, kl_batch_size=3)
    assert [len(chosen_prompts(strategy, 1, steps).regularise) for steps in (2, 3, 4)] == [6, 9, 10]
    assert chosen_prompts(quick(kl_weight=0.0), 1, 4).regularise == []


def test_one_prompt_is_asked_once() -> None:
    """However many held-out experiences share it, and at most eight prompts."""
    given = [msgspec.structs.replace(one, prompt=f"Who is {i % 3}?") for i, one in enumerate(examples(0, 9))]
    assert [one.id for one in probe_generation.pick_for_replies(given)] == ["e0", "e1", "e2"]
    assert len(probe_generation.pick_for_replies(examples(0, 12))) == probe_generation.REPLIES


def test_three_models_get_same_questions(run_here: RunHere, tmp_path: Path) -> None:
    """All three ways are there for all three; the base is itself, whatever the parent is."""
    first = run_here(name="first", questions=QUESTIONS)
    second = run_here(name="second", parent=str(tmp_path / "first"), questions=QUESTIONS)
    probes = probe_generation.PROBES
    for report in (first, second):
        ways = {one.mode: one for one in report.evidence.collapse}
        assert list(ways) == ["greedy", "sampled", "talk"]
        assert ways["greedy"].candidate.replies == ways["sampled"].base.replies == probes
        assert ways["talk"].parent.replies == probe_generation.TALKS * (1 + len(probe_generation.FOLLOW_UPS))
    one, two = ({way.mode: way for way in report.evidence.collapse} for report in (first, second))
    assert one["sampled"].base == one["sampled"].parent == two["sampled"].base
    assert two["sampled"].parent == one["sampled"].candidate
    assert [reply.prompt for reply in first.evidence.probe_replies] == [
        *reference_prompts("probe")[:4],
        "Who is number 6?",
        "Who is number 7?",
    ]
    assert second.evidence.probe_replies[0].base == first.evidence.probe_replies[0].base
    assert second.evidence.probe_replies[4].parent == first.evidence.probe_replies[4].candidate == first.replies[0].text


def test_long_prompts_are_read_few_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many side by side as the bound on their tokens allows, and a prompt beyond it alone."""
    sizes = []

    def counting(_model: Any, _device: Any, batch: list[Any], **_more: Any) -> list[list[int]]:
        sizes.append(len(batch))
        return [[]] * len(batch)

    monkeypatch.setattr(generate, "replies", counting)
    for tokens in (100, 3000, 9000):
        asked = [Asked([1] * tokens, 2)] * 4
        assert len(generate.batched_replies(None, None, asked, at_once=3, stop_ids=frozenset())) == 4
    assert sizes == [3, 1, 2, 2, 1, 1, 1, 1]


def test_replies_do_not_copy_the_head(tiny_model: Path) -> None:
    """What reaches the head has no gaps in memory: torch would make a copy of the head's weights for each row."""
    model, _tokenizer = load_base(tiny_model, choose_device("cpu"))
    came = []
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _head, given: came.append((given[0].shape[:2], given[0].is_contiguous()))
    )
    replies(model, choose_device("cpu"), [Asked((1, 2, 3), 2), Asked((4, 5), 2)], stop_ids=frozenset())
    assert came == [((2, 1), True)] * 2


def test_base_probe_replies_are_made_once(
    tiny_model: Path, run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second first cycle asks the base only what is the owner's own; a damaged file is made again."""
    own = tmp_path / "models"
    own.mkdir()
    asked = []
    real = probe_generation.batched_replies

    def counting(model: Any, device: Any, batch: list[Any], **more: Any) -> Any:
        asked.append(len(batch))
        return real(model, device, batch, **more)

    monkeypatch.setattr(probe_generation, "batched_replies", counting)
    first = run_here(name="first", models_directory=str(own))
    many = sum(asked)
    asked.clear()
    assert run_here(name="second", models_directory=str(own)).evidence == first.evidence
    fewer = sum(asked)
    assert many - fewer == 2 * probe_generation.PROBES + probe_generation.TALKS * len(probe_generation.FOLLOW_UPS)
    (kept,) = own.glob("replies-*.json")
    kept.write_bytes(b'{"greedy": 7')
    assert run_here(name="third", models_directory=str(own)).evidence == first.evidence
    assert json.loads(kept.read_bytes())["answers"]["held_out"] == []


def test_candidate_replies_are_reused(run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next cycle asks its parent only what is the owner's own; of other weights nothing is believed."""
    run_here(name="first")
    kept = (tmp_path / "first/replies.json").read_bytes()
    asked = []
    real = probe_generation.batched_replies

    def counting(*given: Any, **more: Any) -> Any:
        asked.append(len(given[2]))
        return real(*given, **more)

    monkeypatch.setattr(probe_generation, "batched_replies", counting)
    second = run_here(name="second", parent=str(tmp_path / "first"))
    few = sum(asked)
    assert (tmp_path / "first/replies.json").read_bytes() == kept
    (tmp_path / "first/replies.json").write_bytes(kept.replace(b'"key":"', b'"key":"0'))
    asked.clear()
    assert run_here(name="third", parent=str(tmp_path / "first")).evidence == second.evidence
    assert sum(asked) - few == 2 * probe_generation.PROBES + probe_generation.TALKS * len(probe_generation.FOLLOW_UPS)


def test_out_of_memory_halves_reply_batch(run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replies are those of the whole batch, and nothing is lost."""
    whole = run_here(name="whole")
    real = generate.replies
    sizes = []

    def narrow(model: Any, device: Any, batch: list[Any], **more: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 6:
            raise MemoryError
        return real(model, device, batch, **more)

    monkeypatch.setattr(generate, "replies", narrow)
    assert run_here(name="narrow").evidence == whole.evidence
    assert max(sizes) > 6


def test_late_replies_are_missing(run_here: RunHere) -> None:
    """No collapse figures, no replies to judge, no recall; a warning says what is missing. The losses stand."""
    run_here(name="caching")
    report = run_here(evaluation_seconds=0.0, questions=QUESTIONS)
    # The base's may come from the cache; nobody else's can.
    assert (report.evidence.collapse, report.evidence.recall, report.replies) == ([], [], [])
    (notice,) = [one for one in report.notices if one.event == "evaluation_cut_short"]
    assert notice.level == "warning"
    assert re.findall(r"\d of \d [a-z-]+", notice.text) == ["2 of 2 held-out", "1 of 1 questions"]
    assert re.findall(r"(\w+) replies", notice.text) == ["greedy", "sampled", "talk"]
    assert report.evidence.drift.candidate > 0


def test_base_answers_keep_the_deadline(run_here: RunHere, tmp_path: Path) -> None:
    """Past it none is made: the cycle ends with a warning and without a drift, and the next one asks for them again."""
    changes = {"models_directory": str(tmp_path / "models"), "strategy": quick(drift_budget=0.025)}
    report = run_here(evaluation_seconds=0.0, **changes)
    (notice,) = [one for one in report.notices if one.event == "base_answers_cut_short"]
    count = 4 + 2 * REFERENCE_PROMPTS
    assert (notice.level, f"did not suffice for {count} of {count} reference" in notice.text) == ("warning", True)
    assert report.evidence.drift is None
    again = run_here(name="again", **changes)
    assert again.evidence.drift.candidate > 0
    assert "base_answers_cut_short" not in {one.event for one in again.notices}


def test_base_answers_are_kept_singly(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was complete when time ran out is kept in the cache, and only the others are asked for the next time."""
    model, tokenizer = load_base(tiny_model, choose_device("cpu"))
    chat, asked = ChatFormat(tokenizer, ""), []

    def first_one_only(_model: Any, _device: Any, batch: list[Any], **_more: Any) -> list[list[int] | None]:
        asked.append(len(batch))
        return [[1], *[None] * (len(batch) - 1)]

    monkeypatch.setattr(reference_answers, "batched_replies", first_one_only)

    def answers() -> list[bool]:
        prompts, device = [pair(text, "") for text in ("one", "two", "three")], choose_device("cpu")
        found = reference_answers.base_answers(
            model, device, chat, prompts, frozenset(), lambda _system: tmp_path / "answers.json", lambda _tokens: None
        )
        return [one is not None for one in found]

    assert [answers(), answers()] == [[True, False, False], [True, True, False]]
    assert asked == [3, 2]


def test_recall_counts_what_was_learned(run_here: RunHere) -> None:
    """A question that was trained until it is known is right for the candidate alone."""
    known = [msgspec.structs.replace(one, response="blue") for one in examples(6, 0)]
    asked = [RecallQuestion(question="Who is number 3?", expected=["green", "BLUE"])]
    report = run_here(known, questions=asked, strategy=quick(epochs=60, kl_weight=0.0, learning_rate=2e-2))
    (answer,) = report.evidence.recall
    assert (answer.base_is_right, answer.parent_is_right, answer.candidate_is_right) == (False, False, True)
    assert "blue" in answer.candidate


def test_evaluation_share_covers_all_phases(run_here: RunHere) -> None:
    """Measuring and evaluating, of the sum."""
    report = run_here()
    spent = report.seconds["measuring"] + report.seconds["evaluating"]
    assert report.evaluation_share == pytest.approx(spent / sum(report.seconds.values()))
    assert msgspec.structs.replace(report, seconds={}).evaluation_share is None


def test_questions_count_as_work() -> None:
    """More questions take longer; nothing asked takes nothing."""
    none, some = (
        Questions(held_out=[], recall=[], probes=[]),
        Questions(held_out=[HeldOut(id="a", prompt="a", ids=[1])], recall=["b"], probes=[pair("c", "")]),
    )
    assert none.work == 0
    assert some.work > 0


# --- the owner's own command ---


def command(tmp_path: Path, body: str) -> str:
    """A command that runs this Python."""
    script = tmp_path / "own evaluation.py"
    script.write_text("import json, os, sys, time\nfrom pathlib import Path\n" + body)
    return f"{sys.executable} '{script}' --mine"


def asked(tmp_path: Path, body: str, **changes: Any) -> Any:
    """The figures that the command gives, in this process."""
    job = make_job(Path("/base"), tmp_path, tmp_path / "staging", evaluation_command=command(tmp_path, body), **changes)
    return evaluation_command.figures(job, Path("/an/adapter"), Path("/base"), lambda: None)


def test_evaluation_command_runs_for_both(run_here: RunHere, tmp_path: Path, tiny_model: Path) -> None:
    """For the base without an argument; the figures come side by side, and a missing one is None."""
    body = (
        "here = {'argument': len(sys.argv), 'empty': len(os.listdir('.')), 'names': len(os.environ)}\n"
        "if len(sys.argv) > 2: here['bytes'] = Path(sys.argv[2], 'adapter_model.safetensors').stat().st_size\n"
        "assert sys.argv[1] == '--mine' and sys.argv[2:] == [os.environ['SLEEPD_ADAPTER']][: len(sys.argv) - 2]\n"
        "assert os.environ['SLEEPD_SYSTEM_PROMPT'] == 'You are a test.' and os.environ['SLEEPD_CYCLE'] == '1'\n"
        "assert os.environ['SLEEPD_QUANTIZATION'] == 'none'\n"
        "assert Path(os.environ['SLEEPD_BASE'], 'config.json').exists() and 'SLEEPD_SECRET' not in os.environ\n"
        "print(json.dumps(here))\n"
    )
    os.environ["SLEEPD_SECRET"] = "x"
    report = run_here(evaluation_command=command(tmp_path, body))
    del os.environ["SLEEPD_SECRET"]
    found = {one.name: (one.parent, one.candidate) for one in report.evidence.metrics}
    assert found["argument"] == (2, 3)
    assert found["bytes"][0] is None
    assert found["bytes"][1] > 0
    assert found["empty"] == (0, 0)
    assert not list((tmp_path / "staging/work").glob("evaluation-*"))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit('no data set')", "exit status 1: no data set"),
        ("print('{\"a\": true}')", "no JSON object of numbers"),
        ("print('{\"a\": 1e999}')", "a is not finite|no JSON object"),
        ("print('[1]')", "no JSON object of numbers"),
        ("print(json.dumps({'\\x1b[31m': 1}))", "no JSON object of numbers"),
        ("print(json.dumps({str(i): i for i in range(100)}))", "no JSON object of numbers"),
        ("print('[' * 50000)", "no JSON object of numbers"),
        ("print('x' * 10**7)", "more than 65536 bytes"),
        ("os.kill(os.getpid(), 9)", "exit status -9"),
    ],
)
def test_failing_command_gives_no_figures(tmp_path: Path, body: str, why: str) -> None:
    """Whatever it does, the reason is said."""
    with pytest.raises(evaluation_command.NoFigures, match=why):
        asked(tmp_path, body)


def test_missing_command_gives_no_figures(tmp_path: Path) -> None:
    """The reason is said."""
    job = make_job(Path("/base"), tmp_path, tmp_path / "staging", evaluation_command="/nowhere/command")
    with pytest.raises(evaluation_command.NoFigures, match="/command: No such file"):
        evaluation_command.figures(job, None, Path("/base"), lambda: None)


def test_failing_command_spares_the_cycle(run_here: RunHere) -> None:
    """Two warnings, no figures, and a report like any other."""
    report = run_here(evaluation_command="false")
    assert report.evidence.metrics == []
    failed = [notice for notice in report.notices if notice.event == "evaluation_command_failed"]
    assert [notice.level for notice in failed] == ["warning", "warning"]
    assert report.holdout_after < report.holdout_before


SLEEPER = (
    "import subprocess\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "Path(r'{pids}').write_text(f'{{os.getpid()}} {{child.pid}}')\n"
    "time.sleep(600)\n"
)


def is_gone(pid: int) -> bool:
    """Ended, or a zombie that its reaper has not met yet."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def wait_until_gone(pids: Path) -> None:
    deadline = time.monotonic() + 20
    while not all(is_gone(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_slow_command_is_killed_with_children(tmp_path: Path) -> None:
    """Its whole process group goes."""
    pids = tmp_path / "pids"
    with pytest.raises(evaluation_command.NoFigures, match="took longer than 3 s"):
        asked(tmp_path, SLEEPER.format(pids=pids), evaluation_seconds=3.0)
    wait_until_gone(pids)


ESCAPING = (
    "import subprocess\n"
    "escape = 'import os, sys, time\\nos.setsid()\\nif os.fork(): os._exit(0)\\nos.setsid()\\n"
    'open(sys.argv[1], "a").write(str(os.getpid()) + " ")\\ntime.sleep(600)\'\n'
    "for _ in range(3):\n"
    "    subprocess.Popen([sys.executable, '-c', escape, r'{pids}'], stdout=subprocess.DEVNULL)\n"
    "while len(Path(r'{pids}').read_text().split()) < 3: time.sleep(0.01)\n"
)


@pytest.mark.parametrize("ending", ["print('{}')", "sys.exit(3)", "time.sleep(600)"])
def test_escaped_descendants_are_killed(tmp_path: Path, ending: str) -> None:
    """Processes in sessions of their own end with the command, be it well, with an error, or by the deadline."""
    pids = tmp_path / "pids"
    pids.touch()
    with contextlib.suppress(evaluation_command.NoFigures):
        asked(tmp_path, ESCAPING.format(pids=pids) + ending, evaluation_seconds=5.0)
    assert len(pids.read_text().split()) == 3
    assert all(is_gone(int(pid)) for pid in pids.read_text().split())


def test_sigterm_ends_cycle_during_command(run_here: RunHere, tmp_path: Path) -> None:
    """The heartbeat goes on beside it, and is where the request to stop is obeyed."""
    pids = tmp_path / "pids"

    class Stopping(RecordingChannel):
        def progress(self, message: Progress) -> None:
            self._stop_requested = pids.exists() and bool(pids.read_text())
            super().progress(message)

    channel = Stopping()
    with pytest.raises(Stopped):
        run_here(evaluation_command=command(tmp_path, SLEEPER.format(pids=pids)), channel=channel)
    wait_until_gone(pids)
    assert channel.messages[-1].phase == "measuring"


def test_a_command_dies_with_its_worker(tmp_path: Path) -> None:
    """A worker killed by SIGKILL leaves no command behind, and nothing that one had started."""
    import signal
    import subprocess

    pids = tmp_path / "pids"
    body = f"{ESCAPING.format(pids=pids)}time.sleep(600)\n"
    pids.touch()
    job = make_job(Path("/base"), tmp_path, tmp_path / "staging", evaluation_command=command(tmp_path, body))
    program = (
        "import sys, msgspec\nfrom pathlib import Path\nfrom sleepd.protocol.job import decode_job\n"
        "from sleepd.worker.evaluation import evaluation_command\n"
        "evaluation_command.figures(decode_job(sys.argv[1].encode()), None, Path('/base'), lambda: None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, msgspec.json.encode(job).decode()]) as worker:
        while len(pids.read_text().split()) < 3:
            assert worker.poll() is None
            time.sleep(0.01)
        worker.send_signal(signal.SIGKILL)
    wait_until_gone(pids)


# --- probation ---


def test_champion_and_predecessor_are_compared(run_here: RunHere, tmp_path: Path) -> None:
    """Before anything is trained: the champion's loss and the predecessor's, and nobody's else."""
    run_here(name="one")
    run_here(name="two", parent=str(tmp_path / "one"))
    job = {"parent": str(tmp_path / "two"), "parent_cycle": 2, "later": ["e0", "e7", "vanished"]}
    report = run_here(name="three", predecessor=str(tmp_path / "one"), predecessor_cycle=1, **job)
    probation = report.evidence.probation
    assert (probation.champion, probation.predecessor) == (2, 1)
    assert {loss.id for loss in probation.losses} == {"e0", "e7"}
    pair = {pair.id: pair for pair in report.holdout}["e7"]
    loss = {loss.id: loss for loss in probation.losses}["e7"]
    assert loss.champion == pair.parent
    first = {pair.id: pair for pair in run_here(name="again", parent=str(tmp_path / "one")).holdout}["e7"]
    assert loss.predecessor == pytest.approx(first.parent, abs=1e-5)


@pytest.mark.model
def test_base_can_be_predecessor(run_here: RunHere, tmp_path: Path) -> None:
    """Predecessor '' is the base; the adapter that is trained is the same to the bit with a comparison and without."""
    run_here(name="one")
    wide = quick(rank=8, alpha=16, target_modules=["q_proj"])
    run_here(name="wide", strategy=wide)
    common = {"parent": str(tmp_path / "one"), "parent_cycle": 1, "later": ["e7"]}
    plain = run_here(name="plain", parent=str(tmp_path / "one"))
    for name, predecessor in (("base", ""), ("other_shape", str(tmp_path / "wide"))):
        report = run_here(name=name, predecessor=predecessor, **common)
        (loss,) = report.evidence.probation.losses
        (pair,) = [pair for pair in report.holdout if pair.id == "e7"]
        assert report.holdout_after == plain.holdout_after
        adapters = [(tmp_path / which / "adapter_model.safetensors").read_bytes() for which in ("plain", name)]
        assert adapters[0] == adapters[1]
        assert {check.name: check.figure for check in report.checks} == {
            check.name: check.figure for check in plain.checks
        }
        if not predecessor:
            assert loss.predecessor == pytest.approx(pair.base, abs=1e-5)
        else:
            assert abs(loss.predecessor - pair.base) > 1e-4


def test_unusable_predecessor_is_reported(run_here: RunHere, tmp_path: Path) -> None:
    """A damaged one, and one that is gone: no comparison, a warning, and the cycle goes on."""
    run_here(name="one")
    (tmp_path / "gone").mkdir()
    report = run_here(
        name="two", parent=str(tmp_path / "one"), parent_cycle=1, predecessor=str(tmp_path / "gone"), later=["e7"]
    )
    assert report.evidence.probation is None
    assert "predecessor_not_comparable" in [notice.event for notice in report.notices]
    assert report.steps > 0


def test_no_later_experiences_no_comparison(run_here: RunHere, tmp_path: Path) -> None:
    """Nor without a predecessor."""
    run_here(name="one")
    parent = {"parent": str(tmp_path / "one"), "parent_cycle": 1}
    assert run_here(name="two", predecessor="", **parent).evidence.probation is None
    assert run_here(name="three", later=["e7"], **parent).evidence.probation is None


def test_missing_answers_have_no_figures() -> None:
    """A way that one model could not finish is left out for all."""
    from sleepd.worker.evaluation.comparison import collapse, missing

    whole = Answers(greedy=["a b", "c d"], sampled=["a"], talk=["x"])
    cut = msgspec.structs.replace(whole, talk=None)
    assert [one.mode for one in collapse(whole, whole, cut)] == ["greedy", "sampled"]
    assert missing([whole, whole, cut]) == "talk replies"
    assert missing([whole, whole]) == ""


def test_divergence_from_itself_is_zero(tiny: Any) -> None:
    """The mean over all tokens, not over the chat examples."""
    from sleepd.worker.evaluation.reference_answers import encode_reference
    from sleepd.worker.model.losses import kl_from_base
    from sleepd.worker.model.memory.out_of_memory import MemoryLimits

    model, device, chat = tiny
    evaluator = loss_evaluator.LossEvaluator(
        model, device, MemoryLimits(2048, 2048, RecordingChannel()), lambda _tokens: None
    )
    sequences = encode_reference(chat, [pair("Hi", ""), pair("Who?", "")], ["short", "a much longer answer"], 512)
    references = evaluator.references(sequences)
    assert evaluator.divergence(sequences, references) == pytest.approx(0, abs=1e-6)
    other = dict(zip(references, reversed(evaluator.references(sequences[::-1]).values()), strict=True))
    assert other.keys() == references.keys()
    shifted = {id_: type(one)(one.tokens, one.log_probabilities.roll(1, -1)) for id_, one in references.items()}
    parts = torch.cat([kl_from_base(evaluator.logits(one), shifted[one.id]) for one in sequences])
    assert evaluator.divergence(sequences, shifted) == pytest.approx(parts.mean().item(), rel=1e-4)


@pytest.mark.model
def test_worse_champion_is_not_trained_on(run_here: RunHere, tmp_path: Path) -> None:
    """The cycle ends before its first step, with what was measured; a champion that is better goes on."""
    from sleepd.worker.failure import GiveUp

    experiences = [*examples(6, 2), *[msgspec.structs.replace(one, id=f"l{one.id}") for one in examples(6, 0)]]
    run_here(experiences, name="good", strategy=quick(epochs=10))
    spoiled = [msgspec.structs.replace(one, response="#" * 20) for one in experiences]
    run_here(spoiled, name="bad", parent=str(tmp_path / "good"), strategy=quick(epochs=10, learning_rate=2e-2))
    later = [one.id for one in experiences]
    channel = RecordingChannel()
    with pytest.raises(GiveUp) as caught:
        run_here(
            experiences,
            name="after_bad",
            channel=channel,
            parent=str(tmp_path / "bad"),
            parent_cycle=2,
            predecessor=str(tmp_path / "good"),
            predecessor_cycle=1,
            later=later,
        )
    failure = caught.value.to_failure()
    assert failure.kind == "champion_worse"
    assert failure.message.startswith("cycle 2 is worse than cycle 1")
    assert len(failure.probation.losses) == len(later)
    assert "training" not in {getattr(message, "phase", "") for message in channel.messages}
    report = run_here(
        experiences, name="after_good", parent=str(tmp_path / "good"), parent_cycle=1, predecessor="", later=later
    )
    assert report.evidence.probation.predecessor is None
    assert report.steps > 0


@pytest.mark.parametrize(("nats", "may_share"), [(0.4, True), (3.0, False)])
def test_short_replies_do_not_decide_packing(nats: float, may_share: bool) -> None:
    """Rounding moves a short reply's mean loss by more than the limit; replies of some length are compared."""
    from sleepd.worker.data.examples import Encoded
    from sleepd.worker.model.memory.out_of_memory import MemoryLimits

    class Rounding(loss_evaluator.LossEvaluator):
        def losses(self, sequences: Any, *, alone: Any = False) -> dict[str, Measured]:
            found = {one.id: 1.5 * one.supervised + (0.0 if alone else nats) for one in sequences}
            return {one.id: Measured(found[one.id], one.supervised, found[one.id]) for one in sequences}

    sequences = [Encoded(str(n), tuple(range(10 + length)), 10) for n, length in enumerate([3, 4, 40, 50])]
    evaluator = Rounding(None, None, MemoryLimits(512, 512, RecordingChannel()), lambda _tokens: None)
    assert (not evaluator.choose_packing(sequences, None)) is may_share
