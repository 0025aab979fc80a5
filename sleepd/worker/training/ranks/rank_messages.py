"""What goes between rank 0, which trains, and the other ranks, which compute shares of its gradients.

One JSON line a message, over a socket pair for each rank. Weights and gradients go by torch.distributed.

    rank 0                                       another rank
    RankSetup                               ->
                                            <-   Progress while it loads, then Joined
    Share                                   ->   for each step, and again where memory ran out
                                            <-   Progress: it has come
    the weights (broadcast)                 ->
                                            <-   Progress as a sign of life, then ShareDone or NoRoom
    AddUp                                   ->   once every rank has sent ShareDone
                                            <-   Progress: it has come
    the gradients (a sum)                  <->

A rank that cannot go on sends ``Failure``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import msgspec

from sleepd.protocol.job import Failure, Hello, Notice, Progress
from sleepd.protocol.strategy import Strategy
from sleepd.worker.data.examples import Encoded
from sleepd.worker.training.gradients import StepCounts


class TeamSize(NamedTuple):
    """How many processes train, and how long one of them may be silent."""

    processes: int = 1
    silence_seconds: float = 300.0


ALONE = TeamSize()
"""One process trains."""


class RankSetup(msgspec.Struct, frozen=True, kw_only=True, tag="setup"):
    """What a rank is and has to load; base and adapter are those that rank 0 has."""

    rank: int = 0
    processes: int
    device: str = "cpu"
    dtype: Literal["bfloat16", "float32"]
    """What rank 0 computes in."""
    base_directory: str
    quantization: Literal["none", "nf4"]
    strategy: Strategy
    seed: int
    threads: int
    store: str
    """The file in which the ranks find each other."""
    references: str
    """A safetensors file with the base's distributions on the reference answers."""
    silence_seconds: float


class Share(msgspec.Struct, frozen=True, kw_only=True, tag="share"):
    """The chat examples of a step whose gradient this rank computes."""

    step: int
    members: list[Encoded]
    counts: StepCounts
    opening: int
    micro_batch_tokens: int
    is_packed: bool
    is_recomputing: bool


class AddUp(msgspec.Struct, frozen=True, kw_only=True, tag="add_up"):
    """Every rank has its gradients: they are added."""


class Joined(msgspec.Struct, frozen=True, kw_only=True, tag="joined"):
    """The rank is ready."""

    weights: str
    """Digest of the names and shapes of what it trains."""


class ShareDone(msgspec.Struct, frozen=True, kw_only=True, tag="share_done"):
    """The gradient of the share is computed."""

    total: float
    """Sum of the experiences' token losses."""


class NoRoom(msgspec.Struct, frozen=True, kw_only=True, tag="no_room"):
    """Memory ran out; the rank has dropped its gradients, and waits for a smaller share."""


RankAnswer: TypeAlias = Joined | ShareDone | NoRoom
FromRank: TypeAlias = RankAnswer | Hello | Progress | Notice | Failure
ToRank: TypeAlias = RankSetup | Share | AddUp

from_rank = msgspec.json.Decoder(FromRank)
to_rank = msgspec.json.Decoder(ToRank)
