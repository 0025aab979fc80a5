"""How much work a cycle is, in forward tokens: what the estimate of its end rests on. Pure."""

from __future__ import annotations

from sleepd.protocol.job import Job

from .data.examples import total_tokens
from .evaluation.probe_generation import Questions
from .progress import FORWARD, TRAINED
from .report import Exchanges
from .training.early_stopping import CHECKS
from .training.schedule import epoch_ends


def measuring(job: Job, exchanges: Exchanges, asked: Questions) -> float:
    """Before training: losses of base and parent, drift of the parent, replies of both."""
    models = 2 if job.parent else 1
    held_out, sampled = total_tokens(exchanges.held_out), total_tokens(exchanges.sampled)
    general, probes = total_tokens([*exchanges.general, *exchanges.monitor]), total_tokens(exchanges.probes)
    taught = total_tokens(one for both in exchanges.taught for one in both)
    return FORWARD * (general + models * (probes + held_out) + sampled + taught) + models * asked.work


def training(job: Job, exchanges: Exchanges, *, steps_done: int) -> float:
    """All steps that are left, and the looks between them."""
    strategy = job.strategy
    general = total_tokens(exchanges.general)
    beside = general * strategy.kl_batch_size / (strategy.batch_size * max(1, len(exchanges.general)))
    ends = epoch_ends(strategy, exchanges.trained, job.seed)
    steps, at_once = ends[-1], sum(one.sampling_share for one in exchanges.trained)
    tokens = sum(len(one.ids) * one.sampling_share for one in exchanges.trained)
    work = TRAINED * len(ends) * (tokens + beside * at_once)
    work += FORWARD * (CHECKS * total_tokens(exchanges.stopping) + total_tokens(exchanges.monitor))
    return work * (steps - steps_done) / steps


def evaluating(exchanges: Exchanges, asked: Questions) -> float:
    """After training: losses, drift and replies of the candidate."""
    return FORWARD * sum(map(total_tokens, (exchanges.sampled, exchanges.held_out, exchanges.probes))) + asked.work
