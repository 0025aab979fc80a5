"""One cycle from job to report: load, measure, train, save, read back, measure again."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from sleepd.job import Check, Job, Lesson, LossPair, Phase, Progress, Reply, Report

from . import evaluate
from .channel import Channel
from .convert import open_base
from .data import ChatFormat, Encoded, encode_lessons
from .evaluate import Measured, Meter, mean_loss
from .failure import GiveUp
from .general import answers_file, base_answers, encode_general, general_prompts
from .generate import stop_ids
from .loss import Reference
from .memory import Limits, Shortened, is_out_of_memory
from .model import (
    Device,
    adapted_norm,
    adapter_tensors,
    choose_device,
    continue_adapter,
    load_base,
    save_adapter,
    shape,
    start_adapter,
    use_saved_adapter,
)
from .pace import FORWARD, TRAINED, Pace
from .train import Lessons, Trainer, Training, planned_epochs

DECODING_WORK = 24.0
"""Forward tokens that one step of generation costs beside its own: it reads all weights for few tokens."""


@dataclass
class Loaded:
    """What the loading phase leaves."""

    model: Any
    chat: ChatFormat
    device: Device
    base_directory: Path
    fingerprint: str

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every token that ends a reply."""
        return stop_ids(self.model, self.chat)


@dataclass
class Exchanges:
    """The experiences and the general exchanges as sequences of one greatest length."""

    trained: list[Encoded]
    held_out: list[Encoded]
    general: list[Encoded]

    @property
    def truncated(self) -> int:
        """How many experiences were cut."""
        return sum(one.is_truncated for one in [*self.trained, *self.held_out])


@dataclass
class Before:
    """What was measured before training."""

    parent: dict[str, Measured]
    base: dict[str, Measured]
    references: dict[str, Reference]


def run(job: Job, lessons: list[Lesson], channel: Channel) -> Report:
    """Train and measure; the adapter stands in ``job.staging`` when this returns.

    Raises:
        GiveUp: the cycle cannot go on.
        Stopped: SIGTERM came.
        DaemonGone: the daemon ended.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        return _Cycle(job, lessons, channel).run()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # Where no step back helps: while the model itself is loaded, or while it replies to a single prompt.
        hint = "free memory on the device, choose a smaller base, or set device to cpu"
        raise GiveUp("out_of_memory", f"out of memory: {str(error).partition(chr(10))[0]}", hint) from error


class _Cycle:
    def __init__(self, job: Job, lessons: list[Lesson], channel: Channel) -> None:
        self._job = job
        self._channel = channel
        self._to_train = [lesson for lesson in lessons if lesson.role != "holdout"]
        self._to_hold_out = [lesson for lesson in lessons if lesson.role == "holdout"]
        self._pace = Pace()
        self._seconds: dict[str, float] = {}
        self._limits = Limits(job.strategy.micro_batch_tokens, job.strategy.max_tokens, channel)

    def run(self) -> Report:
        with self._phase("loading"), self._channel.loading():
            loaded = self._load()
        self._device = loaded.device
        self._meter = Meter(loaded.model, loaded.device, self._limits, self._measured)
        with self._phase("measuring"):
            answers = self._answers(loaded)
            exchanges, before = self._measure_before(loaded, answers)
            asked = evaluate.pick_for_replies(self._to_hold_out)
            parent_replies = self._replies(loaded, asked)
        with self._phase("training"):
            initial = adapter_tensors(loaded.model)
            training = self._train(loaded, exchanges, before)
        with self._phase("saving"):
            checks = [evaluate.supervised_check(training.supervised_tokens), self._changed(loaded, initial)]
            checks.append(self._save(loaded, exchanges))
        with self._phase("evaluating"):
            after = self._meter.losses([*exchanges.trained, *exchanges.held_out])
            texts = self._replies(loaded, asked)
        replies = list(map(evaluate.judged_reply, asked, texts, parent_replies))
        measured = [*before.base.values(), *before.parent.values(), *after.values()]
        checks.append(evaluate.finite_check([one.total for one in measured] + training.epoch_losses))
        return self._report(loaded, exchanges, before, after, training, checks, replies)

    @contextlib.contextmanager
    def _phase(self, phase: Phase) -> Iterator[None]:
        self._current: Phase = phase
        started = time.monotonic()
        yield
        self._seconds[phase] = round(time.monotonic() - started, 3)

    # Loading

    def _load(self) -> Loaded:
        job = self._job
        if job.threads:
            torch.set_num_threads(job.threads)
        device = choose_device(job.device)
        directory, known_as = open_base(
            job.base, job.cache_directory, Path(job.models_directory), self._channel.notice, expected=job.expected_base
        )
        model, tokenizer = load_base(directory, device)
        if job.parent:
            model = continue_adapter(model, Path(job.parent), job.strategy, job.seed)
        else:
            model = start_adapter(model, job.strategy, job.seed)
        return Loaded(model.eval(), ChatFormat(tokenizer, job.system_prompt), device, directory, known_as)

    # Measuring

    def _answers(self, loaded: Loaded) -> list[str]:
        """The base's own answers to the general prompts; none where the strategy does not regularise."""
        strategy = self._job.strategy
        if strategy.kl_weight <= 0:
            return []
        prompts = general_prompts("regularise")[: strategy.kl_prompts]
        cache = answers_file(Path(self._job.models_directory), loaded.fingerprint, self._job.system_prompt)
        with loaded.model.disable_adapter():
            return base_answers(
                loaded.model, loaded.device, loaded.chat, prompts, loaded.stop_ids, cache, self._generated
            )

    def _measure_before(self, loaded: Loaded, answers: list[str]) -> tuple[Exchanges, Before]:
        while True:
            exchanges = self._encode(loaded, answers)
            with contextlib.suppress(Shortened):
                return exchanges, self._measure(loaded, exchanges)

    def _encode(self, loaded: Loaded, answers: list[str]) -> Exchanges:
        longest = self._limits.max_tokens
        exchanges = Exchanges(
            encode_lessons(loaded.chat, self._to_train, longest, self._channel),
            encode_lessons(loaded.chat, self._to_hold_out, longest, self._channel),
            encode_general(loaded.chat, general_prompts("regularise")[: len(answers)], answers, longest),
        )
        if not exchanges.trained:
            raise GiveUp(
                "nothing_supervised",
                f"none of {len(self._to_train)} experiences has a reply token to learn from",
                "look at the buffer: are its responses empty?",
            )
        return exchanges

    def _measure(self, loaded: Loaded, exchanges: Exchanges) -> Before:
        experiences = [*exchanges.trained, *exchanges.held_out]
        window = getattr(loaded.model.config, "sliding_window", None)
        if not self._meter.choose_packing([*experiences, *exchanges.general], window):
            text = "this model gives other losses when sequences share a row; each has its own, which is slower"
            self._channel.notice("packing_off", text)
        self._plan(exchanges)
        with loaded.model.disable_adapter():
            references = self._meter.references(exchanges.general)
            base = self._meter.losses(exchanges.held_out) if self._job.parent else {}
        parent = self._meter.losses(experiences)
        return Before(parent=parent, base=base or parent, references=references)

    def _plan(self, exchanges: Exchanges) -> None:
        strategy = self._job.strategy
        trained, held_out, general = (
            sum(len(one.ids) for one in part) for part in (exchanges.trained, exchanges.held_out, exchanges.general)
        )
        beside = general * strategy.kl_batch_size / (strategy.batch_size * max(1, len(exchanges.general)))
        epochs = planned_epochs(strategy, exchanges.trained)
        self._pace.begin()
        self._pace.plan(FORWARD * (general + 2 * trained + (3 if self._job.parent else 2) * held_out))
        self._pace.plan(TRAINED * epochs * (trained + beside * len(exchanges.trained)))
        if exchanges.held_out:
            at_once = min(evaluate.REPLIES, len(exchanges.held_out))
            self._pace.plan(2 * evaluate.REPLY_TOKENS * (DECODING_WORK + at_once))

    def _measured(self, tokens: int) -> None:
        self._pace.did(FORWARD * tokens)
        self._tell()

    def _generated(self, tokens: int) -> None:
        self._pace.did(DECODING_WORK + tokens)
        self._tell()

    def _tell(self) -> None:
        """The heartbeat of everything but training, which has its own."""
        self._channel.progress(
            Progress(phase=self._current, device=self._device.description, eta_seconds=self._pace.eta_seconds())
        )

    # Training and saving

    def _train(self, loaded: Loaded, exchanges: Exchanges, before: Before) -> Training:
        self._meter.may_shorten = False
        longest = self._limits.max_tokens

        def encode(max_tokens: int) -> list[Encoded]:
            if max_tokens == longest:
                return exchanges.trained
            return encode_lessons(loaded.chat, self._to_train, max_tokens, self._channel)

        trainer = Trainer(
            loaded.model,
            loaded.device,
            Lessons(encode, exchanges.general, before.references),
            self._job.strategy,
            self._job.seed,
            self._limits,
            self._channel,
            self._pace,
            packed=self._meter.packed,
        )
        return trainer.run()

    def _changed(self, loaded: Loaded, initial: dict[str, torch.Tensor]) -> Check:
        strategy = self._job.strategy
        norm = adapted_norm(loaded.model)
        return evaluate.changed_check(initial, adapter_tensors(loaded.model), norm, strategy.alpha / strategy.rank)

    def _save(self, loaded: Loaded, exchanges: Exchanges) -> Check:
        """Save, and go on with what was read back: all that follows is measured on the adapter on disk."""
        self._tell()
        probe = min(exchanges.trained, key=lambda one: len(one.ids))
        trained = self._meter.logits(probe)
        staging = Path(self._job.staging)
        save_adapter(loaded.model, staging, loaded.base_directory)
        use_saved_adapter(loaded.model, staging)
        return evaluate.reload_check(trained, self._meter.logits(probe))

    # Evaluating and reporting

    def _replies(self, loaded: Loaded, asked: list[Lesson]) -> list[str]:
        longest = self._limits.max_tokens
        return evaluate.reply_texts(
            loaded.model, loaded.device, loaded.chat, asked, loaded.stop_ids, longest, self._generated
        )

    def _report(
        self,
        loaded: Loaded,
        exchanges: Exchanges,
        before: Before,
        after: dict[str, Measured],
        training: Training,
        checks: list[Check],
        replies: list[Reply],
    ) -> Report:
        learned = [lesson for lesson in self._to_train if lesson.id in before.parent]
        return Report(
            base_fingerprint=loaded.fingerprint,
            device=loaded.device.description,
            dtype=str(loaded.device.dtype).removeprefix("torch."),
            trained=sum(lesson.role == "train" for lesson in learned),
            replayed=sum(lesson.role == "replay" for lesson in learned),
            held_out=len(exchanges.held_out),
            truncated=exchanges.truncated,
            tokens=training.tokens,
            supervised_tokens=training.supervised_tokens,
            epochs=training.epochs,
            steps=training.steps,
            learning_rate=self._job.strategy.learning_rate,
            avg_salience=sum(lesson.salience for lesson in learned) / len(learned),
            epoch_losses=training.epoch_losses,
            train_before=_mean(before.parent, exchanges.trained),
            train_after=_mean(after, exchanges.trained),
            holdout_base=_mean(before.base, exchanges.held_out),
            holdout_before=_mean(before.parent, exchanges.held_out),
            holdout_after=_mean(after, exchanges.held_out),
            holdout=[_pair(one.id, before, after) for one in exchanges.held_out],
            checks=checks,
            replies=replies,
            notices=self._channel.notices,
            seconds=self._seconds,
            tokens_per_second=training.tokens_per_second,
            peak_memory_bytes=_peak_memory_bytes(loaded.device),
            lora_shape=shape(adapter_tensors(loaded.model)),
        )


def _mean(measured: dict[str, Measured], sequences: list[Encoded]) -> float | None:
    return mean_loss([measured[one.id] for one in sequences])


def _pair(id_: str, before: Before, after: dict[str, Measured]) -> LossPair:
    return LossPair(
        id=id_,
        tokens=after[id_].tokens,
        base=before.base[id_].mean,
        parent=before.parent[id_].mean,
        candidate=after[id_].mean,
    )


def _peak_memory_bytes(device: Device) -> int:
    if device.torch_device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device.torch_device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
