"""What an engine answers with real adapters: the real llama.cpp server, four quantizations of the base.

adapters BUFFER --out DIR --line NAME    train a line of adapters, each with its fingerprint
answers --out DIR                        ask the server with each of them, on each base
rates --out DIR                          the error rates, prompts drawn again and again
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from cycles import read_experiences
from engines import QUANTIZATIONS, llama_server, requantized

from sleepd.config.strategies import find_strategy
from sleepd.protocol.adapter_fingerprint import AdapterFingerprint, PromptAnswer, PromptReference
from sleepd.protocol.chat_example import Message
from sleepd.protocol.checkpoint_files import FINGERPRINT_FILE
from sleepd.protocol.job import Job, Notice, TrainingExample
from sleepd.serving.endpoint import Endpoint
from sleepd.worker.channel import Channel
from sleepd.worker.evaluation import probe_generation
from sleepd.worker.model.find_base import find_base
from sleepd.worker.run import run


def train_line(arguments: argparse.Namespace) -> None:
    """Cycle after cycle, each on what the ones before knew and on new experiences."""
    for name in ("REPLY_TOKENS", "PROBE_TOKENS", "TALK_TOKENS"):
        setattr(probe_generation, name, 4)  # what is said there matters to a verdict alone
    strategy = msgspec.structs.replace(find_strategy(arguments.strategy), **dict(arguments.set))
    examples = _examples(arguments.buffer, arguments.context)
    size, parent = arguments.experiences, None
    for number in range(1, arguments.cycles + 1):
        staging = arguments.out / "adapters" / f"{arguments.line}-{number}"
        to_train = [_with_role(one, "train") for one in examples[: number * size]]
        held_out = [_with_role(one, "holdout") for one in examples[-2:]]
        job = Job(
            cycle=arguments.first + number - 1,
            base=arguments.base,
            models_directory=str(arguments.models),
            parent=str(parent or ""),
            parent_cycle=arguments.first + number - 2 if parent else None,
            staging=str(staging),
            strategy=strategy,
            seed=1,
        )
        (staging / "work").mkdir(parents=True, exist_ok=True)
        report = run(job, [*to_train, *held_out], _Silent(socket.socketpair()[0]))
        seconds = report.seconds
        share = seconds["fingerprinting"] / sum(seconds.values())
        fingerprint = _fingerprint(staging)
        drift = report.evidence.drift
        print(f"{staging.name}: fingerprint {seconds['fingerprinting']:.1f} s of {sum(seconds.values()):.0f} s", end="")
        print(f" ({share:.1%}), {fingerprint.dtype}, {(staging / FINGERPRINT_FILE).stat().st_size} bytes", end="")
        print(f", drift {drift.candidate if drift else None}, {len(to_train)} experiences {seconds}", flush=True)
        parent = staging


class _WithAdapters(Endpoint):
    """A llama.cpp server with several adapters, of which each request names those that are on."""

    scales: Mapping[int, float] = MappingProxyType({})

    def body(self, prompt: PromptReference) -> dict[str, Any]:
        on = [{"id": number, "scale": scale} for number, scale in self.scales.items()]
        return super().body(prompt) | {"lora": on}


def ask_all(arguments: argparse.Namespace) -> None:
    """Each state of the server answers the prompts of every fingerprint, on each base."""
    out = arguments.out
    names, ggufs = _converted(arguments)
    known = [_fingerprint(out / "adapters" / name) for name in names]
    states = dict(_states(names))
    for kind in arguments.bases:
        base = _base(arguments, kind)
        with llama_server(base, ggufs) as url:
            endpoint = _WithAdapters(url)
            for state, scales in states.items():
                endpoint.scales, started = scales, time.monotonic()
                cache: dict[bytes, PromptAnswer] = {}
                answers = [[_once(endpoint, prompt, cache) for prompt in one.prompts] for one in known]
                path = out / "answers" / f"{kind}+{state}.json"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(msgspec.json.encode(answers))
                print(f"{kind} {state}: {len(cache)} prompts, {time.monotonic() - started:.0f} s", flush=True)


def _once(endpoint: Endpoint, prompt: PromptReference, cache: dict[bytes, PromptAnswer]) -> PromptAnswer:
    key = msgspec.json.encode(prompt.messages)
    if key not in cache:
        cache[key] = endpoint.ask(prompt)
    return cache[key]


def _states(names: Sequence[str]) -> Iterator[tuple[str, dict[int, float]]]:
    """None on, each alone, each half on, and each together with the next one."""
    yield "none", {}
    for number, name in enumerate(names):
        yield name, {number: 1.0}
        yield f"half of {name}", {number: 0.5}
        following = (number + 1) % len(names)
        yield f"{name} and {names[following]}", {number: 1.0, following: 1.0}


def _converted(arguments: argparse.Namespace) -> tuple[list[str], list[Path]]:
    """The adapters' names, and each as GGUF."""
    names = sorted(path.name for path in (arguments.out / "adapters").iterdir() if (path / FINGERPRINT_FILE).exists())
    found = []
    for name in names:
        target = arguments.out / f"{name}.gguf"
        if not target.exists():
            command = [sys.executable, arguments.converter, arguments.out / "adapters" / name]
            (base,) = [path for path in arguments.models.iterdir() if path.is_dir()]
            command += ["--base", base, "--outfile", target, "--outtype", "f16"]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        found.append(target)
    return names, found


def _base(arguments: argparse.Namespace, kind: str) -> Path:
    source = find_base("embedded", "").weights[0]
    target = arguments.out / f"base-{kind}.gguf"
    return source if kind == "q4_1" else target if target.exists() else requantized(source, target, kind)


def _fingerprint(directory: Path) -> AdapterFingerprint:
    return msgspec.json.decode((directory / FINGERPRINT_FILE).read_bytes(), type=AdapterFingerprint)


class _Silent(Channel):
    """A channel on which nothing goes anywhere."""

    def send(self, message: msgspec.Struct) -> None:
        """Warnings are shown."""
        if isinstance(message, Notice) and message.level == "warning":
            print("warning:", message.text, flush=True)


def _examples(buffer: Path, context: int) -> list[TrainingExample]:
    """The buffer's, each behind so many exchanges that came before it."""
    records = read_experiences(buffer, 0.0)
    found = []
    for number, one in enumerate(records):
        before = records[max(0, number - context) : number]
        turns = [turn for other in before for turn in _turns(other)]
        messages = (*turns, Message(role="user", text=one["prompt"])) if turns else ()
        found.append(
            TrainingExample(
                id=one["id"],
                prompt=one["prompt"],
                response=one["response"],
                salience=0.7,
                role="train",
                context=messages,
            )
        )
    return found[context:]


def _turns(record: dict[str, str]) -> tuple[Message, Message]:
    return Message(role="user", text=record["prompt"]), Message(role="assistant", text=record["response"])


def _with_role(example: TrainingExample, role: str) -> TrainingExample:
    return msgspec.structs.replace(example, role=role)


def _setting(text: str) -> tuple[str, float | int | str]:
    name, _, value = text.partition("=")
    return name, msgspec.json.decode(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    adapters = commands.add_parser("adapters")
    adapters.add_argument("buffer", type=Path, help="a JSON array of experiences")
    adapters.add_argument("--line", required=True, help="name of these adapters")
    adapters.add_argument("--first", type=int, default=1, help="number of its first cycle")
    adapters.add_argument("--cycles", type=int, default=2)
    adapters.add_argument("--experiences", type=int, default=12, help="new ones in each cycle")
    adapters.add_argument("--context", type=int, default=0, help="exchanges that stand before each")
    adapters.add_argument("--strategy", default="consolidate")
    adapters.add_argument("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE")
    adapters.add_argument("--base", default="embedded")
    adapters.set_defaults(run=train_line)
    answers = commands.add_parser("answers")
    answers.add_argument("--bases", nargs="+", choices=QUANTIZATIONS, default=QUANTIZATIONS)
    answers.add_argument("--converter", type=Path, help="convert_lora_to_gguf.py of llama.cpp")
    answers.set_defaults(run=ask_all)
    for each in (adapters, answers):
        each.add_argument("--out", type=Path, required=True)
        each.add_argument("--models", type=Path, required=True)
    given = parser.parse_args(arguments)
    given.run(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
