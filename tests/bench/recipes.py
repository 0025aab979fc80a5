"""The recipes that are compared: a strategy of ours as the worker trains it, and the older trainer's loop.

Both train one night on a model in this process and say what it cost. The measuring is the same for both.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sleepd.job import Lesson, Strategy
from sleepd.repetition import find_repetition
from sleepd.worker.channel import Channel
from sleepd.worker.convert import open_base
from sleepd.worker.data import ChatFormat, Encoded, encode_lessons
from sleepd.worker.evaluate import Measured, Meter
from sleepd.worker.general import answers_file, base_answers, encode_general, general_prompts
from sleepd.worker.generate import greedy_replies, stop_ids
from sleepd.worker.loss import Reference
from sleepd.worker.memory import Limits
from sleepd.worker.model import Device, choose_device, load_base, start_adapter
from sleepd.worker.pace import Pace
from sleepd.worker.train import Lessons, Trainer

ROW_TOKENS = 1024
REPLY_BATCH = 16


class SilentChannel(Channel):
    """Sends nowhere."""

    def __init__(self) -> None:
        super().__init__(socket.socketpair()[0])

    def send(self, message: Any) -> None:
        """Drop the message."""


@dataclass
class Cost:
    """Of one night's training alone."""

    wall_seconds: float
    cpu_seconds: float
    tokens: int
    steps: int


class Bench:
    """The base with at most one adapter, and what is measured on it."""

    def __init__(self, models: Path, system_prompt: str, *, precision: str = "auto") -> None:
        directory, fingerprint = open_base("embedded", "", models, print)
        exact = Device(torch.device("cpu"), torch.float32, "cpu")
        self.device = exact if precision == "float32" else choose_device("cpu")
        self.model, tokenizer = load_base(directory, self.device)
        self.chat = ChatFormat(tokenizer, system_prompt)
        self.stops = stop_ids(self.model, self.chat)
        self.channel = SilentChannel()
        cache = answers_file(models, fingerprint, system_prompt)
        self._general: dict[str, list[Encoded]] = {}
        self._references: dict[str, dict[str, Reference]] = {}
        for kind in ("regularise", "monitor", "probe"):
            prompts = general_prompts(kind)
            answers = base_answers(
                self.model, self.device, self.chat, prompts, self.stops, cache, lambda _tokens: None
            )
            self._general[kind] = encode_general(self.chat, prompts, answers, 2048)
            self._references[kind] = self._remembered(models / f"references-{kind}-{self.device.dtype}.pt", kind)
        self._is_adapted = False

    def _remembered(self, file: Path, kind: str) -> dict[str, Reference]:
        if file.exists():
            return {i: Reference(*pair) for i, pair in torch.load(file).items()}
        made = self._meter().references(self._general[kind])
        torch.save({i: (one.tokens, one.log_probabilities) for i, one in made.items()}, file)
        return made

    def _meter(self) -> Meter:
        return Meter(self.model, self.device, Limits(ROW_TOKENS, 2048, self.channel), lambda _tokens: None)

    def encode(self, lessons: Sequence[Lesson]) -> list[Encoded]:
        """As the worker does it."""
        return encode_lessons(self.chat, lessons, 2048, self.channel)

    def start(self, strategy: Strategy, seed: int) -> None:
        """A new adapter in the place of the one that is there."""
        if self._is_adapted:
            self.model = self.model.unload()
        self._adapt(strategy, seed)

    def merge(self, strategy: Strategy, seed: int) -> None:
        """The adapter becomes part of the base, and a new one stands upon it."""
        if self._is_adapted:
            self.model = self.model.merge_and_unload()
        self._adapt(strategy, seed)

    def _adapt(self, strategy: Strategy, seed: int) -> None:
        self.model = start_adapter(self.model, strategy, seed).eval()
        self._is_adapted = True

    @property
    def is_adapted(self) -> bool:
        """Whether there is an adapter."""
        return self._is_adapted

    def train(
        self, lessons: Sequence[Lesson], strategy: Strategy, seed: int, after_step: Callable[[Trainer], None]
    ) -> Cost:
        """One night of ours."""
        encoded = self.encode(lessons)
        prompts = list(self._general["regularise"])
        random.Random(seed).shuffle(prompts)
        general = prompts[: strategy.kl_prompts] if strategy.kl_weight > 0 else []
        material = Lessons(encoded, lambda _longest: encoded, general, self._references["regularise"])
        limits = Limits(strategy.micro_batch_tokens, strategy.max_tokens, self.channel)
        trainer = Trainer(
            self.model, self.device, material, strategy, seed, limits, self.channel, Pace(), packed=True
        )
        started, used = time.monotonic(), time.process_time()
        done = trainer.run(lambda: after_step(trainer))
        return Cost(time.monotonic() - started, time.process_time() - used, done.tokens, done.steps)

    def train_as_before(self, lessons: Sequence[Lesson], strategy: Strategy, seed: int) -> Cost:
        """One night of the older trainer: one experience at a time, loss times salience over every token."""
        encoded = self.encode(lessons)
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=strategy.learning_rate, weight_decay=strategy.weight_decay)
        started, used, tokens, steps = time.monotonic(), time.process_time(), 0, 0
        torch.manual_seed(seed)
        self.model.train()
        for epoch in range(strategy.epochs):
            order = list(encoded)
            random.Random(f"{seed}:{epoch}").shuffle(order)
            for one in order:
                ids = torch.tensor([one.ids])
                (self.model(input_ids=ids, labels=ids.clone()).loss * one.weight).backward()
                torch.nn.utils.clip_grad_norm_(weights, strategy.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                tokens += len(one.ids)
                steps += 1
        self.model.eval()
        return Cost(time.monotonic() - started, time.process_time() - used, tokens, steps)

    def losses(self, lessons: Sequence[Lesson]) -> dict[str, Measured]:
        """Reply loss of each."""
        return self._meter().losses(self.encode(lessons))

    def drift(self, kind: str = "probe") -> float:
        """KL from the base, nats a token, over its own answers to the prompts of that set."""
        sequences, references = self._general[kind], self._references[kind]
        return self._meter().divergence(sequences, references)

    def scale(self, factor: float) -> None:
        """The adapter's whole effect times ``factor``."""
        for module in self.model.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling = {name: value * factor for name, value in module.scaling.items()}

    def replies(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy."""
        texts: list[str] = []
        for at in range(0, len(prompts), REPLY_BATCH):
            asked = [self.chat.prompt_ids(prompt) for prompt in prompts[at : at + REPLY_BATCH]]
            ids = greedy_replies(
                self.model, self.device, asked, stop_ids=self.stops, max_new_tokens=max_new_tokens
            )
            texts += [self.chat.tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]
        return texts

    def loops(self, lessons: Sequence[Lesson], limit: int = 8) -> tuple[int, int]:
        """How many greedy replies to different prompts run in a loop, of how many."""
        prompts = list(dict.fromkeys(one.prompt for one in lessons))[:limit]
        found = [find_repetition(text).is_loop for text in self.replies(prompts, 128)]
        return sum(found), len(found)
