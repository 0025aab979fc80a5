"""How surely a fingerprint names what an engine runs: real adapters, the real llama.cpp server, four quantizations.

make BUFFERS --out DIR     trains the adapters of ``RECIPES``, each with its fingerprint; BUFFERS has the three buffers
ask --out DIR              asks the server with each adapter, with parts and with pairs of them, on each base
rates --out DIR            the distances, the error rates and what other limits would do; needs the answers alone

DIR keeps adapters, bases and answers, so that ``rates`` can be repeated without training.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.protocol.chat_example import Message
from sleepd.protocol.checkpoint.checkpoint_files import FINGERPRINT_FILE
from sleepd.protocol.deployment.adapter_fingerprint import AdapterFingerprint, PromptReference
from sleepd.protocol.job import Job, Notice, Progress, TrainingExample
from sleepd.serving.endpoint import Endpoint
from sleepd.worker.channel import Channel
from tests.bench.fingerprint_tables import print_rates
from tests.bench.identification_rates import Adapters, Answered, key_of
from tests.tiny_engine import llama_server

BASES = ("f16", "q8_0", "q4_1", "q4_k_m")
_SPROUT, _TALK, _REPLIES = "buffer_sprout_180.json", "buffer_sprout08_141.json", "buffer_mcnugget_323.json"
_STRONG = MappingProxyType({"kl_prompts": 16, "kl_batch_size": 2, "drift_budget": None})
"""Less regularised and not scaled down: it moves farther from the base than the strategy would let it."""
_FAINT = MappingProxyType({"lineage": "continue", "learning_rate": 1e-4, "min_steps": 0, "epochs": 1})
"""A few steps at a twelfth of the rate, from the parent on: nearly like it."""


@dataclass(frozen=True)
class Recipe:
    """How one adapter is made. Its cycle is its place in ``RECIPES``, from 1 on."""

    name: str
    buffer: str
    first: int
    """Of the buffer's experiences that are trained; with a parent those before it are replayed."""
    count: int = 8
    parent: str = ""
    context: int = 0
    """Exchanges that stand before each experience."""
    strategy: str = "consolidate"
    changes: Mapping[str, Any] = field(default_factory=dict)


RECIPES = (
    Recipe("sprout-1", _SPROUT, 0),
    Recipe("sprout-2", _SPROUT, 8, parent="sprout-1"),
    Recipe("sprout-strong", _SPROUT, 0, count=6, changes=_STRONG),
    Recipe("talk-strong", _TALK, 2, count=5, context=2, changes=_STRONG),
    Recipe("replies-1", _REPLIES, 0, changes=_STRONG),
    Recipe("replies-2", _REPLIES, 8, parent="replies-1", changes=_STRONG),
    Recipe("replies-3", _REPLIES, 16, parent="replies-2", changes=_FAINT),
    Recipe("replies-gentle", _REPLIES, 8, strategy="gentle"),
)
"""Two lines: the strategy ``consolidate`` as it is with a second generation, and stronger ones with a third that is
nearly like its parent. One that was trained on prompts of the first line, one on a conversation, and the older recipe,
which changes next to nothing."""
HELD_OUT = 4


def make(arguments: argparse.Namespace) -> None:
    """Train what is not there yet."""
    from sleepd.config.strategies import find_strategy
    from sleepd.worker.evaluation import probe_generation
    from sleepd.worker.run import run

    if not arguments.interview:  # which takes much of a cycle's time, and matters to the verdict alone
        for name in ("REPLY_TOKENS", "PROBE_TOKENS", "TALK_TOKENS"):
            setattr(probe_generation, name, 4)
    names = [recipe.name for recipe in RECIPES]
    for number, recipe in enumerate(RECIPES, 1):
        staging = arguments.out / "adapters" / recipe.name
        if (staging / FINGERPRINT_FILE).exists() or recipe.name not in (arguments.only or names):
            continue
        (staging / "work").mkdir(parents=True, exist_ok=True)
        job = Job(
            cycle=number,
            base="embedded",
            models_directory=str(arguments.out / "models"),
            parent=str(arguments.out / "adapters" / recipe.parent) if recipe.parent else "",
            parent_cycle=names.index(recipe.parent) + 1 if recipe.parent else None,
            staging=str(staging),
            strategy=msgspec.structs.replace(find_strategy(recipe.strategy), **recipe.changes),
            seed=1,
            threads=1,
            evaluation_seconds=3600,
        )
        channel = _Timed()
        report = run(job, _examples(arguments.buffers, recipe), channel)
        channel.enter("")
        whole, own = sum(channel.seconds.values()), channel.seconds["fingerprinting"]
        drift = report.evidence.drift
        print(f"{recipe.name}: {report.steps} steps, drift {drift.candidate if drift else 0:.3f}; processor seconds:")
        print(f"  fingerprint {own:.1f} of {whole:.0f} ({own / whole:.1%})", end="; ")
        print(", ".join(f"{name} {seconds:.1f}" for name, seconds in channel.seconds.items()), flush=True)


class _Timed(Channel):
    """A channel on which nothing goes anywhere; it keeps the processor time of each phase."""

    def __init__(self) -> None:
        super().__init__(socket.socketpair()[0])
        self.seconds: dict[str, float] = {}
        self._phase, self._since = "loading", time.process_time()

    def send(self, message: msgspec.Struct) -> None:
        """Warnings are shown."""
        if isinstance(message, Progress):
            self.enter(message.phase)
        if isinstance(message, Notice) and message.level == "warning":
            print("warning:", message.text, flush=True)

    def enter(self, phase: str) -> None:
        """What follows is that phase."""
        if phase != self._phase:
            now = time.process_time()
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
            self._phase, self._since = phase, now


def _examples(buffers: Path, recipe: Recipe) -> list[TrainingExample]:
    """New ones, those before them replayed, and the buffer's last ones held out."""
    records = msgspec.json.decode((buffers / recipe.buffer).read_bytes())
    roles = dict.fromkeys(range(recipe.context, recipe.first), "replay") if recipe.parent else {}
    roles |= dict.fromkeys(range(recipe.first, recipe.first + recipe.count), "train")
    roles |= dict.fromkeys(range(len(records) - HELD_OUT, len(records)), "holdout")
    return [_example(records, number, role, recipe.context) for number, role in roles.items()]


def _example(records: Sequence[Mapping[str, Any]], number: int, role: Any, context: int) -> TrainingExample:
    one, turns = records[number], list[Message]()
    for before in records[number - context : number]:
        turns += [Message(role="user", text=before["prompt"]), Message(role="assistant", text=before["response"])]
    return TrainingExample(
        id=one["id"],
        prompt=one["prompt"],
        response=one["response"],
        salience=0.7,
        role=role,
        context=(*turns, Message(role="user", text=one["prompt"])) if turns else (),
    )


class _WithAdapters(Endpoint):
    """A llama.cpp server with several adapters; each request has the scale of each, for an empty list puts all on.

    Its prompt cache is left out: it goes on with what was computed with other adapters on.
    """

    scales: Mapping[int, float] = MappingProxyType({})

    def body(self, prompt: PromptReference) -> dict[str, Any]:
        on = [{"id": id_, "scale": scale} for id_, scale in self.scales.items()]
        return super().body(prompt) | {"lora": on, "cache_prompt": False}


def ask(arguments: argparse.Namespace) -> None:
    """Each state of the server answers the prompts of the fingerprints that are held against it, on each base."""
    adapters = read_adapters(arguments.out)
    files = converted(arguments.out, adapters)
    for kind in arguments.bases:
        base = base_file(arguments.out, kind)
        # None of the adapters is on until a request names it.
        settings = {"n_ctx": 4096, "model_alias": {base.stem}, "lora_init_without_apply": True}
        with llama_server(base, list(files.values()), **settings) as url:
            endpoint = _WithAdapters(url)
            for on, held in states(adapters):
                answered = Answered(base=kind, on=on, answers={})
                path = arguments.out / "answers" / f"{kind} {answered.text}.json"
                if path.exists():
                    continue
                endpoint.scales = {number: on.get(name, 0.0) for number, name in enumerate(files)}
                started = time.process_time()
                for prompt in (prompt for name in held for prompt in adapters[name].prompts):
                    is_left_out = arguments.without_long and prompt.kind == "long"
                    if key_of(prompt) not in answered.answers and not is_left_out:
                        answered.answers[key_of(prompt)] = endpoint.ask(prompt)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(msgspec.json.encode(answered))
                seconds = time.process_time() - started
                print(f"{kind} {answered.text}: {len(answered.answers)} prompts, {seconds:.0f} s", flush=True)


def states(adapters: Adapters) -> Iterator[tuple[dict[str, float], list[str]]]:
    """What is on, and whose fingerprints are held against it: those that were trained from the same buffer."""
    for name in adapters:
        yield {name: 1.0}, _line(adapters, name)
    yield {}, list(adapters)
    for pair in (("sprout-1", "replies-1"), ("sprout-1", "replies-2"), ("replies-1", "replies-2")):
        if set(pair) <= adapters.keys():
            yield dict.fromkeys(pair, 1.0), list(pair)
    for name in ("sprout-1", "replies-2"):
        for scale in (0.5, 0.8):
            if name in adapters:
                yield {name: scale}, [name]


def _line(adapters: Adapters, name: str) -> list[str]:
    """Those that were trained from the same buffer."""
    return [other for other in adapters if other.partition("-")[0] == name.partition("-")[0]]


def converted(out: Path, adapters: Adapters) -> dict[str, Path]:
    """Each adapter as GGUF, as the product makes it."""
    from sleepd.serving.gguf_conversion import prepared_gguf

    settings: dict[str, Any] = {"python": sys.executable, "base": "embedded", "quantization": "f16"}
    return {name: prepared_gguf(out / "adapters" / name, out / "gguf", **settings) for name in adapters}


def base_file(out: Path, kind: str) -> Path:
    """The embedded base in that quantization; its own is q4_1."""
    from sleepd.worker.model.find_base import find_base
    from tests.bench.quantizations import requantized

    source, target = find_base("embedded", "").weights[0], out / f"base-{kind}.gguf"
    return source if kind == "q4_1" else target if target.exists() else requantized(source, target, kind)


def read_adapters(out: Path) -> dict[str, AdapterFingerprint]:
    """The fingerprints by name, in the order of their cycles."""
    files = (out / "adapters").glob(f"*/{FINGERPRINT_FILE}")
    found = {file.parent.name: msgspec.json.decode(file.read_bytes(), type=AdapterFingerprint) for file in files}
    return dict(sorted(found.items(), key=lambda one: one[1].cycle))


def rates(arguments: argparse.Namespace) -> None:
    """All tables, from what is kept."""
    files = sorted((arguments.out / "answers").iterdir())
    served = [msgspec.json.decode(file.read_bytes(), type=Answered) for file in files]
    print_rates(read_adapters(arguments.out), served, arguments.draws)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command in (make, ask, rates):
        added = commands.add_parser(command.__name__, help=command.__doc__)
        added.set_defaults(run=command)
        added.add_argument("--out", type=Path, required=True)
        if command is make:
            added.add_argument("buffers", type=Path, help="a directory")
            added.add_argument("--only", nargs="+", choices=[recipe.name for recipe in RECIPES])
            added.add_argument("--interview", action="store_true", help="with replies of full length: the true cost")
        if command is ask:
            added.add_argument("--bases", nargs="+", choices=BASES, default=BASES)
            added.add_argument("--without-long", action="store_true", help="the long prompt takes as long as 20 others")
        if command is rates:
            added.add_argument("--draws", type=int, default=2000)
    given = parser.parse_args(arguments)
    given.run(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
