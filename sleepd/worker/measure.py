"""All that is measured on base and parent before training, and on the candidate after it: the same, in the same way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sleepd.protocol.chat_example import ChatExample
from sleepd.protocol.job import Job

from . import workload
from .channel import Channel
from .data import packing_support
from .data.examples import Encoded, encode_examples
from .evaluation import comparison, relevance
from .evaluation import evaluation_command as metrics
from .evaluation import probation_losses as probation
from .evaluation.loss_evaluator import LossEvaluator, chosen, noise_floor, require_finite
from .evaluation.probe_generation import (
    Answers,
    ProbeGenerator,
    Questions,
    answers_key,
    keep_answers,
    kept_answers,
    questions,
    to_reply_to,
)
from .evaluation.reference_answers import MONITOR, PROBE, answers_file, base_answers, chosen_prompts, encode_reference
from .evaluation.remembered import encode_remembered
from .evaluation.system_messages import occurring_systems, under
from .failure import GiveUp
from .model.loading import Loaded
from .model.losses import Reference
from .model.memory.out_of_memory import MemoryLimits, Shortened
from .progress import Phases
from .report import After, Before, EncodedExamples, SplitExamples
from .training.schedule import epoch_ends

READ_AGAIN = 8
"""Held-out experiences that are read a second time, for the noise floor."""
BASE_ANSWERS_SHARE = 10
"""The base's answers to reference prompts, towards which training is regularised, are made once and kept. They may take
so many times the time for the replies of a model."""


class Measurer:
    """Measures before and after training; in between it is not needed."""

    def __init__(
        self,
        job: Job,
        examples: SplitExamples,
        loaded: Loaded,
        limits: MemoryLimits,
        phases: Phases,
        channel: Channel,
    ) -> None:
        self._job = job
        self._examples = examples
        self._loaded = loaded
        self._limits = limits
        self._phases = phases
        self._channel = channel
        self.evaluator = LossEvaluator(loaded.model, loaded.device, limits, phases.measured)

    # Before training

    def before(self) -> tuple[EncodedExamples, Before, dict[str, Reference]]:
        """The sequences of all experiences, what was measured on them, and the base's logits on the reference answers.

        Raises:
            GiveUp: there is nothing to learn from, a loss is not finite, the champion is worse than the one before it,
                or ``out_of_memory``.
        """
        while True:
            with contextlib.suppress(Shortened):
                with self._phases.enter("preparing"):
                    encoded = self.encode()
                    references = self._prepare(encoded)
                with self._phases.enter("measuring"):
                    return encoded, self._measure(encoded, references), references

    def encode(self) -> EncodedExamples:
        """The sequences of all chat examples, none longer than the limits allow; raises as :meth:`_encode_trained`."""
        chat, longest, strategy = self._loaded.chat, self._limits.max_tokens, self._job.strategy
        trained = self._encode_trained(longest)
        steps = 0 if self._job.foreign else epoch_ends(strategy, trained, self._job.seed)[-1]
        prompts = chosen_prompts(strategy, self._job.seed, steps)
        known = {one.id for one in trained}
        learned = [one for one in self._examples.to_train if one.id in known] or self._examples.to_hold_out
        systems = occurring_systems(chat, learned, self._job.system_prompt, longest)
        probe, monitor, regularise = (
            under(systems, one) for one in (prompts.probe, prompts.monitor, prompts.regularise)
        )
        # The verdict needs the probes most, so they come first where time runs out.
        answers = self._base_answers([*probe, *monitor, *regularise])
        probed, watching = answers[: len(probe)], answers[len(probe) :][: len(monitor)]
        regularised = answers[len(probe) + len(monitor) :]
        held_out = encode_examples(chat, self._examples.to_hold_out, longest, self._channel)
        found = EncodedExamples(
            max_tokens=longest,
            trained=trained,
            held_out=held_out,
            stopping=encode_examples(chat, self._examples.to_stop, longest, self._channel),
            reference_examples=encode_reference(chat, regularise, regularised, longest),
            monitor=encode_reference(chat, monitor, watching, longest, kind=MONITOR),
            remembered=[],
            taught=relevance.encode_both(chat, relevance.chosen_examples(self._examples.to_train), longest),
            probes=encode_reference(chat, probe, probed, longest, kind=PROBE),
            asked=self._questions(held_out, systems, longest),
            new=frozenset(one.id for one in learned if one.role == "train"),
        )
        told = encode_remembered(chat, self._examples.to_train, [*found.newly_trained, *found.repeated], longest)
        return replace(found, remembered=told)

    def _encode_trained(self, longest: int) -> list[Encoded]:
        """The sequences of what is trained; none where a foreign adapter is measured.

        Raises:
            GiveUp: there is nothing to learn from.
        """
        chat, given = self._loaded.chat, self._examples.to_train
        trained = encode_examples(chat, given, longest, self._channel)
        if not trained and chat.exceeded:
            raise chat.exceeded[-1]
        if not trained and not self._job.foreign:
            raise GiveUp(
                "nothing_supervised",
                f"none of {len(given)} experiences has a reply token to learn from",
                "check the buffer: are its responses empty?",
            )
        return trained

    def plan(self, encoded: EncodedExamples, *, steps_done: int) -> None:
        """Tell the clock of what is still to come after measuring."""
        pace = self._phases.pace
        pace.begin()
        if not self._job.foreign:
            pace.plan(workload.training(self._job, encoded, steps_done=steps_done))
        pace.plan(workload.evaluating(self._job, encoded, encoded.asked))

    def _questions(self, held_out: list[Encoded], systems: Mapping[str, int], longest: int) -> Questions:
        known = {one.id for one in held_out}
        measured = [one for one in self._examples.to_hold_out if one.id in known]
        return questions(to_reply_to(self._loaded.chat, measured, longest), self._job.questions, systems)

    def _base_answers(self, asked: list[ChatExample]) -> list[str | None]:
        loaded, job = self._loaded, self._job
        seconds = BASE_ANSWERS_SHARE * job.evaluation_seconds

        def cache(system: str) -> Path:
            directory = Path(job.models_directory)
            return answers_file(directory, loaded.fingerprint, system or job.system_prompt, loaded.chat)

        with loaded.model.disable_adapter():
            answers = base_answers(
                loaded.model,
                loaded.device,
                loaded.chat,
                asked,
                loaded.stop_ids,
                cache,
                self._phases.generated,
                time.monotonic() + seconds,
            )
        if missing := answers.count(None):
            text = (
                f"{seconds:g} s ({BASE_ANSWERS_SHARE} times [evaluation] seconds) did not suffice for {missing} of"
                f" {len(answers)} reference answers of the base: training is regularised towards the others only, and"
                " drift is measured on those; the next cycle generates the missing ones"
            )
            self._channel.notice("base_answers_cut_short", text, warning=True)
        return answers

    def _prepare(self, encoded: EncodedExamples) -> dict[str, Reference]:
        """What training is regularised towards: the base's logits at the tokens of the reference answers."""
        self._choose_packing(encoded)
        self._phases.pace.plan(workload.measuring(self._job, encoded, encoded.asked))
        self.plan(encoded, steps_done=0)
        with self._loaded.model.disable_adapter():
            # Each set by itself, in the rows in which it is compared: in bfloat16 other rows round otherwise.
            return self.evaluator.references(encoded.reference_examples) | self.evaluator.references(encoded.monitor)

    def _measure(self, encoded: EncodedExamples, references: dict[str, Reference]) -> Before:
        """Everything on base and parent; ``references`` gains those of the probes."""
        job, evaluator, model = self._job, self.evaluator, self._loaded.model
        with model.disable_adapter():
            references |= evaluator.references(encoded.probes)
            surprising = encoded.newly_trained if job.measures_surprise else []
            base = evaluator.losses([*encoded.held_out, *encoded.repeated, *surprising]) if job.parent else {}
            fitting = relevance.measure(evaluator, encoded.taught)
            told = evaluator.losses([one.sequence for one in encoded.remembered])
        later = probation.later(job, [*encoded.trained, *encoded.held_out])
        measured = {one.id: one for one in [*encoded.measured, *later, *encoded.held_out]}
        parent = evaluator.losses(list(measured.values()))
        require_finite([one.total for one in [*base.values(), *parent.values(), *told.values()]])
        on_probation = probation.measure(job, model, evaluator, later, parent, self._channel)
        held_out = {one.id: parent[one.id] for one in encoded.held_out}
        again = evaluator.losses(chosen(encoded.held_out, READ_AGAIN), alone=True)
        drift = self._drift(encoded, references) if job.parent else 0.0
        of_base, of_parent = self._answers_of_both(encoded)
        return Before(
            parent=parent,
            base=base or parent,
            noise_floor=noise_floor(held_out, again),
            parent_drift=drift if encoded.probes else None,
            base_answers=of_base,
            parent_answers=of_parent,
            parent_metrics=self._metrics(Path(job.parent) if job.parent else None),
            probation=on_probation,
            relevance=fitting,
            remembered={one.id: told[one.sequence.id] for one in encoded.remembered},
        )

    def _choose_packing(self, encoded: EncodedExamples) -> None:
        config = self._loaded.model.config.get_text_config()
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        sequences = [*encoded.trained, *encoded.held_out, *encoded.reference_examples, *encoded.probes]
        reason = self.evaluator.choose_packing(sequences, window, packing_support.why_not(self._loaded.model))
        if reason:
            text = f"each sequence has a row of its own, which is slower: {reason}"
            self._channel.notice("packing_off", text)

    def _answers_of_both(self, encoded: EncodedExamples) -> tuple[Answers, Answers]:
        """What the base says, and what the parent says: the same where there is none."""
        with self._loaded.model.disable_adapter():
            of_base = self._generate_answers(encoded, None)
        return of_base, self._generate_answers(encoded, Path(self._job.parent)) if self._job.parent else of_base

    # After training

    def after(self, encoded: EncodedExamples, before: Before, references: Mapping[str, Reference]) -> After:
        """The same on the candidate, as the model now has it.

        Raises:
            GiveUp: a loss is not finite, or ``out_of_memory``.
        """
        losses = self.evaluator.losses([*encoded.measured, *encoded.held_out])
        require_finite([one.total for one in losses.values()])
        after = After(
            losses=losses,
            drift=self._drift(encoded, references),
            answers=self._generate_answers(encoded, Path(self._job.staging)),
            metrics=self._metrics(Path(self._job.staging)),
        )
        self._report_missing(before.base_answers, before.parent_answers, after.answers)
        return after

    # Both times

    def _drift(self, encoded: EncodedExamples, references: Mapping[str, Reference]) -> float | None:
        if not encoded.probes:
            return None
        drift = self.evaluator.divergence(encoded.probes, references)
        require_finite([drift])
        return drift

    def _generate_answers(self, encoded: EncodedExamples, adapter: Path | None) -> Answers:
        """What the model says, as it stands: with the adapter in that directory, beside which its answers are kept."""
        loaded, job = self._loaded, self._job
        probes = encoded.asked.probes
        key = answers_key(loaded.fingerprint, job.system_prompt, probes, loaded.chat, loaded.device, adapter)
        kept = adapter / "replies.json" if adapter else Path(job.models_directory, f"replies-{key[:16]}.json")
        known = kept_answers(kept, key)
        generator = ProbeGenerator(
            model=loaded.model,
            device=loaded.device,
            chat=loaded.chat,
            stop_ids=loaded.stop_ids,
            max_prompt_tokens=encoded.max_tokens,
            seconds=job.evaluation_seconds,
            on_step=self._phases.generated,
        )
        answers = generator.ask(encoded.asked, known=known)
        is_parents = adapter is not None and str(adapter) == job.parent  # a finished checkpoint, never written to
        if known is None and not is_parents:
            keep_answers(kept, key, answers)
        return answers

    def _metrics(self, adapter: Path | None) -> dict[str, float] | None:
        """The figures of the operator's command; None: there is no command, or it gave none, which is reported."""
        if not self._job.evaluation_command:
            return None
        try:
            return metrics.figures(self._job, adapter, self._loaded.base_directory, self._phases.report)
        except metrics.NoFigures as error:
            text = f"[evaluation] command on {adapter.name if adapter else 'the base'}: {error}"
            self._channel.notice("evaluation_command_failed", text, warning=True)
            return None

    def _report_missing(self, *said: Answers) -> None:
        missing = comparison.missing(said)
        if missing:
            text = f"[evaluation] seconds = {self._job.evaluation_seconds:g} did not suffice for: {missing}"
            self._channel.notice("evaluation_cut_short", text, warning=True)
