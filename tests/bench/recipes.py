"""The recipes that are compared: a strategy of ours as the worker trains it, and the older trainer's loop.

Both train one night on a model in this process and say what it cost. The measuring is the same for both.
"""

from __future__ import annotations

import contextlib
import math
import random
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from sleepd.policy.judging.repetition import find_repetition
from sleepd.protocol.job import Notice, TrainingExample
from sleepd.protocol.strategy import Strategy
from sleepd.worker.channel import Channel
from sleepd.worker.data.examples import ChatFormat, Encoded, encode_examples, total_tokens
from sleepd.worker.evaluation.loss_evaluator import LossEvaluator, Measured
from sleepd.worker.evaluation.reference_answers import (
    MONITOR,
    REGULARISE,
    answers_file,
    base_answers,
    chosen_prompts,
    encode_reference,
    reference_prompts,
)
from sleepd.worker.evaluation.system_messages import asked
from sleepd.worker.model.adapter import load_base, start_adapter
from sleepd.worker.model.device import Device, choose_device
from sleepd.worker.model.generate import greedy_replies, stop_ids
from sleepd.worker.model.gguf.convert_gguf import open_base
from sleepd.worker.model.losses import Reference
from sleepd.worker.model.memory.out_of_memory import MemoryLimits
from sleepd.worker.progress import Pace
from sleepd.worker.training.adapter_weights import AdapterWeights
from sleepd.worker.training.batches import Batches, TrainingSet
from sleepd.worker.training.best_weights import BestWeights
from sleepd.worker.training.early_stopping import EarlyStopping, ValidationCheck, divide_holdout, report_what_was_kept
from sleepd.worker.training.heartbeat import TrainingHeartbeat
from sleepd.worker.training.schedule import epoch_ends, epoch_order, step_size
from sleepd.worker.training.thinned_prompts import thinned
from sleepd.worker.training.train import Trainer
from tests.bench.replay import Night

ROW_TOKENS = 1024
REPLY_BATCH = 16
REPLIES = 8
REPLY_TOKENS = 128


class SilentChannel(Channel):
    """Sends nowhere."""

    def __init__(self) -> None:
        super().__init__(socket.socketpair()[0])

    def send(self, message: Any) -> None:
        """Drop the message."""


@dataclass(frozen=True)
class Cost:
    """Of one night's training alone, looks included."""

    wall_seconds: float
    cpu_seconds: float
    tokens: int
    steps: int
    kept_step: int | None
    notices: list[Notice]
    checks: list[ValidationCheck]


class Bench:
    """The base with at most one adapter, and what is measured on it."""

    def __init__(self, base: str, models: Path, system_prompt: str, *, is_older: bool) -> None:
        directory, fingerprint = open_base(base, "", models, print)
        exact = Device(torch.device("cpu"), torch.float32, "cpu")
        self._is_older = is_older
        self._device = exact if is_older else choose_device("cpu")
        self._model, tokenizer = load_base(directory, self._device)
        self._chat = ChatFormat(tokenizer, system_prompt)
        self._stops = stop_ids(self._model, self._chat)
        self._cache = answers_file(models, fingerprint, system_prompt, self._chat)
        self._is_adapted = False
        self._probes: list[Encoded] = []
        self._references: dict[str, Reference] = {}

    def sleep(self, night: Night, strategy: Strategy, seed: int, *, is_merged: bool) -> Cost:
        """Train one night, on the adapter of the one before or from the base, as the strategy says."""
        if not self._probes:  # before the first adapter
            self._probes = self._answered(reference_prompts("probe"), "probe")
            self._references = self._evaluator().references(self._probes)
        continues = self._is_adapted and (self._is_older or strategy.lineage == "continue")
        if is_merged and self._is_adapted:
            self._model, self._is_adapted = self._model.merge_and_unload(), False
        if self._is_adapted and not continues:
            self._model, self._is_adapted = self._model.unload(), False
        general, monitor, references = ([], [], {}) if self._is_older else self._regularising(night, strategy, seed)
        if not self._is_adapted:
            self._model, self._is_adapted = start_adapter(self._model, strategy, seed).eval(), True
        if self._is_older:
            return self._train_as_before(night, strategy, seed)
        if continues:
            rate = strategy.learning_rate * strategy.continued_rate_share
            strategy = msgspec.structs.replace(strategy, learning_rate=rate)
        return self._train(night, strategy, seed, general, monitor, references)

    def _regularising(
        self, night: Night, strategy: Strategy, seed: int
    ) -> tuple[list[Encoded], list[Encoded], dict[str, Reference]]:
        prompts = chosen_prompts(strategy, seed, epoch_ends(strategy, self._encode(night.to_train), seed)[-1])
        with self.as_base():
            general = self._answered(prompts.regularise, REGULARISE)
            monitor = self._answered(prompts.monitor, MONITOR)
            return general, monitor, self._evaluator().references(general) | self._evaluator().references(monitor)

    def _train(
        self,
        night: Night,
        strategy: Strategy,
        seed: int,
        general: list[Encoded],
        monitor: list[Encoded],
        references: dict[str, Reference],
    ) -> Cost:
        channel = SilentChannel()
        encoded = self._encode(night.to_train)
        _, stopping = divide_holdout(night.held_out)
        budget = math.inf if strategy.drift_budget is None else strategy.drift_budget
        weights = AdapterWeights(self._model, self._device, strategy, seed)
        limits = MemoryLimits(strategy.micro_batch_tokens, strategy.max_tokens, channel)
        prompts = thinned(self._chat, night.to_train, encoded, strategy, lambda: None)
        given = TrainingSet(encoded, lambda _longest: encoded, general, references, prompts)
        batches = Batches(given, limits, strategy, packed=True)
        stopping_early = EarlyStopping(self._evaluator(), monitor, references, self._encode(stopping), budget)
        heartbeat = TrainingHeartbeat(channel, Pace(), self._device.description)
        trainer = Trainer(strategy, seed, weights, batches, heartbeat, BestWeights(weights, stopping_early))
        started, used = time.monotonic(), time.process_time()
        done = trainer.run(lambda: None)
        wall, cpu = time.monotonic() - started, time.process_time() - used
        report_what_was_kept(done.checks, done.scaled_down, budget, channel)
        return Cost(wall, cpu, done.tokens, done.steps, done.kept_step, channel.notices, done.checks)

    def counted(self, night: Night, strategy: Strategy, seed: int) -> tuple[int, int]:
        """Optimizer steps and tokens of the training that ``sleep`` would do, where nothing ends it early."""
        encoded = self._encode(night.to_train)
        ends = epoch_ends(strategy, encoded, seed)
        with self.as_base():
            general = self._answered(chosen_prompts(strategy, seed, ends[-1]).regularise, REGULARISE)
        prompts = thinned(self._chat, night.to_train, encoded, strategy, lambda: None)
        limits = MemoryLimits(strategy.micro_batch_tokens, strategy.max_tokens, SilentChannel())
        unmeasured = Reference(torch.empty(0, 0, dtype=torch.long), torch.empty(0, 1))
        references = dict.fromkeys((one.id for one in general), unmeasured)
        given = TrainingSet(encoded, lambda _longest: encoded, general, references, prompts)
        batches = Batches(given, limits, strategy, packed=True)
        batches.encode()
        size, steps, tokens = step_size(strategy, encoded), 0, 0
        for epoch in range(len(ends)):
            order = epoch_order(strategy, encoded, seed, epoch)
            for at in range(0, len(order), size):
                rows = batches.rows(batches.members(order[at : at + size], steps))
                tokens += sum(row.tokens for row in rows)
                steps += 1
        return steps, tokens

    def _train_as_before(self, night: Night, strategy: Strategy, seed: int) -> Cost:
        """As the older trainer: one experience at a time, loss times salience over every token."""
        encoded = self._encode(night.to_train)
        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=strategy.learning_rate, weight_decay=strategy.weight_decay)
        started, used = time.monotonic(), time.process_time()
        torch.manual_seed(seed)
        self._model.train()
        for epoch in range(strategy.epochs):
            for one in random.Random(f"{seed}:{epoch}").sample(encoded, len(encoded)):
                ids = torch.tensor([one.ids])
                (self._model(input_ids=ids, labels=ids.clone()).loss * one.weight).backward()
                torch.nn.utils.clip_grad_norm_(weights, strategy.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
        self._model.eval()
        tokens = strategy.epochs * total_tokens(encoded)
        wall, cpu = time.monotonic() - started, time.process_time() - used
        return Cost(wall, cpu, tokens, strategy.epochs * len(encoded), None, [], [])

    @contextlib.contextmanager
    def as_base(self) -> Iterator[None]:
        """Within it the adapter is off."""
        with self._model.disable_adapter() if self._is_adapted else contextlib.nullcontext():
            yield

    def _evaluator(self) -> LossEvaluator:
        return LossEvaluator(
            self._model, self._device, MemoryLimits(ROW_TOKENS, 2048, SilentChannel()), lambda _tokens: None
        )

    def _encode(self, examples: Sequence[TrainingExample]) -> list[Encoded]:
        return encode_examples(self._chat, examples, 2048, SilentChannel())

    def _answered(self, prompts: Sequence[str], kind: str) -> list[Encoded]:
        questions = [asked(prompt) for prompt in prompts]
        answers = base_answers(
            self._model, self._device, self._chat, questions, self._stops, lambda _system: self._cache, lambda _: None
        )
        return encode_reference(self._chat, questions, answers, 2048, kind=kind)

    def base_losses(self, examples: Sequence[TrainingExample]) -> dict[str, Measured]:
        """Reply loss of each, with the base. Once an adapter was merged, there is none any more."""
        with self.as_base():
            return self.losses(examples)

    def losses(self, examples: Sequence[TrainingExample]) -> dict[str, Measured]:
        """Reply loss of each."""
        return self._evaluator().losses(self._encode(examples))

    @property
    def is_adapted(self) -> bool:
        """Whether a night's adapter is in place."""
        return self._is_adapted

    def losses_of_both(self, examples: Sequence[TrainingExample]) -> tuple[dict[str, Measured], dict[str, Measured]]:
        """Reply loss of each, with the base and with the adapter."""
        return self.base_losses(examples), self.losses(examples)

    def drift(self) -> float:
        """KL from the base, nats a token, over its own answers to the probe prompts."""
        return self._evaluator().divergence(self._probes, self._references)

    def scale(self, factor: float) -> None:
        """The adapter's whole effect times ``factor``."""
        for module in self._model.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling = {name: value * factor for name, value in module.scaling.items()}

    def replies(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy."""
        texts: list[str] = []
        for at in range(0, len(prompts), REPLY_BATCH):
            asked = [self._chat.prompt_ids(prompt) for prompt in prompts[at : at + REPLY_BATCH]]
            ids = greedy_replies(self._model, self._device, asked, stop_ids=self._stops, max_new_tokens=max_new_tokens)
            texts += [self._chat.tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]
        return texts

    def mean_tokens(self, prompts: Sequence[str]) -> float:
        """Of all that stands before a reply to these."""
        return sum(len(self._chat.prompt_ids(prompt)) for prompt in prompts) / len(prompts)

    def loops(self, examples: Sequence[TrainingExample]) -> tuple[int, int]:
        """How many greedy replies to different prompts run in a loop, of how many."""
        prompts = list(dict.fromkeys(one.prompt for one in examples))[:REPLIES]
        found = [find_repetition(text).is_loop for text in self.replies(prompts, REPLY_TOKENS)]
        return sum(found), len(found)

    def base_loops(self, examples: Sequence[TrainingExample]) -> int:
        """How many of the base's do."""
        with self.as_base():
            return self.loops(examples)[0]
