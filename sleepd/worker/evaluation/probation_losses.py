"""The champion on probation: beside the one before it, on later experiences, which neither was trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sleepd.policy.judging.probation import compare
from sleepd.protocol.evidence import LaterLoss, Probation
from sleepd.protocol.job import Job
from sleepd.worker.channel import Channel
from sleepd.worker.data.examples import Encoded
from sleepd.worker.failure import GiveUp
from sleepd.worker.model.adapter import other_adapter

from .loss_evaluator import LossEvaluator, Measured, chosen

MOST = 64
"""Later experiences that are compared on, chosen by rank."""


def later(job: Job, sequences: Sequence[Encoded]) -> list[Encoded]:
    """On which of the sequences the two are compared; none where there is nothing to compare."""
    if job.predecessor is None or job.parent_cycle is None:
        return []
    ids = set(job.later)
    return chosen([one for one in sequences if one.id in ids], MOST)


def measure(
    job: Job,
    model: Any,
    evaluator: LossEvaluator,
    on: Sequence[Encoded],
    champion: Mapping[str, Measured],
    channel: Channel,
) -> Probation | None:
    """Reply losses of the predecessor beside those of the champion, which ``champion`` has by id.

    None: there is nothing to compare on, or the predecessor cannot be used on this base, which is then said.

    Raises:
        GiveUp: ``champion_worse``: it must not be trained on; or ``out_of_memory``.
        Shortened: there is room only for shorter sequences.
    """
    if not on or job.predecessor is None or job.parent_cycle is None:
        return None
    try:
        with _predecessor(model, job.predecessor):
            losses = evaluator.losses(on)
    except GiveUp as error:
        if error.kind != "parent_unusable":
            raise
        channel.notice("predecessor_not_comparable", error.message, warning=True)
        return None
    measured = Probation(
        champion=job.parent_cycle,
        predecessor=job.predecessor_cycle,
        losses=[_later(one, losses, champion, is_capped=job.later_is_capped) for one in on],
        margin=job.later_margin,
        is_capped=job.later_is_capped,
    )
    comparison = compare(measured, job.confidence)
    if comparison.outcome == "worse":
        raise GiveUp(
            "champion_worse", comparison.reason, "sleepctl history; the one before it is used again", probation=measured
        )
    return measured


def _later(
    one: Encoded, predecessor: Mapping[str, Measured], champion: Mapping[str, Measured], *, is_capped: bool
) -> LaterLoss:
    before, now = predecessor[one.id], champion[one.id]
    return LaterLoss(
        id=one.id,
        tokens=one.supervised,
        predecessor=before.capped_mean if is_capped else before.mean,
        champion=now.capped_mean if is_capped else now.mean,
        conversation=one.conversation,
    )


@contextlib.contextmanager
def _predecessor(model: Any, directory: str) -> Iterator[None]:
    with other_adapter(model, Path(directory)) if directory else model.disable_adapter():
        yield
