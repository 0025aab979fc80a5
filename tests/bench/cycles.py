"""Starts real workers for the benchmarks: a job from a list of experiences, its messages, its report."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sleepd.protocol.job import Failure, Job, Notice, Progress, Report, Role, TrainingExample, decode_message, encode
from sleepd.protocol.strategy import Strategy


@dataclass(frozen=True)
class Outcome:
    """One worker's end, and what its wire looked like."""

    report: Report
    wall_seconds: float
    first_progress_seconds: float
    longest_silence_seconds: float
    cpu_seconds: float
    """Processor time over all cores: what remains comparable where others use them too."""


def run_cycle(
    examples: Sequence[TrainingExample],
    strategy: Strategy,
    models: Path,
    staging: Path,
    *,
    parent: Path | None = None,
    cycle: int = 1,
    parent_cycle: int | None = None,
    system_prompt: str = "",
    base: str = "embedded",
    seed: int = 1,
    device: str = "auto",
) -> Outcome:
    """Run one cycle in a worker of its own. Ends the program where the worker gives up."""
    (staging / "work").mkdir(parents=True, exist_ok=True)
    job = Job(
        cycle=cycle,
        parent_cycle=parent_cycle,
        base=base,
        models_directory=str(models),
        parent=str(parent or ""),
        staging=str(staging),
        system_prompt=system_prompt,
        strategy=strategy,
        seed=seed,
        device=device,
    )
    (staging / "work" / "job.json").write_bytes(msgspec.json.encode(job))
    (staging / "work" / "experiences.jsonl").write_bytes(b"".join(encode(example) for example in examples))
    ours, theirs = socket.socketpair()
    started = last = time.monotonic()
    command = [sys.executable, "-m", "sleepd.worker", "--fd", str(theirs.fileno()), str(staging)]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    first, silence = 0.0, 0.0
    message: Any = None
    for line in ours.makefile("rb"):
        message = decode_message(line)
        now = time.monotonic()
        if now - last > 5:
            print(f"silent for {now - last:.1f} s before {message}", flush=True)
        silence, last = max(silence, now - last), now
        if isinstance(message, Progress) and not first:
            first = now - started
        if isinstance(message, Progress) and message.loss is not None and message.step % 8 == 0:
            print(f"{now - started:.0f} s: {message}", flush=True)
        if isinstance(message, Notice):
            print("notice:", message.event, message.text, flush=True)
    before = os.times()
    process.wait()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if not isinstance(message, Report):
        sys.exit(f"no report but {message if isinstance(message, Failure) else process.returncode}")
    return Outcome(message, time.monotonic() - started, first, silence, cpu)


def read_experiences(buffer: Path, min_salience: float) -> list[dict[str, Any]]:
    """The buffer's experiences (a JSON array) of at least that salience, in its order."""
    experiences = json.loads(buffer.read_bytes())
    return [one for one in experiences if one["salience"]["total"] >= min_salience]


def as_example(experience: dict[str, Any], role: Role) -> TrainingExample:
    """An experience of a buffer in that role."""
    return TrainingExample(
        id=experience["id"],
        prompt=experience["prompt"],
        response=experience["response"],
        salience=experience["salience"]["total"],
        role=role,
    )


def is_holdout(experience: dict[str, Any]) -> bool:
    """A fifth of all, by a hash of the normalised chat example: copies fall together."""
    text = re.sub(r"\W+", " ", f"{experience['prompt']} | {experience['response']}".lower()).strip()
    return hashlib.sha256(text.encode()).digest()[0] % 5 == 0


def show(title: str, outcome: Outcome) -> None:
    """Print a cycle's figures."""
    report = outcome.report
    print(f"== {title}: {report.trained} trained, {report.replayed} replayed, {report.held_out} held out")
    print(f"   {report.epochs} epochs, {report.steps} steps, {report.tokens} tokens, {report.tokens_per_second:.0f}/s")
    print(f"   epoch losses {[round(loss, 3) for loss in report.epoch_losses]}")
    print(f"   train {_figure(report.train_before)} -> {_figure(report.train_after)}", end="")
    print(f"   holdout base {_figure(report.holdout_base)}, parent {_figure(report.holdout_before)}", end="")
    print(f" -> {_figure(report.holdout_after)}")
    print(f"   checks {[(check.name, check.passed, float(f'{check.figure:.3g}')) for check in report.checks]}")
    print(f"   loops {sum(reply.is_loop for reply in report.replies)} of {len(report.replies)} replies", end="")
    print(f" (the parent's: {sum(reply.parent_is_loop for reply in report.replies)})")
    share = "none" if report.evaluation_share is None else f"{report.evaluation_share:.0%}"
    print(f"   seconds {report.seconds}, of these {share} evaluation, wall {outcome.wall_seconds:.1f}", end="")
    print(f", first progress {outcome.first_progress_seconds:.1f}", end="")
    print(f", longest silence {outcome.longest_silence_seconds:.1f}")
    print(f"   processor seconds {outcome.cpu_seconds:.0f}")
    print(f"   peak {report.peak_memory_bytes / 2**20:.0f} MiB, {report.dtype}, {report.device}", flush=True)


def _figure(loss: float | None) -> str:
    return "none" if loss is None else f"{loss:.3f}"


def drift(models: Path, base: str, adapters: Iterable[Path], system_prompt: str) -> list[float]:
    """KL from the base in nats a token, over the base's own answers to prompts that training never sees; by adapter."""
    from sleepd.worker.channel import Channel
    from sleepd.worker.data.examples import ChatFormat
    from sleepd.worker.evaluation.loss_evaluator import LossEvaluator
    from sleepd.worker.evaluation.reference_answers import (
        answers_file,
        base_answers,
        encode_reference,
        reference_prompts,
    )
    from sleepd.worker.evaluation.system_messages import asked
    from sleepd.worker.model.adapter import load_adapted, load_base
    from sleepd.worker.model.device import choose_device
    from sleepd.worker.model.generate import stop_ids
    from sleepd.worker.model.gguf.convert_gguf import open_base
    from sleepd.worker.model.losses import kl_from_base
    from sleepd.worker.model.memory.out_of_memory import MemoryLimits

    directory, fingerprint = open_base(base, "", models, print)
    device = choose_device("auto")
    model, tokenizer = load_base(directory, device)
    chat = ChatFormat(tokenizer, system_prompt)
    prompts = [asked(prompt) for prompt in reference_prompts("probe")]
    cache = answers_file(models, fingerprint, system_prompt, chat)
    answers = base_answers(
        model, device, chat, prompts, stop_ids(model, chat), lambda _system: cache, lambda _tokens: None
    )
    sequences = encode_reference(chat, prompts, answers, 2048)
    limits = MemoryLimits(2048, 2048, Channel(socket.socketpair()[0]))
    references = LossEvaluator(model, device, limits, lambda _tokens: None).references(sequences)
    found = []
    for adapter in adapters:
        adapted, _ = load_adapted(directory, adapter, device)
        evaluator = LossEvaluator(adapted, device, limits, lambda _tokens: None)
        parts = [kl_from_base(evaluator.logits(one), references[one.id]) for one in sequences]
        found.append(float(sum(part.sum() for part in parts) / sum(len(part) for part in parts)))
    return found
