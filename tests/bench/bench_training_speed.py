"""Training speed of the worker against a plain loop on the same experiences: interleaved, medians.

Run: OMP_WAIT_POLICY=passive python tests/bench/bench_training_speed.py BUFFER.json [--models DIR] [--experiences 16]

The plain loop is what one writes first: transformers and peft, float32, one experience at a time, labels masked to
the reply, gradients summed over the same batches. Tokens are those of the experiences, counted alike for all, so a
system prompt that is computed once for several counts for each. The second row is the worker without the KL term, the
third with it.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import torch

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.config.strategies import find_strategy
from sleepd.protocol.chat_example import ChatExample
from sleepd.worker.channel import Channel
from sleepd.worker.data.examples import ChatFormat, Encoded, encode_chat
from sleepd.worker.evaluation.loss_evaluator import LossEvaluator
from sleepd.worker.evaluation.reference_answers import base_answers, encode_reference, reference_prompts
from sleepd.worker.evaluation.system_messages import asked
from sleepd.worker.model.adapter import load_base, start_adapter
from sleepd.worker.model.device import Device, choose_device
from sleepd.worker.model.generate import stop_ids
from sleepd.worker.model.gguf.convert_gguf import open_base
from sleepd.worker.model.memory.out_of_memory import MemoryLimits
from sleepd.worker.progress import Pace
from sleepd.worker.training.adapter_weights import AdapterWeights
from sleepd.worker.training.batches import Batches, TrainingSet
from sleepd.worker.training.heartbeat import TrainingHeartbeat
from sleepd.worker.training.train import Trainer
from tests.bench.bench_first_cycle import SYSTEM_PROMPT
from tests.bench.cycles import read_experiences


class SilentChannel(Channel):
    """Sends nowhere."""

    def __init__(self) -> None:
        super().__init__(socket.socketpair()[0])

    def send(self, message: Any) -> None:
        """Drop the message."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("buffer", type=Path)
    parser.add_argument("--models", type=Path, help="keeps the converted base and its answers between runs")
    parser.add_argument("--base", default="embedded", help="the base model, as model.base names it")
    parser.add_argument("--experiences", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        _measure(arguments, arguments.models or Path(scratch))


def _measure(arguments: argparse.Namespace, models: Path) -> None:
    directory, _fingerprint = open_base(arguments.base, "", models, print)
    strategy = msgspec.structs.replace(find_strategy("consolidate"), epochs=1, min_steps=0)
    ours, plain = choose_device("cpu"), Device(torch.device("cpu"), torch.float32, "cpu")
    model, tokenizer = load_base(directory, ours)
    plain_model = start_adapter(load_base(directory, plain)[0], strategy, 0).train()
    chat = ChatFormat(tokenizer, SYSTEM_PROMPT)
    eligible = read_experiences(arguments.buffer, 0.6)
    chosen = eligible[:: max(1, len(eligible) // arguments.experiences)][: arguments.experiences]
    encoded = [
        encode_chat(chat, one["id"], ChatExample(prompt=one["prompt"], response=one["response"]), 2048)
        for one in chosen
    ]
    experiences = [one for one in encoded if one is not None]
    prompts = reference_prompts("regularise")[:12]
    prompts = [asked(prompt) for prompt in prompts]
    answers = base_answers(model, ours, chat, prompts, stop_ids(model, chat), None, lambda _tokens: None)
    general = encode_reference(chat, prompts, answers, 2048)
    model = start_adapter(model, strategy, 0)
    limits = MemoryLimits(strategy.micro_batch_tokens, 2048, SilentChannel())
    references = LossEvaluator(model, ours, limits, lambda _tokens: None).references(general)

    def worker(with_kl: bool) -> None:
        examples = TrainingSet(experiences, lambda _max: experiences, general if with_kl else [], references)
        weights = AdapterWeights(model, ours, strategy, 0)
        batches = Batches(examples, limits, strategy, packed=True)
        heartbeat = TrainingHeartbeat(SilentChannel(), Pace(), ours.description)
        Trainer(strategy, 0, weights, batches, heartbeat).run(lambda: None)

    rows = {
        "plain loop": lambda: plain_loop(plain_model, experiences, strategy.batch_size, strategy.learning_rate),
        "worker": lambda: worker(False),
        "worker with KL": lambda: worker(True),
    }
    tokens = sum(len(one.ids) for one in experiences)
    print(f"{len(experiences)} experiences, {tokens} tokens, {sum(one.supervised for one in experiences)} supervised")
    wall: dict[str, list[float]] = {name: [] for name in rows}
    cpu: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(arguments.repeats):
        for name, run in rows.items():
            started, used = time.monotonic(), time.process_time()
            run()
            wall[name].append(time.monotonic() - started)
            cpu[name].append(time.process_time() - used)
            print(f"  {name}: {wall[name][-1]:.1f} s, {cpu[name][-1]:.1f} processor s", flush=True)
    for name in rows:
        seconds, used = statistics.median(wall[name]), statistics.median(cpu[name])
        ratio, by_cpu = statistics.median(wall["plain loop"]) / seconds, statistics.median(cpu["plain loop"]) / used
        print(f"{name}: {tokens / seconds:.0f} tokens/s, {ratio:.2f} x (by processor time {by_cpu:.2f} x)")


def plain_loop(model: Any, experiences: list[Encoded], batch_size: int, rate: float) -> None:
    """One epoch, one experience at a time, with everything at its default."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate)
    for start in range(0, len(experiences), batch_size):
        for one in experiences[start : start + batch_size]:
            ids = torch.tensor([one.ids])
            labels = ids.clone()
            labels[0, : one.prompt_tokens] = -100
            (model(input_ids=ids, labels=labels).loss / batch_size).backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    from sleepd.worker.environment import prepare_environment

    prepare_environment()
    main()
