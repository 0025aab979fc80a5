"""All that is measured on base and parent before training, and on the candidate after it: the same, in the same way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from sleepd.protocol.job import Job

from . import workload
from .channel import Channel
from .data import packing_support
from .data.examples import encode_lessons
from .evaluation import comparison, relevance
from .evaluation import evaluation_command as metrics
from .evaluation import probation_losses as probation
from .evaluation.loss_evaluator import Meter, chosen, noise_floor, require_finite
from .evaluation.probe_generation import Answers, Interviewer, answers_key, keep_answers, kept_answers, questions
from .evaluation.reference_answers import MONITOR, PROBE, answers_file, base_answers, chosen_prompts, encode_general
from .failure import GiveUp
from .model.loading import Loaded
from .model.losses import Reference
from .model.out_of_memory import MemoryLimits, Shortened
from .progress import Phases
from .report import After, Before, Exchanges, Lessons
from .training.schedule import epoch_ends

READ_AGAIN = 8
"""Held-out experiences that are read a second time, for the noise floor."""
BASE_ANSWERS_SHARE = 10
"""The base's answers to general prompts are made once and kept, and training is held to them: they may take so many
times the time for the replies of a model."""


class Measurer:
    """Measures before and after training; in between it is not needed."""

    def __init__(
        self,
        job: Job,
        lessons: Lessons,
        loaded: Loaded,
        limits: MemoryLimits,
        phases: Phases,
        channel: Channel,
    ) -> None:
        self._job = job
        self._lessons = lessons
        self._loaded = loaded
        self._limits = limits
        self._phases = phases
        self._channel = channel
        self._asked = questions(lessons.to_hold_out, job.questions)
        self.meter = Meter(loaded.model, loaded.device, limits, phases.measured)

    # Before training

    def before(self) -> tuple[Exchanges, Before, dict[str, Reference]]:
        """The sequences of all experiences and what was measured on them; and what the base says to general prompts.

        Raises:
            GiveUp: there is nothing to learn from, a loss is not finite, the champion is worse than the one before it,
                or ``out_of_memory``.
        """
        while True:
            with contextlib.suppress(Shortened):
                with self._phases.enter("preparing"):
                    exchanges = self.encode()
                    references = self._prepare(exchanges)
                with self._phases.enter("measuring"):
                    return exchanges, self._measure(exchanges, references), references

    def encode(self) -> Exchanges:
        """The sequences of all exchanges, none longer than the limits allow.

        Raises:
            GiveUp: there is nothing to learn from.
        """
        chat, longest, strategy = self._loaded.chat, self._limits.max_tokens, self._job.strategy
        trained = encode_lessons(chat, self._lessons.to_train, longest, self._channel)
        if not trained and chat.exceeded:
            raise chat.exceeded[-1]
        if not trained:
            raise GiveUp(
                "nothing_supervised",
                f"none of {len(self._lessons.to_train)} experiences has a reply token to learn from",
                "look at the buffer: are its responses empty?",
            )
        prompts = chosen_prompts(strategy, self._job.seed, epoch_ends(strategy, trained, self._job.seed)[-1])
        # The verdict needs the probes most, so they come first where time runs out.
        answers = self._base_answers([*prompts.probe, *prompts.monitor, *prompts.regularise])
        probed, watching = answers[: len(prompts.probe)], answers[len(prompts.probe) :][: len(prompts.monitor)]
        held_to = answers[len(prompts.probe) + len(prompts.monitor) :]
        return Exchanges(
            max_tokens=longest,
            trained=trained,
            held_out=encode_lessons(chat, self._lessons.to_hold_out, longest, self._channel),
            stopping=encode_lessons(chat, self._lessons.to_stop, longest, self._channel),
            general=encode_general(chat, prompts.regularise, held_to, longest),
            monitor=encode_general(chat, prompts.monitor, watching, longest, kind=MONITOR),
            taught=relevance.encode_both(chat, relevance.chosen_lessons(self._lessons.to_train), longest),
            probes=encode_general(chat, prompts.probe, probed, longest, kind=PROBE),
        )

    def plan(self, exchanges: Exchanges, *, steps_done: int) -> None:
        """Tell the clock of what is still to come after measuring."""
        pace = self._phases.pace
        pace.begin()
        pace.plan(workload.training(self._job, exchanges, steps_done=steps_done))
        pace.plan(workload.evaluating(exchanges, self._asked))

    def _base_answers(self, prompts: list[str]) -> list[str | None]:
        loaded, job = self._loaded, self._job
        seconds = BASE_ANSWERS_SHARE * job.evaluation_seconds
        cache = answers_file(Path(job.models_directory), loaded.fingerprint, job.system_prompt, loaded.chat)
        with loaded.model.disable_adapter():
            answers = base_answers(
                loaded.model,
                loaded.device,
                loaded.chat,
                prompts,
                loaded.stop_ids,
                cache,
                self._phases.generated,
                time.monotonic() + seconds,
            )
        if missing := answers.count(None):
            text = (
                f"{seconds:g} s, {BASE_ANSWERS_SHARE} times [evaluation] seconds, did not suffice for {missing} of"
                f" {len(answers)} answers of the base to general prompts: the adapter is held to the others, and drift"
                " is measured on them; the next cycle asks for the missing ones again"
            )
            self._channel.notice("base_answers_cut_short", text, warning=True)
        return answers

    def _prepare(self, exchanges: Exchanges) -> dict[str, Reference]:
        """What the adapter is held to while it trains: what the base says at the general answers' tokens."""
        self._choose_packing(exchanges)
        self._phases.pace.plan(workload.measuring(self._job, exchanges, self._asked))
        self.plan(exchanges, steps_done=0)
        with self._loaded.model.disable_adapter():
            # Each set by itself, in the rows in which it is compared: in bfloat16 other rows round otherwise.
            return self.meter.references(exchanges.general) | self.meter.references(exchanges.monitor)

    def _measure(self, exchanges: Exchanges, references: dict[str, Reference]) -> Before:
        """Everything on base and parent; ``references`` gains those of the probes."""
        job, meter, model = self._job, self.meter, self._loaded.model
        with model.disable_adapter():
            references |= meter.references(exchanges.probes)
            base = meter.losses(exchanges.held_out) if job.parent else {}
            fitting = relevance.measure(meter, exchanges.taught)
        later = probation.later(job, [*exchanges.trained, *exchanges.held_out])
        measured = {one.id: one for one in [*exchanges.sampled, *later, *exchanges.held_out]}
        parent = meter.losses(list(measured.values()))
        require_finite([one.total for one in [*base.values(), *parent.values()]])
        on_probation = probation.measure(job, model, meter, later, parent, self._channel)
        held_out = {one.id: parent[one.id] for one in exchanges.held_out}
        again = meter.losses(chosen(exchanges.held_out, READ_AGAIN), alone=True)
        drift = self._drift(exchanges, references) if job.parent else 0.0
        of_base, of_parent = self._interviews(exchanges)
        return Before(
            parent=parent,
            base=base or parent,
            noise_floor=noise_floor(held_out, again),
            parent_drift=drift if exchanges.probes else None,
            base_answers=of_base,
            parent_answers=of_parent,
            parent_metrics=self._metrics(Path(job.parent) if job.parent else None),
            probation=on_probation,
            relevance=fitting,
        )

    def _choose_packing(self, exchanges: Exchanges) -> None:
        config = self._loaded.model.config.get_text_config()
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        sequences = [*exchanges.trained, *exchanges.held_out, *exchanges.general, *exchanges.probes]
        reason = self.meter.choose_packing(sequences, window, packing_support.why_not(self._loaded.model))
        if reason:
            text = f"each sequence has a row of its own, which is slower: {reason}"
            self._channel.notice("packing_off", text)

    def _interviews(self, exchanges: Exchanges) -> tuple[Answers, Answers]:
        """What the base says, and what the parent says: the same where there is none."""
        with self._loaded.model.disable_adapter():
            of_base = self._interview(exchanges, None)
        return of_base, self._interview(exchanges, Path(self._job.parent)) if self._job.parent else of_base

    # After training

    def after(self, exchanges: Exchanges, before: Before, references: Mapping[str, Reference]) -> After:
        """The same on the candidate, as the model now has it.

        Raises:
            GiveUp: a loss is not finite, or ``out_of_memory``.
        """
        losses = self.meter.losses([*exchanges.sampled, *exchanges.held_out])
        require_finite([one.total for one in losses.values()])
        after = After(
            losses=losses,
            drift=self._drift(exchanges, references),
            answers=self._interview(exchanges, Path(self._job.staging)),
            metrics=self._metrics(Path(self._job.staging)),
        )
        self._say_what_is_missing(before.base_answers, before.parent_answers, after.answers)
        return after

    # Both times

    def _drift(self, exchanges: Exchanges, references: Mapping[str, Reference]) -> float | None:
        if not exchanges.probes:
            return None
        drift = self.meter.divergence(exchanges.probes, references)
        require_finite([drift])
        return drift

    def _interview(self, exchanges: Exchanges, adapter: Path | None) -> Answers:
        """What the model says, as it stands: with the adapter in that directory, beside which its answers are kept."""
        loaded, job = self._loaded, self._job
        key = answers_key(loaded.fingerprint, job.system_prompt, loaded.chat, loaded.device, adapter)
        kept = adapter / "replies.json" if adapter else Path(job.models_directory, f"replies-{key[:16]}.json")
        known = kept_answers(kept, key)
        interviewer = Interviewer(
            model=loaded.model,
            device=loaded.device,
            chat=loaded.chat,
            stop_ids=loaded.stop_ids,
            max_prompt_tokens=exchanges.max_tokens,
            seconds=job.evaluation_seconds,
            on_step=self._phases.generated,
        )
        answers = interviewer.ask(self._asked, known=known)
        is_parents = adapter is not None and str(adapter) == job.parent  # a finished checkpoint, never written to
        if known is None and not is_parents:
            keep_answers(kept, key, answers)
        return answers

    def _metrics(self, adapter: Path | None) -> dict[str, float] | None:
        """The figures of the owner's command; None: there is no command, or it gave none, which is said."""
        if not self._job.evaluation_command:
            return None
        try:
            return metrics.figures(self._job, adapter, self._loaded.base_directory, self._phases.tell)
        except metrics.NoFigures as error:
            text = f"[evaluation] command on {adapter.name if adapter else 'the base'}: {error}"
            self._channel.notice("evaluation_command_failed", text, warning=True)
            return None

    def _say_what_is_missing(self, *said: Answers) -> None:
        missing = comparison.missing(said)
        if missing:
            text = f"[evaluation] seconds = {self._job.evaluation_seconds:g} did not suffice for: {missing}"
            self._channel.notice("evaluation_cut_short", text, warning=True)
