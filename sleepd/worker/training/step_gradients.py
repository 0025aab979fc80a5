"""The gradient of an optimizer step, computed by this process alone or by a team of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sleepd.protocol.strategy import Strategy
from sleepd.worker.data.examples import Encoded
from sleepd.worker.data.packing import PackedRow
from sleepd.worker.model.memory.out_of_memory import is_out_of_memory

from .adapter_weights import AdapterWeights
from .batches import Batches
from .gradients import StepCounts, accumulate, count
from .heartbeat import TrainingHeartbeat
from .ranks.collective import trained
from .ranks.rank_messages import Share
from .ranks.rank_team import RankTeam


@dataclass(frozen=True)
class Gathered:
    """The weights have the gradient of the step."""

    total: float
    """Sum of the experiences' token losses."""
    norm: float
    """Of the gradient, before it was clipped."""
    tokens: int
    supervised: int


@dataclass(frozen=True)
class Shortage:
    """Memory ran out; the weights have no gradient."""

    rows: Sequence[PackedRow]
    where: str
    """Which rank, in words that begin with a space; empty: there is one process."""


class StepGradients:
    """Computes the gradients of steps.

    Args:
        strategy: of this cycle.
        weights: those that get the gradients.
        batches: what the steps are made of.
        heartbeat: called at every row.
        team: the other ranks; None: there are none.
    """

    def __init__(
        self,
        strategy: Strategy,
        weights: AdapterWeights,
        batches: Batches,
        heartbeat: TrainingHeartbeat,
        team: RankTeam | None,
    ) -> None:
        self._strategy = strategy
        self._weights = weights
        self._batches = batches
        self._heartbeat = heartbeat
        self._team = team

    def gather(self, ids: Sequence[str], step: int) -> Gathered | Shortage:
        """Once through all rows of a step."""
        members = self._batches.members(ids, step)
        shares = deal(members, self._team.processes if self._team else 1)
        rows = [self._batches.rows(share) for share in shares]
        counts = count(members, self._batches.references, is_weighted=self._strategy.weighs_by_salience)
        if self._team is not None:
            self._team.begin([self._share(step, each, counts) for each in shares[1:]], self._trained())
        totals = {0: self._accumulate(rows[0], counts)} | (self._team.totals() if self._team else {})
        lacking = [rank for rank in sorted(totals) if totals[rank] is None]
        if lacking:
            self._weights.drop_gradients()
            where = f" on rank {lacking[0]} of {self._team.processes} processes" if self._team else ""
            return Shortage(rows[lacking[0]], where)
        if self._team is not None:
            self._team.add_up(self._trained())
            self._heartbeat.trained(sum(row.tokens for share in rows[1:] for row in share))
        norm = self._clip()
        if norm is None:
            self._weights.drop_gradients()
            return Shortage(rows[0], "")
        return Gathered(
            total=sum(totals[rank] or 0.0 for rank in sorted(totals)),
            norm=norm,
            tokens=sum(row.tokens for share in rows for row in share),
            supervised=counts.supervised,
        )

    def _accumulate(self, rows: Sequence[PackedRow], counts: StepCounts) -> float | None:
        """The sum of the token losses of this process's rows; None: memory ran out."""
        try:
            return accumulate(
                self._weights.model,
                self._weights.device,
                rows,
                self._batches.references,
                counts,
                self._strategy.kl_weight,
                self._heartbeat.trained,
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _clip(self) -> float | None:
        """The norm of the gradient, which is clipped; None: memory ran out."""
        try:
            return self._weights.clip()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _trained(self) -> list[torch.nn.Parameter]:
        return list(trained(self._weights.model).values())

    def _share(self, step: int, members: list[Encoded], counts: StepCounts) -> Share:
        limits = self._batches.limits
        return Share(
            step=step,
            members=members,
            counts=counts,
            opening=self._batches.opening,
            micro_batch_tokens=limits.micro_batch_tokens,
            is_packed=self._batches.packed,
            is_recomputing=limits.is_recomputing,
        )


def deal(members: Sequence[Encoded], processes: int) -> list[list[Encoded]]:
    """The chat examples of a step for each rank, so that all have about as many tokens; the same every time."""
    shares: list[list[Encoded]] = [[] for _ in range(processes)]
    tokens = [0] * processes
    for one in sorted(members, key=lambda one: (-len(one.ids), one.id)):
        rank = tokens.index(min(tokens))
        shares[rank].append(one)
        tokens[rank] += len(one.ids)
    return shares
