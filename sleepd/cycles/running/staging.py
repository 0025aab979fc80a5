"""What is written before a worker exists: the job and its experiences in the staging directory, and the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from sleepd.buffer.experience import Experience, content_hash_of, conversation_of, id_hash
from sleepd.files import write_durably
from sleepd.protocol.job import Job, Role, TrainingExample, encode
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.ledger_rows import Plan, SplitAssignment


class Lineup(msgspec.Struct, frozen=True, kw_only=True):
    """A cycle's number, job and experiences, before anything is written."""

    job: Job
    parent: int | None
    is_forced: bool
    experiences: Sequence[tuple[Experience, Role]]
    seen: Any
    """Keys of the whole buffer: ``array('Q')``."""
    sampling_shares: Mapping[str, float] = {}
    """By id, of those that are not in every epoch."""
    ranks: Mapping[str, int] = {}
    """By id: in which order the worker takes what it measures; see ``holdout.keyed_rank``."""


def stage(lineup: Lineup, checkpoints: Checkpoints) -> None:
    """Write the experiences, then the job, each synced.

    Raises:
        OSError: the disk did not take them.
    """
    path = checkpoints.stage(lineup.job.cycle)
    examples = (
        TrainingExample(
            id=e.id,
            salience=e.salience,
            role=role,
            sampling_share=lineup.sampling_shares.get(e.id, 1.0),
            rank=lineup.ranks.get(e.id),
            **e.parts(),
        )
        for e, role in lineup.experiences
    )
    write_durably(path / "work" / "experiences.jsonl", b"".join(encode(example) for example in examples))
    write_durably(path / "work" / "job.json", encode(lineup.job))


def plan_of(lineup: Lineup, at: datetime) -> Plan:
    """As the ledger takes it."""
    assignments = [
        SplitAssignment(e.id, id_hash(e.id), content_hash_of(e), role, conversation_of(e))
        for e, role in lineup.experiences
    ]
    return Plan(
        cycle=lineup.job.cycle,
        started_at=at,
        parent=lineup.parent,
        strategy=lineup.job.strategy.name,
        is_forced=lineup.is_forced,
        assignments=assignments,
        rival=lineup.job.rival,
        seen=lineup.seen,
    )
