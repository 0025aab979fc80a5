"""What the steps share: where they run, bases with random weights, experiences, a job, and the table they write."""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sleepd.config.strategies import find_strategy
from sleepd.protocol.job import Job, TrainingExample
from sleepd.protocol.strategy import Strategy

IS_CPU = os.environ.get("SLEEPD_GPU_ON_CPU") == "1"
"""A rehearsal: every step runs on the CPU, on tiny shapes. It shows that the steps work, and measures nothing."""
OUT = Path(os.environ.get("OUT") or "gpu-out")
WORK = Path(os.environ.get("SLEEPD_GPU_WORK") or "/tmp/sleepd-gpu")
ROOT = Path(__file__).parents[2]
TOKENIZER_SIZE = 4096
GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """Of a base."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    is_tied: bool = True


TINY = Shape(64, 128, 2, 4, 2, TOKENIZER_SIZE)
SHAPES = {
    "small": TINY if IS_CPU else Shape(256, 1024, 4, 4, 2, TOKENIZER_SIZE),
    "0.5B": TINY if IS_CPU else Shape(896, 4864, 24, 14, 2, 151936),
    "1.5B": TINY if IS_CPU else Shape(1536, 8960, 28, 12, 2, 151936),
    "7B": TINY if IS_CPU else Shape(3584, 18944, 28, 28, 4, 152064, is_tied=False),
}
"""Those of Qwen2.5, with random weights."""


def note(step: str, **found: Any) -> None:
    """Every figure of a step, as one JSON line."""
    with (OUT / "results.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **found}, default=str) + "\n")


def row(name: str, text: str) -> None:
    """One line of the table: what a step found, in a few words."""
    line = f"{name:<26} {text}"
    print("ROW", line, flush=True)
    with (OUT / "table.txt").open("a") as file:
        file.write(line + "\n")


def place() -> str:
    """Where tensors are made."""
    return "cpu" if IS_CPU else "cuda"


def sync() -> None:
    """Wait for the GPU."""
    import torch

    if not IS_CPU:
        torch.cuda.synchronize()


def device() -> Any:
    """As the worker chooses it."""
    from sleepd.worker.model.device import choose_device

    return choose_device(place())


def seconds_of(work: Callable[[], object], repeats: int = 10, warm: int = 3) -> float:
    """Median seconds of one call."""
    for _ in range(warm):
        work()
    sync()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        sync()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def make_tokenizer() -> Any:
    """A small byte-level BPE tokenizer with a ChatML template, trained on the project's own texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from sleepd.worker.programs.tiny_model import CHAT_TEMPLATE

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=TOKENIZER_SIZE, special_tokens=special, initial_alphabet=alphabet)
    texts = [ROOT / "README.md", *sorted((ROOT / "sleepd").rglob("*.py")), *sorted((ROOT / "sleepd").rglob("*.toml"))]
    tokenizer.train_from_iterator((file.read_text(encoding="utf-8") for file in texts), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=special[2], pad_token=special[0], additional_special_tokens=special
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(name: str, dtype: Any = None, *, layers: int | None = None) -> Any:
    """A random model on the device. Only what the tokenizer knows is ever said: the other rows of the head are null."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    one = SHAPES[name]
    config = Qwen2Config(
        vocab_size=one.vocabulary,
        hidden_size=one.hidden,
        intermediate_size=one.inner,
        num_hidden_layers=layers or one.layers,
        num_attention_heads=one.heads,
        num_key_value_heads=one.key_value_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=one.is_tied,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(place()):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype or torch.bfloat16, attn_implementation="sdpa")
    with torch.no_grad():
        model.get_output_embeddings().weight[TOKENIZER_SIZE:] = 0
    return model.eval()


def base(name: str) -> Path:
    """The directory of that base, made once a run."""
    directory = WORK / "bases" / name
    if not (directory / "done").exists():
        directory.mkdir(parents=True, exist_ok=True)
        make_model(name).save_pretrained(directory)
        make_tokenizer().save_pretrained(directory)
        (directory / "done").touch()
    return directory


def examples(
    trained: int, held_out: int, *, reply_words: tuple[int, int] = (20, 60), seed: int = 0, name: str = "e"
) -> list[TrainingExample]:
    """Random sentences of the words of the shipped reference prompts."""
    from sleepd.worker.evaluation.reference_answers import REGULARISE, reference_prompts

    words = sorted({word.strip("?.,") for text in reference_prompts(REGULARISE) for word in text.split()})
    draw = random.Random(seed)

    def sentence(least: int, most: int) -> str:
        return " ".join(draw.choice(words) for _ in range(draw.randint(least, most))) + "."

    return [
        TrainingExample(
            id=f"{name}{i}",
            prompt=f"{i}: {sentence(8, 20)}",
            response=sentence(*reply_words),
            salience=0.5 + draw.random() / 2,
            role="train" if i < trained else "holdout",
        )
        for i in range(trained + held_out)
    ]


def strategy(**changes: Any) -> Strategy:
    """The default one; in a rehearsal cut down to seconds."""
    small = {"epochs": 1, "min_steps": 0, "kl_prompts": 4, "kl_batch_size": 1, "rank": 4, "alpha": 8} if IS_CPU else {}
    return msgspec.structs.replace(find_strategy("consolidate"), **{**small, **changes})


def make_job(name: str, staging: Path, **changes: Any) -> Job:
    """A job on that base."""
    (staging / "work").mkdir(parents=True, exist_ok=True)
    models = WORK / "models"
    models.mkdir(exist_ok=True)
    given = {
        "cycle": 1,
        "base": str(base(name)),
        "models_directory": str(models),
        "staging": str(staging),
        "system_prompt": "You are the assistant of a lighthouse keeper. Answer in one sentence.",
        "strategy": strategy(),
        "device": place(),
        "threads": 2 if IS_CPU else 0,
    }
    return Job(**(given | changes))


def shorten_replies() -> None:
    """In a rehearsal: the random model never ends a reply by itself."""
    if IS_CPU:
        from sleepd.worker.evaluation import probe_generation

        for name in ("REPLY_TOKENS", "PROBE_TOKENS", "RECALL_TOKENS", "TALK_TOKENS"):
            setattr(probe_generation, name, 4)
