"""The worker's own loop for replies against transformers' ``generate``: same prompts, same tokens out, time and memory.

Run: OMP_WAIT_POLICY=passive python tests/bench/bench_generate.py [--models DIR] [--repeats 5]

``generate`` gets a LogitsProcessor that adds each row's own noise and a StoppingCriteria that ends each row at its own
length and all rows at the deadline, so that it does what the worker asks for. Both make the same replies side by side,
in turn; a ratio is the median over the turns of the worker's time divided by that of ``generate``.

Measured on 2026-11-27 with ``--rows 12 --tokens 24 --repeats 3 --threads 1``: SmolLM2-135M-Instruct in bfloat16,
transformers 5.24, torch 2.13, two CPU cores under other load (load 11), so the processor time is what counts.

| replies | the same | ratio of wall time | ratio of processor time |
|---|---|---|---|
| greedy, without adapter | 12 of 12 | 1.04 | 1.01 |
| sampled, without adapter | 12 of 12 | 1.12 | 1.05 |
| greedy, with adapter | 12 of 12 | 0.50 | 0.73 |
| sampled, with adapter | 12 of 12 | 0.72 | 0.76 |

| peak memory of the process, with adapter | worker | generate |
|---|---|---|
| 64 rows | 1.25 GiB | 4.40 GiB |

The worker's loop stays. With an adapter it is faster and needs less memory: ``generate`` asks the model for the last
place of the prompts as a slice, and torch then copies the head's weights for each row. It is safer too: ``generate``
takes what is not set from the base's generation_config.json. A repetition penalty there would hide the loops that a
candidate is examined for (test_generate_bench.py shows it).
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from sleepd.config.strategies import find_strategy
from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.evaluation.reference_answers import PROBE, reference_prompts
from sleepd.worker.model.adapter import load_base, start_adapter
from sleepd.worker.model.device import Device, choose_device, computing
from sleepd.worker.model.generate import TEMPERATURE, Asked, replies, stop_ids
from sleepd.worker.model.gguf.convert_gguf import open_base


class RowNoise(LogitsProcessor):
    """Samples by the Gumbel-max trick, each row with random numbers of its own; rows without a seed stay greedy."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self.noise = [None if one.seed is None else torch.Generator().manual_seed(one.seed) for one in asked]

    def __call__(self, _ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The logits with the noise added."""
        for row, generator in enumerate(self.noise):
            if generator is not None:
                uniform = torch.rand(logits.shape[-1], generator=generator).clamp(min=1e-20).to(logits.device)
                logits[row] = logits[row] / TEMPERATURE - (-uniform.log()).log()
        return logits


class RowEnds(StoppingCriteria):
    """Ends each row at its own length, and all of them at the deadline; tells of each step before it begins."""

    def __init__(
        self, asked: Sequence[Asked], prompt_tokens: int, deadline: float | None, on_step: Callable[[int], None]
    ) -> None:
        self.lengths = torch.tensor([prompt_tokens + one.max_new_tokens for one in asked])
        self.deadline, self.on_step = deadline, on_step

    def __call__(self, ids: torch.Tensor, _scores: object, **_more: object) -> torch.Tensor:
        """Which rows end here."""
        self.on_step(len(ids))
        is_late = self.deadline is not None and time.monotonic() > self.deadline
        return (ids.shape[1] >= self.lengths.to(ids.device)) | is_late


@torch.no_grad()
def by_transformers(
    model: Any,
    device: Device,
    asked: Sequence[Asked],
    *,
    stop_ids: frozenset[int],
    on_step: Callable[[int], None] = lambda _tokens: None,
    deadline: float | None = None,
) -> list[list[int]]:
    """As ``sleepd.worker.model.generate.replies``, for prompts that fit the model's positions."""
    longest = max(len(one.prompt) for one in asked)
    pads = [longest - len(one.prompt) for one in asked]
    ids = torch.tensor([[0] * pad + list(one.prompt) for pad, one in zip(pads, asked, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads])
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(one.max_new_tokens for one in asked),
        eos_token_id=sorted(stop_ids),
        pad_token_id=0,
    )
    on_step(ids.numel())
    with computing(device):
        out = model.generate(
            input_ids=ids.to(device.torch_device),
            attention_mask=mask.to(device.torch_device),
            generation_config=config,
            logits_processor=[RowNoise(asked)],
            stopping_criteria=[RowEnds(asked, longest, deadline, on_step)],
        )
    return [_cut(row, one, stop_ids) for row, one in zip(out[:, longest:].tolist(), asked, strict=True)]


def _cut(row: list[int], one: Asked, stops: frozenset[int]) -> list[int]:
    row = row[: one.max_new_tokens]
    return row[: next((place for place, token in enumerate(row) if token in stops), len(row))]


MOST_ROWS = 64
"""As many replies as the worker ever makes side by side."""
WAYS = {"worker": replies, "generate": by_transformers}


@dataclass(frozen=True)
class Compared:
    """What two ways of making the same replies took."""

    same: int
    """Replies that are token by token the same."""
    replies: int
    tokens: int
    seconds: dict[str, float]
    """Median of the wall time, by the way's name."""
    ratio: float
    """The worker's wall time by that of ``generate``: median over the turns."""
    processor_ratio: float
    """The same of the processor time, on which other load tells less."""


def compare(model: Any, device: Device, asked: Sequence[Asked], stops: frozenset[int], repeats: int) -> Compared:
    """Make the replies in both ways, in turn, after one turn that is not counted."""
    wall: dict[str, list[float]] = {name: [] for name in WAYS}
    processor: dict[str, list[float]] = {name: [] for name in WAYS}
    found = {}
    for turn in range(repeats + 1):
        for name, way in WAYS.items():
            started, used = time.monotonic(), time.process_time()
            found[name] = way(model, device, asked, stop_ids=stops)
            if turn:
                wall[name].append(time.monotonic() - started)
                processor[name].append(time.process_time() - used)
    pairs = list(zip(found["worker"], found["generate"], strict=True))
    return Compared(
        same=sum(one == other for one, other in pairs),
        replies=len(asked),
        tokens=sum(len(one) for one, _ in pairs),
        seconds={name: statistics.median(each) for name, each in wall.items()},
        ratio=_ratio(wall),
        processor_ratio=_ratio(processor),
    )


def _ratio(taken: dict[str, list[float]]) -> float:
    return statistics.median(one / other for one, other in zip(taken["worker"], taken["generate"], strict=True))


def prepare(base: str, models: Path, with_adapter: bool) -> tuple[Any, Device, ChatFormat]:
    """Model, device and chat; the adapter's weights are random, so that it changes what is said."""
    device = choose_device("cpu")
    directory = open_base(base, "", models, print)[0]
    model, tokenizer = load_base(directory, device)
    if with_adapter:
        model = start_adapter(model, find_strategy("consolidate"), 0).eval()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.01, generator=torch.Generator().manual_seed(0))
    return model, device, ChatFormat(tokenizer, "")


def questions(chat: ChatFormat, rows: int, tokens: int, *, is_sampled: bool) -> list[Asked]:
    """Shipped prompts, each with a length of its own, so that rows end at different steps."""
    prompts = reference_prompts(PROBE)
    return [
        Asked(chat.prompt_ids(prompts[row % len(prompts)]), tokens - row % 5, row if is_sampled else None)
        for row in range(rows)
    ]


def peak_gib(way: str, models: Path, base: str, rows: int) -> float:
    """What a process of its own held at most while it made so many short replies with an adapter."""
    command = [sys.executable, __file__, "--peak-of", way, "--models", str(models), "--base", base]
    done = subprocess.run([*command, "--rows", str(rows)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="keeps the converted base between runs")
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-of", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        models = arguments.models or Path(scratch)
        if arguments.peak_of:
            _print_peak(arguments, models)
        else:
            _measure(arguments, models)


def _print_peak(arguments: argparse.Namespace, models: Path) -> None:
    model, device, chat = prepare(arguments.base, models, with_adapter=True)
    asked = questions(chat, arguments.rows, 6, is_sampled=False)
    WAYS[arguments.peak_of](model, device, asked, stop_ids=stop_ids(model, chat))
    # Not ru_maxrss, which a child has from its parent.
    status = Path("/proc/self/status").read_text()
    print(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 2**20)


def _measure(arguments: argparse.Namespace, models: Path) -> None:
    for with_adapter in (False, True):
        model, device, chat = prepare(arguments.base, models, with_adapter)
        for is_sampled in (False, True):
            asked = questions(chat, arguments.rows, arguments.tokens, is_sampled=is_sampled)
            found = compare(model, device, asked, stop_ids(model, chat), arguments.repeats)
            kind = f"{'sampled' if is_sampled else 'greedy'}, {'with' if with_adapter else 'without'} adapter"
            times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.seconds.items())
            ratios = f"ratio {found.ratio:.2f}, of processor time {found.processor_ratio:.2f}"
            same = f"{found.same} of {found.replies} replies the same, {found.tokens} tokens"
            print(f"{kind}: {times}, {ratios}; {same}", flush=True)
    peaks = ", ".join(f"{way} {peak_gib(way, models, arguments.base, MOST_ROWS):.2f} GiB" for way in WAYS)
    print(f"peak memory of a process with an adapter, {MOST_ROWS} rows: {peaks}")


if __name__ == "__main__":
    from sleepd.worker.environment import prepare_environment

    prepare_environment()
    main()
