"""One cycle from job to report: load, measure, train, save, read back, measure again."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from sleepd.job import RESUME_POINT, Check, Job, Lesson, Phase, Progress, Report

from . import evaluate
from .channel import Channel
from .convert import open_base
from .data import ChatFormat, Encoded, encode_lessons, total_tokens
from .evaluate import Meter
from .failure import GiveUp
from .general import MONITOR, answers_file, base_answers, chosen_prompts, encode_general
from .generate import stop_ids
from .memory import Limits, Shortened, is_out_of_memory
from .model import (
    Device,
    adapted_norm,
    adapter_tensors,
    choose_device,
    continue_adapter,
    load_base,
    restart_adapter,
    save_adapter,
    shape,
    start_adapter,
    use_saved_adapter,
)
from .pace import FORWARD, TRAINED, Pace
from .report import After, Before, Exchanges, Setting, make_report
from .resume import (
    Position,
    ResumePoint,
    ResumePoints,
    code_fingerprint,
    read_resume_point,
    reference_tensors,
    refuse_other,
)
from .stopping import LOOKS, Watch, divide_holdout, tell_what_was_kept
from .train import Lessons, Trainer, Training, epoch_ends

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
        held_out = [lesson for lesson in lessons if lesson.role == "holdout"]
        self._to_hold_out, self._to_stop = divide_holdout(held_out)
        self._prompts = chosen_prompts(job.strategy, job.seed)
        self._pace = Pace()
        self._seconds: dict[str, float] = {}
        self._limits = Limits(job.strategy.micro_batch_tokens, job.strategy.max_tokens, channel)

    def run(self) -> Report:
        with self._phase("loading"), self._channel.loading():
            loaded = self._load()
            point = self._resume_point(loaded)
        self._device = loaded.device
        self._meter = Meter(loaded.model, loaded.device, self._limits, self._measured)
        with self._phase("measuring"):
            answers = self._answers(loaded)
            if point is None:
                exchanges, before = self._measure_before(loaded, answers)
            else:
                exchanges, before = self._measured_before(loaded, answers, point)
        with self._phase("training"):
            initial = adapter_tensors(loaded.model)
            training = self._train(loaded, exchanges, before, point)
        with self._phase("saving"):
            checks = [evaluate.supervised_check(training.supervised_tokens), self._changed(loaded, initial)]
            checks.append(self._save(loaded, exchanges))
        with self._phase("evaluating"):
            losses = self._meter.losses([*exchanges.trained, *exchanges.held_out])
            asked = evaluate.pick_for_replies(self._to_hold_out)
            replies = list(map(evaluate.judged_reply, asked, self._replies(loaded, asked), before.parent_replies))
        measured = [*before.base.values(), *before.parent.values(), *losses.values()]
        checks.append(evaluate.require_finite([one.total for one in measured] + training.epoch_losses))
        after = After(losses, checks, replies, shape(adapter_tensors(loaded.model)))
        setting = Setting(loaded.fingerprint, loaded.device, self._seconds, self._channel.notices)
        return make_report(self._job, self._to_train, setting, exchanges, before, training, after)

    @contextlib.contextmanager
    def _phase(self, phase: Phase) -> Iterator[None]:
        self._current: Phase = phase
        self._started = time.monotonic()
        yield
        self._seconds = self._spent()

    def _spent(self) -> dict[str, float]:
        """Wall time by phase up to now."""
        seconds = self._seconds.get(self._current, 0.0) + time.monotonic() - self._started
        return {**self._seconds, self._current: round(seconds, 3)}

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

    def _resume_point(self, loaded: Loaded) -> ResumePoint | None:
        """Where an earlier worker was interrupted; None: nowhere, the cycle begins."""
        try:
            point = read_resume_point(self._resume_path, loaded.device.torch_device)
        except ValueError as error:
            self._channel.notice("resume_point_damaged", f"{error}; the cycle starts again from its beginning")
            return None
        if point is not None:
            here = {"code": code_fingerprint(), "base": loaded.fingerprint, "device": loaded.device.kind}
            refuse_other(point.position, **here)
            self._seconds = dict(point.position.seconds)
            self._channel.notices += point.position.notices
            self._channel.notice("cycle_resumed", f"it goes on after step {point.position.training.steps}")
        return point

    @property
    def _resume_path(self) -> Path:
        return Path(self._job.staging) / RESUME_POINT

    # Measuring

    def _answers(self, loaded: Loaded) -> list[str]:
        """The base's own answers to the general prompts."""
        cache = answers_file(Path(self._job.models_directory), loaded.fingerprint, self._job.system_prompt)
        with loaded.model.disable_adapter():
            return base_answers(
                loaded.model, loaded.device, loaded.chat, self._prompts.all, loaded.stop_ids, cache, self._generated
            )

    def _measure_before(self, loaded: Loaded, answers: list[str]) -> tuple[Exchanges, Before]:
        while True:
            exchanges = self._encode(loaded, answers)
            with contextlib.suppress(Shortened):
                return exchanges, self._measure(loaded, exchanges)

    def _measured_before(self, loaded: Loaded, answers: list[str], point: ResumePoint) -> tuple[Exchanges, Before]:
        """What the interrupted worker had measured."""
        position = point.position
        self._limits.max_tokens = position.measured_max_tokens
        exchanges = self._encode(loaded, answers)
        self._limits.max_tokens, self._limits.micro_batch_tokens = position.max_tokens, position.micro_batch_tokens
        self._meter.packed = position.is_packed
        self._pace.begin()
        self._plan_training(exchanges, steps_done=position.training.steps)
        return exchanges, Before(position.parent, position.before, point.references(), position.parent_replies)

    def _encode(self, loaded: Loaded, answers: list[str]) -> Exchanges:
        longest = self._limits.max_tokens
        prompts, count = self._prompts, len(self._prompts.regularise)
        exchanges = Exchanges(
            encode_lessons(loaded.chat, self._to_train, longest, self._channel),
            encode_lessons(loaded.chat, self._to_hold_out, longest, self._channel),
            encode_lessons(loaded.chat, self._to_stop, longest, self._channel),
            encode_general(loaded.chat, prompts.regularise, answers[:count], longest),
            encode_general(loaded.chat, prompts.monitor, answers[count:], longest, kind=MONITOR),
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
        self._plan_measuring(exchanges)
        self._plan_training(exchanges, steps_done=0)
        with loaded.model.disable_adapter():
            references = self._meter.references([*exchanges.general, *exchanges.monitor])
            base = self._meter.losses(exchanges.held_out) if self._job.parent else {}
        parent = self._meter.losses(experiences)
        evaluate.require_finite([one.total for one in [*base.values(), *parent.values()]])
        replies = self._replies(loaded, evaluate.pick_for_replies(self._to_hold_out))
        return Before(parent=parent, base=base or parent, references=references, parent_replies=replies)

    def _plan_measuring(self, exchanges: Exchanges) -> None:
        trained, held_out = map(total_tokens, (exchanges.trained, exchanges.held_out))
        general = total_tokens([*exchanges.general, *exchanges.monitor])
        self._pace.begin()
        self._pace.plan(FORWARD * (general + trained + (2 if self._job.parent else 1) * held_out))
        self._pace.plan(self._reply_work(exchanges))

    def _plan_training(self, exchanges: Exchanges, *, steps_done: int) -> None:
        """And the evaluation after it."""
        strategy = self._job.strategy
        trained, held_out, general = map(total_tokens, (exchanges.trained, exchanges.held_out, exchanges.general))
        beside = general * strategy.kl_batch_size / (strategy.batch_size * max(1, len(exchanges.general)))
        ends = epoch_ends(strategy, exchanges.trained, self._job.seed)
        steps, at_once = ends[-1], sum(one.sampling_share for one in exchanges.trained)
        tokens = sum(len(one.ids) * one.sampling_share for one in exchanges.trained)
        work = TRAINED * len(ends) * (tokens + beside * at_once)
        work += FORWARD * LOOKS * total_tokens([*exchanges.stopping, *exchanges.monitor])
        self._pace.plan(work * (steps - steps_done) / steps)
        self._pace.plan(FORWARD * (trained + held_out) + self._reply_work(exchanges))

    def _reply_work(self, exchanges: Exchanges) -> float:
        at_once = min(evaluate.REPLIES, len(exchanges.held_out))
        return evaluate.REPLY_TOKENS * (DECODING_WORK + at_once) if at_once else 0.0

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

    def _train(self, loaded: Loaded, exchanges: Exchanges, before: Before, point: ResumePoint | None) -> Training:
        self._meter.may_shorten = False
        longest = self._measured_max_tokens = point.position.measured_max_tokens if point else self._limits.max_tokens

        def encode(max_tokens: int) -> list[Encoded]:
            if max_tokens == longest:
                return exchanges.trained
            return encode_lessons(loaded.chat, self._to_train, max_tokens, self._channel)

        strategy, seed = self._job.strategy, self._job.seed
        if self._job.parent and strategy.lineage == "retrain":
            restart_adapter(loaded.model, seed)
        budget = math.inf if strategy.drift_budget is None else strategy.drift_budget
        watch = Watch(self._meter, exchanges.monitor, before.references, exchanges.stopping, budget)
        trainer = Trainer(
            loaded.model,
            loaded.device,
            Lessons(exchanges.trained, encode, exchanges.general, before.references),
            strategy,
            seed,
            self._limits,
            self._channel,
            self._pace,
            packed=self._meter.packed,
            watch=watch,
        )
        if point is not None:
            trainer.restore(point.tensors, point.position.training)
        points = ResumePoints(
            self._resume_path,
            self._job.resume_point_seconds,
            lambda: self._resume_state(trainer, loaded, before),
            self._channel,
        )
        with points:
            training = trainer.run(points.after_step)
        tell_what_was_kept(training.looks, budget, training.steps, self._channel)
        return training

    def _resume_state(
        self, trainer: Trainer, loaded: Loaded, before: Before
    ) -> tuple[Position, dict[str, torch.Tensor]]:
        position = Position(
            code=code_fingerprint(),
            base=loaded.fingerprint,
            device=loaded.device.kind,
            measured_max_tokens=self._measured_max_tokens,
            max_tokens=self._limits.max_tokens,
            micro_batch_tokens=self._limits.micro_batch_tokens,
            is_packed=self._meter.packed,
            parent=before.parent,
            before=before.base,
            parent_replies=before.parent_replies,
            training=trainer.done,
            notices=self._channel.notices,
            seconds=self._spent(),
        )
        return position, trainer.state() | reference_tensors(before.references)

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
