"""The memory of a cycle: what doctor estimates beside what a worker used, on the embedded model and on two shapes.

Run: python tests/bench/bench_memory.py [SHAPE …] [--tokens 512] [--directory DIR]

SHAPE is embedded, qwen2.5-0.5b, qwen2.5-1.5b, tiny, or a directory of a model. The two Qwen shapes are random weights
made from the configuration class, in DIR, and removed afterwards (1 and 3 GiB). The cycle is a real worker process that
trains one step on one row of so many tokens; what takes time and no memory is cut: few general prompts, short replies.

tests/bench/README.md holds what was measured.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from sleepd.config.strategies import find_strategy
from sleepd.protocol.job import Failure, Job, Report, TrainingExample, decode_message, encode

SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "qwen2.5-1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
}
_SHORTENED = """
import sys
import sleepd.worker.evaluation.probe_generation as interview, sleepd.worker.evaluation.reference_answers as general
import sleepd.worker.__main__ as worker
worker.lower_priority = lambda: None
for name in ("REPLY_TOKENS", "PROBE_TOKENS", "RECALL_TOKENS", "TALK_TOKENS"):
    setattr(interview, name, 2)
interview.PROBES, interview.REPLIES, general.ANSWER_TOKENS = 1, 1, 2
whole = general.reference_prompts
general.reference_prompts = interview.reference_prompts = lambda kind: whole(kind)[:2]
sys.exit(worker.main())
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=["embedded", *SHAPES])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--directory", type=Path, help="where models are made; default: a temporary directory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as scratch:
        for shape in given.shapes:
            estimated, measured = compare(shape, Path(scratch), given.tokens)
            print(
                f"{shape}, a row of {given.tokens} tokens: estimated {estimated / 2**30:.2f} GiB, measured"
                f" {measured / 2**30:.2f} GiB, {estimated / measured - 1:+.0%}",
                flush=True,
            )


def compare(shape: str, scratch: Path, tokens: int) -> tuple[int, int]:
    """Bytes that are estimated for a cycle on that base, and those that a worker's process held at its peak."""
    base = shape
    if shape in SHAPES or shape == "tiny":
        base = str(scratch / shape)
        make_base(shape, Path(base))
    try:
        estimated = _estimated(base, tokens)
        return estimated, _measured(base, scratch, tokens)
    finally:
        if base != shape:
            shutil.rmtree(base)


def make_base(shape: str, directory: Path) -> None:
    """Random weights of that shape in bfloat16, with a tokenizer that writes one token a byte."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from sleepd.worker.programs.tiny_model import make_tiny_model, make_tiny_tokenizer

    if shape == "tiny":
        make_tiny_model(directory)
        return
    tokenizer = make_tiny_tokenizer()
    config = Qwen2Config(**SHAPES[shape], max_position_embeddings=32768, eos_token_id=tokenizer.eos_token_id)
    torch.set_default_dtype(torch.bfloat16)
    Qwen2ForCausalLM(config).save_pretrained(directory)
    torch.set_default_dtype(torch.float32)
    tokenizer.save_pretrained(directory)


def _estimated(base: str, tokens: int) -> int:
    command = [sys.executable, "-m", "sleepd.worker.programs.check_base", "--base", base, "--device", "cpu"]
    command += ["--row-tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(msgspec.json.decode(done.stdout.splitlines()[-1])["needed_bytes"])


def _measured(base: str, scratch: Path, tokens: int) -> int:
    staging = scratch / "staging"
    (staging / "work").mkdir(parents=True)
    small = {
        "epochs": 1,
        "min_steps": 0,
        "kl_prompts": 2,
        "kl_batch_size": 1,
        "micro_batch_tokens": tokens,
        "max_tokens": tokens,
    }
    strategy = msgspec.structs.replace(find_strategy("consolidate"), **small)
    job = Job(
        cycle=1,
        base=base,
        models_directory=str(scratch / "models"),
        staging=str(staging),
        strategy=strategy,
        device="cpu",
        evaluation_seconds=1.0,
    )
    (staging / "work/job.json").write_bytes(msgspec.json.encode(job))
    (staging / "work/experiences.jsonl").write_bytes(b"".join(encode(one) for one in _examples(tokens)))
    try:
        return _run(staging).peak_memory_bytes
    finally:
        shutil.rmtree(staging)


def _examples(tokens: int) -> list[TrainingExample]:
    """One that fills a row, for it is longer and is cut to it, and one held out."""
    reply = " ".join(f"word{number}" for number in range(2 * tokens))
    return [
        TrainingExample(id="long", prompt="Tell me.", response=reply, salience=0.9, role="train"),
        TrainingExample(
            id="held", prompt="Who are you?", response="I am a test of memory.", salience=0.9, role="holdout"
        ),
    ]


def _run(staging: Path) -> Report:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", _SHORTENED, "--fd", str(theirs.fileno()), str(staging)]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process, ours:
        theirs.close()
        last = [decode_message(line) for line in ours.makefile("rb")][-1]
        process.wait()
    if isinstance(last, Failure):
        raise SystemExit(f"{last.message}; {last.hint}\n{last.traceback}")
    assert isinstance(last, Report)
    return last


if __name__ == "__main__":
    main()
