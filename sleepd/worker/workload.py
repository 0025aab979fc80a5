"""How much work a cycle is, in forward tokens: what the estimate of its end rests on. Pure."""

from __future__ import annotations

from sleepd.job import Job

from .data import total_tokens
from .interview import Questions
from .pace import FORWARD, TRAINED
from .report import Exchanges
from .train import planned_epochs, steps_an_epoch


def measuring(job: Job, exchanges: Exchanges, asked: Questions) -> float:
    """Before training: losses of base and parent, drift of the parent, replies of both."""
    models = 2 if job.parent else 1
    held_out, sampled = total_tokens(exchanges.held_out), total_tokens(exchanges.sampled)
    general, probes = total_tokens(exchanges.general), total_tokens(exchanges.probes)
    return FORWARD * (general + models * (probes + held_out) + sampled) + models * asked.work


def training(job: Job, exchanges: Exchanges, *, steps_done: int) -> float:
    """All steps that are left."""
    strategy = job.strategy
    trained, general = total_tokens(exchanges.trained), total_tokens(exchanges.general)
    beside = general * strategy.kl_batch_size / (strategy.batch_size * max(1, len(exchanges.general)))
    epochs = planned_epochs(strategy, exchanges.trained)
    steps = epochs * steps_an_epoch(strategy, len(exchanges.trained))
    work = TRAINED * epochs * (trained + beside * len(exchanges.trained))
    return work * (steps - steps_done) / steps


def evaluating(exchanges: Exchanges, asked: Questions) -> float:
    """After training: losses, drift and replies of the candidate."""
    return FORWARD * sum(map(total_tokens, (exchanges.sampled, exchanges.held_out, exchanges.probes))) + asked.work
