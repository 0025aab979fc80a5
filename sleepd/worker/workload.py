"""How much work a cycle is, in forward tokens: what the estimate of its end rests on. Pure."""

from __future__ import annotations

from sleepd.protocol.job import Job

from .data.examples import total_tokens
from .evaluation import fingerprint
from .evaluation.probe_generation import Questions
from .progress import FORWARD, TRAINED
from .report import EncodedExamples
from .training.batches import answers_beside
from .training.early_stopping import VALIDATION_CHECKS
from .training.schedule import epoch_ends, shares, step_size


def measuring(job: Job, encoded: EncodedExamples, asked: Questions) -> float:
    """Before training: losses of base and parent, drift of the parent, replies of both."""
    models = 2 if job.parent else 1
    held_out, trained = total_tokens(encoded.held_out), total_tokens(encoded.measured)
    reference, probes = total_tokens([*encoded.reference_examples, *encoded.monitor]), total_tokens(encoded.probes)
    taught = total_tokens(one for pair in encoded.taught for one in (pair.own, pair.other))
    taught += total_tokens(one.sequence for one in encoded.remembered)
    repeated = total_tokens(encoded.repeated) if job.parent else 0
    return FORWARD * (reference + models * (probes + held_out) + trained + repeated + taught) + models * asked.work


def training(job: Job, encoded: EncodedExamples, *, steps_done: int) -> float:
    """All steps that are left, and the validation checks between them."""
    strategy = job.strategy
    reference = total_tokens(encoded.reference_examples)
    parts = shares(strategy, encoded.trained)
    at_once = sum(parts)
    supervised = sum(one.supervised * share for one, share in zip(encoded.trained, parts, strict=True)) / at_once
    size = step_size(strategy, encoded.trained)
    answers = answers_beside(strategy, round(supervised * size))
    beside = reference * answers / (size * max(1, len(encoded.reference_examples)))
    ends = epoch_ends(strategy, encoded.trained, job.seed)
    steps = ends[-1]
    tokens = sum(len(one.ids) * share for one, share in zip(encoded.trained, parts, strict=True))
    work = TRAINED * len(ends) * (tokens + beside * at_once)
    work += FORWARD * (VALIDATION_CHECKS * total_tokens(encoded.stopping) + total_tokens(encoded.monitor))
    return work * (steps - steps_done) / steps


def evaluating(job: Job, encoded: EncodedExamples, asked: Questions) -> float:
    """After training: losses, drift and replies of the candidate, and its fingerprint."""
    losses = FORWARD * sum(map(total_tokens, (encoded.measured, encoded.held_out, encoded.probes)))
    return losses + asked.work + fingerprint.work(job, encoded.trained)
