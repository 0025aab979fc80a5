"""How often the verdict is right: candidates of known worth, judged again and again on parts of what was measured.

``make`` trains one candidate of each kind on a real buffer with the worker's own code and keeps what was measured on it
in a file; ``table`` draws parts of that without replacement (held-out experiences, probe replies, trained replies with
their prompts), judges each draw by the default gates, and counts. Nothing is ever taken from what another model said or
lost.

    python tests/bench/judgebench.py make BUFFER.json --cache pools.json --work DIRECTORY [--kinds good,loops]
    python tests/bench/judgebench.py table --cache pools.json [--trials 200]
    python tests/bench/judgebench.py gains NIGHTS.jsonl [--trials 200]

Kinds: ``base again`` (an adapter that is zero: a second reading), ``noise`` (small random weights), ``slow`` (trained
at a five-hundredth of the rate), ``good`` (the default strategy), ``loops`` (each reply replaced by its first words,
over and over), ``shuffled`` (each reply moved to another prompt), ``hot`` (trained at 100 times the rate). ``table``
adds ``no effect``: the good one's gains, each for or against it by the toss of a coin; ``worse``: the same, and worse
by the margin of the second rule (``judging.learned_rule``); and ``worse by half`` of it. These three have learned
what they were told. ``gains`` judges the gain alone, all else taken as harmless, on the nights that sleepbench.py has
written: many trainings, other experiences in each.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sleepd.config.strategies import find_strategy
from sleepd.policy.judging.collapse_gate import MODES
from sleepd.policy.judging.promotion import REQUIRED_CHECKS, Gates, judge
from sleepd.policy.judging.reply_statistics import describe
from sleepd.protocol.evidence import Collapse, Drift, Evidence, LossPair, Relevance, TrainedLoss
from sleepd.protocol.job import Job, Reply, Report, TrainingCheck, TrainingExample
from sleepd.protocol.verdict import Outcome, Verdict

KINDS = ("base again", "noise", "slow", "good", "loops", "shuffled", "hot")
HELD_OUT = 36
TRAINED = 36
FEWEST_CHARACTERS = 80
"""Of a reply; above that the shortest chat examples are taken, so that seven trainings fit into an hour of one core."""
PROMPTS = 64
"""Of the general prompts of each kind, at most so many are used, to spare time."""
REPLY_TOKENS = 64
"""Of replies to held-out prompts: enough for a loop to show."""
HELD_OUT_SIZES = (4, 8, 16, 30)
TAUGHT = 24
"""Trained replies that are held against their prompts in each draw, as many as the worker reads."""
PROBE_SHARE = 0.75
"""Of the probe replies in each draw."""
NEWLY_TRAINED = 24
"""Newly trained replies that are measured in each draw, as many as the worker measures."""
WORSE = {"no effect": 0.0, "worse by half": 0.5, "worse": 1.0}
"""Kinds that ``table`` and ``gains`` make of a good one, and by how much of the margin each is worse."""
GAINED = 2.0
"""Nats per token that their champion gained over the base: the whole margin is allowed."""
NOISE = 2e-4
"""Standard deviation of the random weights of ``noise``."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured on one candidate, as texts and losses from which parts can be drawn."""

    kind: str
    noise_floor: float
    drift: float
    relevance: Relevance
    """Of what this one was trained on."""
    pairs: list[LossPair]
    newly_trained: list[TrainedLoss]
    replies: list[Reply]
    base: dict[str, list[str]]
    """Replies by way of asking."""
    candidate: dict[str, list[str]]
    seconds: float


# --- measuring ---


def make(options: argparse.Namespace) -> None:
    """Measure the base, then one candidate after the other; each is kept at once."""
    import torch

    from sleepd.worker.channel import Channel
    from sleepd.worker.evaluation import probe_generation, reference_answers, relevance
    from sleepd.worker.measure import Measurer
    from sleepd.worker.model.adapter import save_adapter
    from sleepd.worker.model.loading import load
    from sleepd.worker.model.memory.out_of_memory import MemoryLimits
    from sleepd.worker.progress import Phases
    from sleepd.worker.report import SplitExamples

    torch.manual_seed(0)
    probe_generation.REPLY_TOKENS = REPLY_TOKENS
    relevance.MOST = TRAINED
    all_prompts = reference_answers.reference_prompts
    reference_answers.reference_prompts = probe_generation.reference_prompts = lambda kind: all_prompts(kind)[:PROMPTS]
    channel = Channel(socket.socketpair()[0])
    channel.send = lambda message: None  # type: ignore[method-assign]
    held_out, to_train = split(options.buffer)
    job = Job(
        cycle=1,
        base=options.base,
        models_directory=str(options.work / "models"),
        staging=str(options.work / "staging"),
        strategy=msgspec.structs.replace(find_strategy("consolidate"), kl_prompts=PROMPTS),
        device="cpu",
        threads=options.threads,
        evaluation_seconds=7200.0,
    )
    for name in ("models", "staging"):
        (options.work / name).mkdir(parents=True, exist_ok=True)
    loaded = load(job, channel)
    untrained = {name: weight.clone() for name, weight in _weights(loaded.model).items()}
    limits = MemoryLimits(job.strategy.micro_batch_tokens, job.strategy.max_tokens, channel)
    phases = Phases(channel)
    # What is trained is no evidence: two of them keep the measurer content.
    examples = SplitExamples(to_train=to_train[:2], to_hold_out=held_out, to_stop=[])
    measurer = Measurer(job, examples, loaded, limits, phases, channel)
    with phases.enter("measuring"):
        exchanges, before, references = measurer.before()
    print(f"base measured: {phases.seconds}", flush=True)
    for kind in options.kinds.split(",") if options.kinds else KINDS:
        started = time.monotonic()
        for name, weight in _weights(loaded.model).items():
            weight.copy_(untrained[name])
        with phases.enter("training"):
            _become(kind, loaded, job, exchanges, references, to_train, limits, channel, phases, measurer)
        save_adapter(
            loaded.model, options.work / "staging", loaded.base_directory
        )  # by whose hash its answers are kept
        with phases.enter("evaluating"):
            after = measurer.after(exchanges, before, references)
        taught = relevance.encode_both(
            loaded.chat, relevance.chosen_examples(_examples(kind, to_train)), exchanges.max_tokens
        )
        with phases.enter("measuring"), loaded.model.disable_adapter():
            fitting = relevance.measure(measurer.evaluator, taught)
        with phases.enter("measuring"):
            told = _told(loaded, measurer, _examples(kind, to_train), exchanges.max_tokens, channel)
        spent = time.monotonic() - started
        pool = _pool(kind, held_out, exchanges.asked.held_out, before, after, fitting, told, spent)
        keep(options.cache, pool)
        gain = sum(p.tokens * (p.parent - p.candidate) for p in pool.pairs) / sum(p.tokens for p in pool.pairs)
        print(f"{kind}: gain {gain:.4f}, drift {pool.drift:.4f}, {pool.seconds:.0f} s", flush=True)


def split(buffer: Path) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Held-out and trained lessons, of different texts, divided with a fixed seed."""
    records = json.loads(buffer.read_bytes())
    found = {(one["prompt"], one["response"]): one for one in records if len(one["response"]) >= FEWEST_CHARACTERS}
    shortest = sorted(found.values(), key=lambda one: len(one["prompt"]) + len(one["response"]))
    drawn = random.Random(0).sample(shortest[: HELD_OUT + TRAINED], HELD_OUT + TRAINED)

    def example(number: int, role: str) -> TrainingExample:
        one = drawn[number]
        return TrainingExample(id=f"e{number}", prompt=one["prompt"], response=one["response"], salience=0.7, role=role)

    held_out = [example(number, "holdout") for number in range(HELD_OUT)]
    return held_out, [example(number, "train") for number in range(HELD_OUT, HELD_OUT + TRAINED)]


def _weights(model: Any) -> dict[str, Any]:
    """The adapter's, as they stand in the model."""
    return {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}


def _become(
    kind: str,
    loaded: Any,
    job: Job,
    exchanges: Any,
    references: Any,
    to_train: Sequence[TrainingExample],
    limits: Any,
    channel: Any,
    phases: Any,
    measurer: Any,
) -> None:
    """Make the model a candidate of that kind."""
    from sleepd.worker.data.examples import encode_examples
    from sleepd.worker.training.adapter_weights import AdapterWeights
    from sleepd.worker.training.batches import Batches, TrainingSet
    from sleepd.worker.training.heartbeat import TrainingHeartbeat
    from sleepd.worker.training.train import Trainer

    if kind == "base again":
        return
    if kind == "noise":
        for name, weight in _weights(loaded.model).items():
            if ".lora_B." in name:
                weight.normal_(0, NOISE)
        return
    rate = job.strategy.learning_rate * {"slow": 1 / 500, "hot": 100.0}.get(kind, 1.0)
    strategy = msgspec.structs.replace(job.strategy, learning_rate=rate)
    if kind == "slow":
        strategy = msgspec.structs.replace(strategy, epochs=1, min_steps=0)
    encoded = encode_examples(loaded.chat, _examples(kind, to_train), exchanges.max_tokens, channel)
    phases.pace.begin()
    weights = AdapterWeights(loaded.model, loaded.device, strategy, 1)
    on = TrainingSet(encoded, lambda _most: encoded, exchanges.reference_examples, references)
    batches = Batches(on, limits, strategy, packed=measurer.evaluator.packed)
    heartbeat = TrainingHeartbeat(channel, phases.pace, loaded.device.description)
    Trainer(strategy, 1, weights, batches, heartbeat).run(lambda: None)
    loaded.model.eval()


def _examples(kind: str, to_train: Sequence[TrainingExample]) -> list[TrainingExample]:
    texts = _texts(kind, to_train)
    return [msgspec.structs.replace(one, response=text) for one, text in zip(to_train, texts, strict=True)]


def _texts(kind: str, to_train: Sequence[TrainingExample]) -> list[str]:
    if kind == "loops":
        return [f"{' '.join(one.response.split()[:6])} " * 15 for one in to_train]
    if kind == "shuffled":
        texts = [one.response for one in to_train]
        random.Random(1).shuffle(texts)
        return texts
    return [one.response for one in to_train]


def _told(
    loaded: Any, measurer: Any, examples: Sequence[TrainingExample], max_tokens: int, channel: Any
) -> list[TrainedLoss]:
    """What the candidate knows of what it was told, beside what the base does."""
    from sleepd.worker.data.examples import encode_examples

    encoded = encode_examples(loaded.chat, examples, max_tokens, channel)
    candidate = measurer.evaluator.losses(encoded)
    with loaded.model.disable_adapter():
        base = measurer.evaluator.losses(encoded)
    return [
        TrainedLoss(id=one.id, tokens=one.supervised, parent=base[one.id].mean, candidate=candidate[one.id].mean)
        for one in encoded
    ]


def _pool(
    kind: str,
    held_out: Sequence[TrainingExample],
    asked: Sequence[Any],
    before: Any,
    after: Any,
    fitting: Relevance,
    told: list[TrainedLoss],
    seconds: float,
) -> Pool:
    from sleepd.worker.evaluation.comparison import holdout_replies

    def ways(answers: Any) -> dict[str, list[str]]:
        return {way: getattr(answers, way) for way in ("greedy", "sampled", "talk")}

    return Pool(
        kind=kind,
        noise_floor=before.noise_floor,
        drift=after.drift,
        relevance=fitting,
        pairs=[
            LossPair(
                id=one.id,
                tokens=after.losses[one.id].tokens,
                base=before.base[one.id].mean,
                parent=before.parent[one.id].mean,
                candidate=after.losses[one.id].mean,
            )
            for one in held_out
            if one.id in after.losses
        ],
        newly_trained=told,
        replies=holdout_replies(asked, before.parent_answers, after.answers),
        base=ways(before.base_answers),
        candidate=ways(after.answers),
        seconds=seconds,
    )


def keep(cache: Path, pool: Pool) -> None:
    """Add it to the file, in place of an older one of its kind."""
    pools = [each for each in read(cache) if each.kind != pool.kind] if cache.exists() else []
    cache.write_bytes(msgspec.json.encode([*pools, pool]))


def read(cache: Path) -> list[Pool]:
    """What ``make`` has kept."""
    return msgspec.json.decode(cache.read_bytes(), type=list[Pool])


# --- judging ---


def draw(pool: Pool, held_out: int, seed: int) -> Report:
    """A report with so many of the held-out experiences and a part of the probe replies."""
    chance = random.Random(seed)
    pairs = chance.sample(pool.pairs, held_out)
    if pool.kind in WORSE:
        # As much apart as a good candidate's, and for or against it by the toss of a coin.
        signs = [chance.choice((-1, 1)) for _ in pairs]
        worse = WORSE[pool.kind] * Gates().margin
        pairs = [
            msgspec.structs.replace(
                each, base=each.parent + GAINED, candidate=each.parent + sign * (each.candidate - each.parent) + worse
            )
            for each, sign in zip(pairs, signs, strict=True)
        ]
    tokens = sum(each.tokens for each in pairs)
    collapse = []
    for mode, said in pool.candidate.items():
        places = sorted(chance.sample(range(len(said)), max(2, round(PROBE_SHARE * len(said)))))
        base, candidate = (describe([texts[i] for i in places]) for texts in (pool.base[mode], said))
        collapse.append(Collapse(mode=mode, base=base, parent=base, candidate=candidate))
    replies = chance.sample(pool.replies, min(len(pool.replies), held_out))
    taught = pool.relevance.losses
    taught = chance.sample(taught, min(len(taught), TAUGHT))
    told = chance.sample(pool.newly_trained, min(len(pool.newly_trained), NEWLY_TRAINED))
    before = sum(each.tokens * each.parent for each in pairs) / tokens
    after = sum(each.tokens * each.candidate for each in pairs) / tokens
    return Report(
        base_fingerprint="",
        device="cpu",
        dtype="float32",
        trained=TRAINED,
        replayed=0,
        held_out=held_out,
        truncated=0,
        tokens=1,
        supervised_tokens=1,
        epochs=1,
        steps=1,
        learning_rate=1.0,
        avg_salience=None,
        epoch_losses=[],
        train_before=None,
        train_after=None,
        holdout_base=before,
        holdout_before=before,
        holdout_after=after,
        holdout=pairs,
        # Passed, also by an adapter that is zero: it is the figures that are tried here.
        checks=[TrainingCheck(name=name, passed=True, figure=1, limit=0, detail="") for name in REQUIRED_CHECKS],
        replies=replies,
        notices=[],
        seconds={},
        tokens_per_second=1.0,
        peak_memory_bytes=1,
        lora_shape="",
        evidence=Evidence(
            noise_floor=pool.noise_floor,
            drift=Drift(prompts=1, tokens=1, parent=0.0, candidate=pool.drift),
            collapse=collapse,
            relevance=Relevance(prompts=pool.relevance.prompts, replies=len(taught), losses=taught),
            newly_trained=told,
        ),
    )


def table(options: argparse.Namespace) -> None:
    """Print what the verdict was, of each kind and size, and what rejected."""
    pools = read(options.cache)
    pools += [msgspec.structs.replace(each, kind=kind) for kind in WORSE for each in pools if each.kind == "good"]
    gates = Gates(inconclusive=options.inconclusive)
    rate = f"{1 - gates.confidence:.0%}"
    print(f"{options.trials} draws each; stated error rate {rate}; inconclusive: {gates.inconclusive}")
    print(
        f"{'kind':<13} {'held out':>8} {'better':>7} {'learned':>7} {'probation':>9} {'open':>6} {'rejected':>9}  "
        "rejected for"
    )
    for pool in pools:
        for held_out in HELD_OUT_SIZES:
            verdicts = [judge(draw(pool, held_out, seed), gates) for seed in range(options.trials)]
            counted = Counter(map(_ending, verdicts))
            shares = [f"{counted[name] / len(verdicts):.1%}" for name in ENDINGS]
            names = [name for each in verdicts for name in each.failed]
            why = ", ".join(f"{name} {names.count(name)}" for name in sorted(set(names), key=lambda n: -names.count(n)))
            print(
                f"{pool.kind:<13} {held_out:>8} {shares[0]:>7} {shares[1]:>7} {shares[2]:>9} {shares[3]:>6} "
                f"{shares[4]:>9}  {why}",
                flush=True,
            )


ENDINGS = ("better", "learned", "probation", "inconclusive", "rejected")


def _ending(verdict: Verdict) -> str:
    """The outcome; of a promotion by which rule."""
    if verdict.outcome is not Outcome.PROMOTED:
        return str(verdict.outcome)
    return "probation" if verdict.is_on_probation else ("learned" if verdict.learned else "better")


def harmless(kind: str, pairs: list[LossPair], newly_trained: list[TrainedLoss]) -> Pool:
    """A candidate of these losses that does no harm by any other figure."""
    said = {mode: ["The tide comes in at six and goes out at noon.", "A lamp stands on the pier."] for mode in MODES}
    return Pool(
        kind=kind,
        noise_floor=0.0,
        drift=0.0,
        relevance=Relevance(prompts=0, replies=0, losses=[]),
        pairs=pairs,
        newly_trained=newly_trained,
        replies=[Reply(id="", prompt="", text="", is_loop=False, repeated_share=0.0)],
        base=said,
        candidate=said,
        seconds=0.0,
    )


def gains(options: argparse.Namespace) -> None:
    """Print what the verdict was on drawn experiences of drawn nights; for each kind, the same nights."""
    lines = [json.loads(line) for line in options.nights.read_text().splitlines()]
    nights = [_night(line["pairs"]) for line in lines if line.get("pairs")]
    told = [TrainedLoss(id=str(number), tokens=10, parent=2.0, candidate=0.5) for number in range(NEWLY_TRAINED)]
    print(f"{len(nights)} nights, {options.trials} draws each; inconclusive: {options.inconclusive}")
    for kind in ("good", *WORSE):
        for held_out in HELD_OUT_SIZES:
            usable = [pairs for pairs in nights if len(pairs) >= held_out]
            counts: Counter[str] = Counter()
            for seed in range(options.trials if usable else 0):
                pairs = random.Random(seed).choice(usable)
                pool = harmless(kind, pairs, told)
                verdict = judge(draw(pool, held_out, seed), Gates(inconclusive=options.inconclusive))
                counts[_ending(verdict)] += 1
            shares = ", ".join(f"{name} {count / options.trials:.1%}" for name, count in sorted(counts.items()))
            print(f"{kind:<13} {held_out:>3} held out: {shares or 'no night has so many'}", flush=True)


def _night(pairs: Sequence[tuple[str, int, float, float]]) -> list[LossPair]:
    """From sums of losses over an experience's tokens, as sleepbench.py writes them."""
    return [
        LossPair(id=id_, tokens=tokens, base=base / tokens, parent=base / tokens, candidate=candidate / tokens)
        for id_, tokens, base, candidate in pairs
        if tokens
    ]


def main() -> None:
    """Run the command that was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("buffer", type=Path)
    making.add_argument("--cache", type=Path, required=True)
    making.add_argument("--work", type=Path, required=True)
    making.add_argument("--kinds", default="")
    making.add_argument("--base", default="embedded", help="the base model, as model.base names it")
    making.add_argument("--threads", type=int, default=0)
    making.set_defaults(run=make)
    decisive = commands.add_parser("table")
    decisive.add_argument("--cache", type=Path, required=True)
    decisive.add_argument("--trials", type=int, default=200)
    decisive.add_argument("--inconclusive", choices=["auto", "keep", "probation"], default="auto")
    decisive.set_defaults(run=table)
    gaining = commands.add_parser("gains")
    gaining.add_argument("nights", type=Path)
    gaining.add_argument("--trials", type=int, default=200)
    gaining.add_argument("--inconclusive", choices=["auto", "keep", "probation"], default="auto")
    gaining.set_defaults(run=gains)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
