"""Whole cycles: one that ends, one in several goes, one beside a full card, one that is stopped, two at once."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import torch

from sleepd.protocol.job import Failure, Progress, Report
from sleepd.worker.evaluation import loss_evaluator
from sleepd.worker.failure import GiveUp, Stopped
from sleepd.worker.run import run
from sleepd.worker.training import gradients

from .processes import Card, Cost, Recording, run_worker
from .shared import GIB, IS_CPU, WORK, base, examples, make_job, note, row, shorten_replies, strategy


def cycle(name: str, variant: str = "default") -> None:
    """A whole cycle of that shape in the worker's own process; ``no-cudnn``: without that attention from the start."""
    environment = {"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"} if variant == "no-cudnn" else {}
    job = make_job(name, WORK / f"cycle-{name}-{variant}")
    count = (6, 2) if IS_CPU else (48, 16)
    messages, cost = run_worker(job, examples(*count), environment)
    note(f"cycle {name} {variant}", report=msgspec.to_builtins(messages[-1]), **asdict(cost))
    row(f"cycle {name} {variant}", _summary(messages[-1], cost))
    if cost.joules is not None:
        reported = getattr(messages[-1], "energy_joules", None)
        row("  energy", f"{cost.joules:.0f} J, in the report {reported}, card busy {cost.busy or 0:.0f} % of the time")


def _summary(last: Any, cost: Cost) -> str:
    if not isinstance(last, Report):
        return f"NO REPORT: {last}"[:300] + f"; phases began at {cost.began} s"
    checks = ", ".join(f"{one.name} {'ok' if one.passed else 'FAILED'} {one.figure:.2g}" for one in last.checks)
    memory = f"peak in the report {last.peak_memory_bytes / GIB:.2f} GiB"
    if cost.card_peak is not None:
        memory += f", by NVML {cost.card_peak / GIB:.2f}, left behind {(cost.card_left or 0) / GIB:.2f}"
    return (
        f"ended in {cost.seconds:.0f} s, first step after {cost.began.get('training', 0):.1f} s; {last.steps} steps,"
        f" {last.tokens_per_second:.0f} tokens/s; {memory}, RSS {cost.rss_peak / GIB:.2f} GiB; {checks}; held out"
        f" {last.holdout_before} -> {last.holdout_after}; notices {[one.event for one in last.notices]}"
    )


def resume(variant: str = "default") -> None:
    """The same cycle twice, and once in several goes: the same bytes? ``deterministic``: with torch's switch."""
    torch.use_deterministic_algorithms(variant == "deterministic")
    shorten_replies()
    small = strategy(dropout=0.1, epochs=2, min_steps=0, kl_prompts=16, kl_batch_size=2)
    given = examples(*((6, 2) if IS_CPU else (24, 6)))

    def go(name: str, stops: tuple[int, ...] = ()) -> tuple[bytes, Report, float]:
        job = make_job("small", WORK / f"resume-{variant}-{name}", strategy=small)
        for beats in stops:
            with contextlib.suppress(Stopped):
                run(job, given, Recording(beats))
        started = time.monotonic()
        report = run(job, given, Recording())
        weights = (Path(job.staging) / "adapter_model.safetensors").read_bytes()
        return weights, report, time.monotonic() - started

    whole, again, broken = go("whole"), go("again"), go("broken", (4, 5) if IS_CPU else (9, 14))
    pairs = zip(whole[1].holdout, again[1].holdout, strict=True)
    found = {
        "twice_the_same": whole[0] == again[0],
        "in_goes_the_same": whole[0] == broken[0],
        "was_resumed": "cycle_resumed" in {one.event for one in broken[1].notices},
        "losses_apart": max(abs(one.candidate - two.candidate) for one, two in pairs),
        "seconds": again[2],
    }
    note(f"resume {variant}", **found)
    row(f"resume {variant}", ", ".join(f"{name} {value}" for name, value in found.items()))


def cpubox() -> None:
    """Device cpu on a machine with a GPU: is the GPU touched, and does the cycle end where the GPU is full?"""
    shorten_replies()
    small = strategy(epochs=1, min_steps=0, kl_prompts=4, kl_batch_size=1)
    has_gpu, ends = torch.cuda.is_available(), {}
    for name in ("free", "full"):
        if has_gpu and name == "full":
            torch.cuda.set_per_process_memory_fraction(1e-9)
        job = make_job("small", WORK / f"cpubox-{name}", strategy=small, device="cpu", threads=4)
        try:
            ends[name] = f"ended on {run(job, examples(6, 2), Recording()).device}"
        except GiveUp as error:
            ends[name] = f"{error.kind}: {error.message[:120]}"
        ends[f"{name}: bytes on the GPU"] = str(torch.cuda.max_memory_allocated() if has_gpu else 0)
    note("cpubox", **ends)
    row("device cpu beside a GPU", str(ends))


def oom(spare: str) -> None:
    """A cycle where the base fits and so many GiB beside it: which steps back, does it end, what does it take?"""
    shorten_replies()
    long = examples(4, 0, reply_words=(300, 1200), seed=3, name="long")
    most = 1024 if IS_CPU else 2048
    small = strategy(epochs=1, min_steps=0, kl_prompts=8, kl_batch_size=2, micro_batch_tokens=4096, max_tokens=most)
    _limit(float(spare))
    channel, started = Recording(), time.monotonic()
    try:
        report = run(make_job("0.5B", WORK / f"oom-{spare}", strategy=small), examples(8, 2) + long, channel)
        end = f"ended, {report.steps} steps, {report.truncated} cut"
    except GiveUp as error:
        end = f"gave up: {error.kind}: {error.message[:100]}"
    events = [f"{one.event}: {one.text}" for one in channel.notices]
    peaks = {}
    if not IS_CPU:
        peaks = {
            "allocated": torch.cuda.max_memory_allocated() / GIB,
            "reserved": torch.cuda.max_memory_reserved() / GIB,
        }
    note(f"oom {spare}", end=end, events=events, seconds=time.monotonic() - started, **peaks)
    row(f"oom, {spare} to spare", f"{end}; {[one.event for one in channel.notices]}; GiB {peaks}")


def _limit(spare: float) -> None:
    """On a GPU so many GiB beside the base; in a rehearsal so many tokens in a pass."""
    if not IS_CPU:
        size = sum(file.stat().st_size for file in base("0.5B").glob("*.safetensors"))
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((size + spare * GIB) / total)
        return
    real = gradients.row_logits

    def limited(model: Any, given: Any, where: Any) -> Any:
        if given.tokens > spare:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory, as rehearsed")
        return real(model, given, where)

    for module in (gradients, loss_evaluator):
        module.row_logits = limited


def stop() -> None:
    """SIGTERM in training: how soon the worker has stopped, and what is left on the card then."""
    sent: list[float] = []

    def at_step_two(message: Any, process: subprocess.Popen[bytes]) -> None:
        if not sent and isinstance(message, Progress) and message.phase == "training" and message.step >= 2:
            process.send_signal(signal.SIGTERM)
            sent.append(time.monotonic())

    job = make_job("0.5B", WORK / "stop", strategy=strategy(epochs=5000))
    messages, cost = run_worker(job, examples(12, 2), on_message=at_step_two)
    taken = time.monotonic() - 0.5 - sent[0]  # half a second is waited before the card is looked at
    last = messages[-1]
    note("stop", last=msgspec.to_builtins(last), until_stopped=taken, **asdict(cost))
    kind = last.kind if isinstance(last, Failure) else type(last).__name__
    row("SIGTERM in training", f"{kind} after {taken:.2f} s, exit code {cost.exit_code}, left: {cost.card_left}")


def pair() -> None:
    """Two workers at once on one card, as two daemons without the GPU lock would have it: do both end, at what cost?"""
    found: dict[int, tuple[list[Any], Cost]] = {}

    def go(number: int) -> None:
        job = make_job("small", WORK / f"pair-{number}", strategy=strategy(epochs=1, min_steps=0))
        found[number] = run_worker(job, examples(6, 2))

    base("small")
    threads = [threading.Thread(target=go, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = {number: f"{type(said[-1]).__name__} in {cost.seconds:.0f} s" for number, (said, cost) in found.items()}
    note("pair", ends=ends, used=Card().used())
    row("two workers at once", str(ends))
