"""How fast: the worker's own training loop by size of the pass, replies, loading, one compiled layer, four bits."""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path
from typing import Any

import msgspec
import torch

from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.examples import Encoded
from sleepd.worker.evaluation.reference_answers import PROBE, reference_prompts
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.adapted_layers import adapted_norm
from sleepd.worker.model.adapter import load_base, start_adapter
from sleepd.worker.model.device import computing
from sleepd.worker.model.generate import Asked, replies
from sleepd.worker.model.memory.out_of_memory import MemoryLimits
from sleepd.worker.model.quantization import require_quantization
from sleepd.worker.progress import Pace
from sleepd.worker.training.adapter_weights import AdapterWeights
from sleepd.worker.training.batches import Batches, TrainingSet
from sleepd.worker.training.heartbeat import TrainingHeartbeat
from sleepd.worker.training.outcome import Training
from sleepd.worker.training.train import Trainer

from .processes import Recording
from .shared import (
    GIB,
    IS_CPU,
    SHAPES,
    TOKENIZER_SIZE,
    WORK,
    base,
    device,
    make_model,
    note,
    place,
    row,
    seconds_of,
    strategy,
    sync,
)

PASSES = ((512, 64), (2048, 64), (4096, 128), (8192, 128))
"""Tokens of a pass, and experiences of a step."""


def training_flops(name: str, tokens: int, supervised: int, pairs: int, rank: int) -> float:
    """Of forward and backward with a frozen base.

    With N the weights of the layers' matrices: 2·N a token forward and 2·N backward for the gradient of the
    activations; the 2·N for that of the weights is not computed. The adapter has all three: 6·r·(in + out) a token and
    matrix. The head runs on supervised tokens: 4·h·V. Attention: 12·h for each pair of tokens that see each other
    (4 forward, 8 backward) and layer.
    """
    one = SHAPES[name]
    h, inner, kv = one.hidden, one.inner, one.hidden // one.heads * one.key_value_heads
    matrices = [(h, h), (h, kv), (h, kv), (h, h), (h, inner), (h, inner), (inner, h)]
    frozen = sum(a * b for a, b in matrices)
    adapter = sum(rank * (a + b) for a, b in matrices)
    layers = one.layers * ((4 * frozen + 6 * adapter) * tokens + 12 * h * pairs)
    return layers + 4 * h * one.vocabulary * supervised


def speed(name: str) -> None:
    """Tokens a second and share of the ceiling, by size of the pass."""
    where = device()
    model = start_adapter(make_model(name, where.dtype), strategy(), 0)
    for micro, batch in PASSES:
        made = _sequences(3 * (8 if IS_CPU else batch), micro)
        try:
            _train(model, made[: max(2, batch // 4)], micro, batch)
            started = time.perf_counter()
            done, left = _train(model, made, micro, batch)
            taken = time.perf_counter() - started
        except Exception as error:  # noqa: BLE001 - the next size may do
            row(f"speed {name} {micro}", f"{type(error).__name__}: {str(error)[:120]}")
            continue
        pairs = sum(len(one.ids) * (len(one.ids) + 1) // 2 for one in made)
        tflops = training_flops(name, done.tokens, done.supervised_tokens, pairs, strategy().rank) / taken / 1e12
        share = tflops / float((WORK / "ceiling").read_text())
        peak = 0 if IS_CPU else torch.cuda.max_memory_reserved() / GIB
        note("speed", name=name, micro=micro, left=left, tokens_a_second=done.tokens / taken, tflops=tflops, peak=peak)
        text = f"{done.tokens / taken:.0f} tokens/s, {tflops:.2f} TFLOP/s = {share:.1%}, {peak:.1f} GiB reserved"
        row(f"speed {name} {micro}", text + ("" if left == micro else f", went back to {left}"))


def _sequences(count: int, seed: int) -> list[Encoded]:
    draw = random.Random(seed)
    lengths = [draw.randint(64, 192) for _ in range(count)]
    ids = [tuple(draw.randrange(3, TOKENIZER_SIZE) for _ in range(length)) for length in lengths]
    return [Encoded(id=f"e{i}", ids=one, prompt_tokens=len(one) // 2) for i, one in enumerate(ids)]


def _train(model: Any, some: list[Encoded], micro: int, batch: int) -> tuple[Training, int]:
    if not IS_CPU:
        torch.cuda.reset_peak_memory_stats()
    given = strategy(epochs=1, min_steps=0, kl_weight=0.0, batch_size=batch, micro_batch_tokens=micro)
    channel = Recording()
    limits = MemoryLimits(micro, 2048, channel)
    batches = Batches(TrainingSet(some, lambda _longest: some, [], {}), limits, given, packed=True)
    heartbeat = TrainingHeartbeat(channel, Pace(), place())
    done = Trainer(given, 0, AdapterWeights(model, device(), given, 0), batches, heartbeat).run(lambda: None)
    sync()
    return done, limits.micro_batch_tokens


def generate() -> None:
    """Milliseconds of a decoding step, greedy and sampled; the same twice, and the same as alone?"""
    where = device()
    model, tokenizer = load_base(base("0.5B"), where)
    chat = ChatFormat(tokenizer, "You are a test.")
    count = 4 if IS_CPU else 32
    prompts = [chat.talk_ids([text], "") for text in reference_prompts(PROBE)[:12]]

    def ask(some: list[Any], seed: int | None = None) -> tuple[Any, float]:
        asked = [Asked(one, count, None if seed is None else seed + i) for i, one in enumerate(some)]
        sync()
        started = time.perf_counter()
        said = replies(model, where, asked, stop_ids=frozenset())
        sync()
        return said, (time.perf_counter() - started) / count * 1000

    ask(prompts)
    together, greedy = ask(prompts)
    again, _ = ask(prompts)
    _, sampled = ask(prompts, 7)
    alone = [ask([one])[0][0] for one in prompts]
    same = sum(one == two for one, two in zip(together, alone, strict=True))
    note("generate", greedy_ms=greedy, sampled_ms=sampled, same_twice=together == again, same_alone=same)
    text = f"greedy {greedy:.1f} ms a step, sampled {sampled:.1f}; the same twice {together == again}, as alone {same}"
    row("12 replies at once", text)


def load(name: str) -> None:
    """A base from the disk: seconds and memory of the host; then the norm of its adapted weights."""
    directory = base(name)
    started = time.monotonic()
    model, _tokenizer = load_base(Path(directory), device())
    sync()
    taken, host = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model = start_adapter(model, strategy(), 0)
    before = 0 if IS_CPU else torch.cuda.max_memory_allocated()
    started = time.monotonic()
    adapted_norm(model)
    norm, more = time.monotonic() - started, 0 if IS_CPU else torch.cuda.max_memory_allocated() - before
    note("load", name=name, seconds=taken, host_peak=host, norm_seconds=norm, norm_bytes=more)
    row(f"load {name}", f"{taken:.1f} s, host peak {host / GIB:.2f} GiB; norm {norm:.2f} s, {more / GIB:.2f} GiB more")


def compiled() -> None:
    """One layer of 0.5B, forward and backward, as it is and through ``torch.compile``."""
    where = device()
    model = start_adapter(make_model("0.5B", layers=1), strategy(), 0)
    inner = model.get_base_model().model
    found = {}
    for length in (64,) if IS_CPU else (512, 4096):
        x = torch.randn(1, length, SHAPES["0.5B"].hidden, device=place(), dtype=torch.bfloat16, requires_grad=True)
        places = torch.arange(length, device=place())[None]
        embedded = inner.rotary_emb(x, places)

        def both(layer: Any, x: Any = x, embedded: Any = embedded, places: Any = places) -> None:
            with computing(where):
                out = layer(x, attention_mask=None, position_embeddings=embedded, position_ids=places)
            (out[0] if isinstance(out, tuple) else out).float().square().mean().backward()

        found[f"{length}"] = round(1000 * seconds_of(lambda both=both: both(inner.layers[0])), 2)
        if not IS_CPU:
            layer = torch.compile(inner.layers[0], dynamic=False)
            found[f"{length}, compiled"] = round(1000 * seconds_of(lambda both=both, one=layer: both(one)), 2)
    note("compiled", **found)
    row("ms of one layer, by tokens", str(found))


def qlora(name: str) -> None:
    """Training on a base in four bits (nf4): its peak and its speed."""
    try:
        require_quantization("nf4", device())
    except GiveUp as error:
        row(f"four bits {name}", f"skipped: {error.message}")
        return
    model, _tokenizer = load_base(base(name), device(), "nf4")
    model = start_adapter(model, strategy(), 0)
    if not IS_CPU:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    done, left = _train(model, _sequences(16, 1), 2048, 16)
    taken = time.perf_counter() - started
    peak = 0 if IS_CPU else torch.cuda.max_memory_reserved() / GIB
    note("qlora", name=name, left=left, done=msgspec.to_builtins(done), seconds=taken, peak=peak)
    row(f"four bits {name}", f"{done.tokens / taken:.0f} tokens/s, {peak:.1f} GiB reserved")
