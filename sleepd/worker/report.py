"""The report of a finished cycle, from what was measured before, while and after training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import msgspec

from sleepd.protocol.checkpoint.base_identity import UNQUANTISED, quantization_of
from sleepd.protocol.evidence import (
    CappedLosses,
    ChatContract,
    Drift,
    Evidence,
    LossPair,
    Probation,
    Relevance,
    RememberedLoss,
    TrainedLoss,
)
from sleepd.protocol.job import Job, Notice, Reply, Report, TrainingCheck, TrainingExample

from .data.examples import Encoded
from .evaluation import comparison
from .evaluation.loss_evaluator import Measured, chosen, mean_loss
from .evaluation.probe_generation import Answers, Questions
from .evaluation.relevance import Pair
from .evaluation.remembered import Remembered
from .model.device import Device
from .model.memory.peak_memory import Peak
from .training.outcome import Training

SAMPLED = 16
"""Of what is trained, so many are measured before and after it, chosen by rank: all would cost more than they tell."""
NEWLY_TRAINED = 24
"""Of what is trained for the first time, so many: the verdict may rest on them."""
REPEATED = 24
"""Of what the lineage learned and is trained again, so many: whether it was kept."""


@dataclass
class EncodedExamples:
    """The experiences and the reference answers as token sequences, none longer than ``max_tokens``."""

    max_tokens: int
    trained: list[Encoded]
    held_out: list[Encoded]
    """Those that judge."""
    stopping: list[Encoded]
    """Held-out ones that say when to stop, and so may not judge."""
    reference_examples: list[Encoded]
    """On which training is regularised towards the base (KL)."""
    monitor: list[Encoded]
    """On which its drift is monitored while it trains."""
    taught: list[Pair]
    """Of some trained ones, the reply after its own prompt and after another."""
    remembered: list[Remembered]
    """Of some trained ones, the reply behind the experience itself."""
    probes: list[Encoded]
    """On which its drift is measured; no training step and no validation check depends on them."""
    asked: Questions
    """What every model is asked."""
    new: frozenset[str]
    """Ids of the trained ones that no cycle of the lineage has trained before."""

    @property
    def truncated(self) -> int:
        """How many experiences were cut."""
        return sum(one.is_truncated for one in [*self.trained, *self.held_out, *self.stopping])

    @property
    def sampled(self) -> list[Encoded]:
        """Those of the trained ones that are measured."""
        return chosen(self.trained, SAMPLED)

    @property
    def newly_trained(self) -> list[Encoded]:
        """Those of the newly trained ones that are measured."""
        return chosen([one for one in self.trained if one.id in self.new], NEWLY_TRAINED)

    @property
    def repeated(self) -> list[Encoded]:
        """Those of the trained ones that are measured and that the lineage has trained before."""
        return chosen([one for one in self.trained if one.id not in self.new], REPEATED)

    @property
    def measured(self) -> list[Encoded]:
        """All trained ones that are measured, each once."""
        return list({one.id: one for one in [*self.sampled, *self.newly_trained, *self.repeated]}.values())

    def answered_in(self, references: Collection[str]) -> EncodedExamples:
        """The same without reference answers that have no logits: the base had no time for them then."""
        return replace(
            self,
            reference_examples=[one for one in self.reference_examples if one.id in references],
            monitor=[one for one in self.monitor if one.id in references],
            probes=[one for one in self.probes if one.id in references],
        )


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured before training. A resume point keeps it."""

    parent: dict[str, Measured]
    base: dict[str, Measured]
    """That of the parent where there is none."""
    noise_floor: float | None
    parent_drift: float | None
    """Nats per token; None: there are no answers to measure it on."""
    base_answers: Answers
    parent_answers: Answers
    """Those of the base where there is none."""
    parent_metrics: dict[str, float] | None
    """Of the operator's command; None: it gave none."""
    probation: Probation | None
    relevance: Relevance
    remembered: dict[str, Measured]
    """Of the base, by the ids of the experiences that stand in its prompt."""


@dataclass
class After:
    """What was measured on the adapter as it was read back from disk."""

    losses: dict[str, Measured]
    drift: float | None
    answers: Answers
    metrics: dict[str, float] | None


@dataclass
class Proof:
    """The proofs of effect, and what shape the adapter has."""

    checks: list[TrainingCheck]
    lora_shape: str


@dataclass
class SplitExamples:
    """The experiences of the job by what becomes of them."""

    to_train: list[TrainingExample]
    to_hold_out: list[TrainingExample]
    """Those that judge."""
    to_stop: list[TrainingExample]
    """Held-out ones that say when to stop."""


@dataclass
class Setting:
    """On what it all ran."""

    fingerprint: str
    device: Device
    chat: ChatContract
    seconds: dict[str, float]
    notices: list[Notice]
    peak: Peak
    energy_joules: float | None


@dataclass
class Finished:
    """A cycle at its end, part by part."""

    job: Job
    examples: SplitExamples
    setting: Setting
    encoded: EncodedExamples
    before: Before
    training: Training
    after: After
    proof: Proof


def make_report(cycle: Finished) -> Report:
    """All figures of one cycle."""
    setting, encoded, training = cycle.setting, cycle.encoded, cycle.training
    learned = _learned(cycle)
    return Report(
        base_fingerprint=setting.fingerprint,
        device=setting.device.description,
        dtype=_computed_in(setting),
        trained=sum(example.role == "train" for example in learned),
        replayed=sum(example.role == "replay" for example in learned),
        held_out=len(encoded.held_out),
        truncated=encoded.truncated,
        tokens=training.tokens,
        supervised_tokens=training.supervised_tokens,
        epochs=training.epochs,
        steps=training.steps,
        learning_rate=cycle.job.strategy.learning_rate,
        avg_salience=sum(example.salience for example in learned) / len(learned) if learned else None,
        epoch_losses=training.epoch_losses,
        trained_measured=len(encoded.sampled),
        train_before=_mean(cycle.before.parent, encoded.sampled),
        train_after=_mean(cycle.after.losses, encoded.sampled),
        holdout_base=_mean(cycle.before.base, encoded.held_out),
        holdout_before=_mean(cycle.before.parent, encoded.held_out),
        holdout_after=_mean(cycle.after.losses, encoded.held_out),
        holdout=[_pair(one, cycle.before, cycle.after.losses) for one in encoded.held_out],
        checks=cycle.proof.checks,
        replies=_replies(cycle),
        notices=setting.notices,
        seconds=setting.seconds,
        tokens_per_second=training.tokens_per_second,
        peak_memory_bytes=setting.peak.device,
        host_memory_bytes=setting.peak.host,
        energy_joules=setting.energy_joules,
        lora_shape=cycle.proof.lora_shape,
        stopping=len(encoded.stopping),
        kept_step=training.kept_step,
        evidence=_evidence(cycle),
        chat=setting.chat,
    )


def _computed_in(setting: Setting) -> str:
    quantization = quantization_of(setting.fingerprint)
    dtype = str(setting.device.dtype).removeprefix("torch.")
    return dtype if quantization == UNQUANTISED else f"{dtype}, base in {quantization}"


def _learned(cycle: Finished) -> list[TrainingExample]:
    trainable = {one.id for one in cycle.encoded.trained}
    return [example for example in cycle.examples.to_train if example.id in trainable]


def _replies(cycle: Finished) -> list[Reply]:
    asked = cycle.encoded.asked
    return comparison.holdout_replies(asked.held_out, cycle.before.parent_answers, cycle.after.answers)


def _evidence(cycle: Finished) -> Evidence:
    job, encoded, before, after = cycle.job, cycle.encoded, cycle.before, cycle.after
    said = (before.base_answers, before.parent_answers, after.answers)
    drift = None
    if before.parent_drift is not None and after.drift is not None:
        tokens = sum(one.supervised for one in encoded.probes)
        drift = Drift(prompts=len(encoded.probes), tokens=tokens, parent=before.parent_drift, candidate=after.drift)
    return Evidence(
        noise_floor=before.noise_floor,
        drift=drift,
        collapse=comparison.collapse(*said),
        probe_replies=comparison.probe_replies(encoded.asked, *said),
        recall=comparison.recall(job.questions, *said),
        metrics=comparison.metrics(before.parent_metrics, after.metrics),
        relevance=before.relevance,
        probation=before.probation,
        remembered=_remembered(encoded, before, after),
        newly_trained=[_trained(one, before, after.losses) for one in encoded.newly_trained],
        repeated=[_pair(one, before, after.losses) for one in encoded.repeated],
    )


def _remembered(encoded: EncodedExamples, before: Before, after: After) -> list[RememberedLoss]:
    return [
        RememberedLoss(
            id=one.id,
            tokens=one.sequence.supervised,
            candidate=after.losses[one.id].mean,
            in_prompt=before.remembered[one.id].mean,
            prompt_tokens=one.added,
        )
        for one in encoded.remembered
    ]


def _mean(measured: dict[str, Measured], sequences: list[Encoded]) -> float | None:
    return mean_loss([measured[one.id] for one in sequences])


def _trained(one: Encoded, before: Before, candidate: dict[str, Measured]) -> TrainedLoss:
    base = before.base.get(one.id)
    return TrainedLoss(
        id=one.id,
        tokens=candidate[one.id].tokens,
        parent=before.parent[one.id].mean,
        candidate=candidate[one.id].mean,
        conversation=one.conversation,
        base=None if base is None else base.mean,
    )


def _pair(one: Encoded, before: Before, after: dict[str, Measured]) -> LossPair:
    base, parent, candidate = (losses[one.id] for losses in (before.base, before.parent, after))
    capped = CappedLosses(base=base.capped_mean, parent=parent.capped_mean, candidate=candidate.capped_mean)
    return LossPair(
        id=one.id,
        tokens=candidate.tokens,
        base=base.mean,
        parent=parent.mean,
        candidate=candidate.mean,
        conversation=one.conversation,
        capped=capped,
    )
