"""What goes through the model in one optimizer step: experiences, and beside them what the base answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sleepd.protocol.strategy import Strategy
from sleepd.worker.data.examples import Encoded
from sleepd.worker.data.packing import PackedRow, make_rows, shared_opening
from sleepd.worker.model.losses import Reference
from sleepd.worker.model.memory.out_of_memory import MemoryLimits

from .thinned_prompts import presented

TOKENS_AN_ANSWER = 40
"""Of replies, beside which one reference answer is enough."""


def answers_beside(strategy: Strategy, reply_tokens: int) -> int:
    """How many reference answers stand in a step of so many tokens of replies."""
    least = strategy.kl_batch_least or strategy.kl_batch_size
    return min(strategy.kl_batch_size, max(least, reply_tokens // TOKENS_AN_ANSWER))


@dataclass
class TrainingSet:
    """What is trained on. ``encode`` makes the sequences anew when memory asks for shorter ones."""

    experiences: list[Encoded]
    encode: Callable[[int], list[Encoded]]
    reference_examples: list[Encoded]
    references: dict[str, Reference]
    """By the id of a reference answer."""
    thinned: dict[str, list[Encoded]] = field(default_factory=dict)
    """By the id of a short reply, the same reply behind thinned prompts."""


class Batches:
    """Rows of an optimizer step, as long as memory allows.

    Args:
        given: the sequences.
        limits: of a row and of a sequence.
        strategy: how many reference answers stand in a step.
        packed: whether several sequences may share a row.
    """

    def __init__(self, given: TrainingSet, limits: MemoryLimits, strategy: Strategy, *, packed: bool) -> None:
        self._given = given
        self.limits = limits
        self._strategy = strategy
        self.packed = packed
        self.references = {one.id: given.references[one.id] for one in given.reference_examples}
        """What the base says at the predictions of a reference answer, by its id."""
        self._sequences: dict[str, Encoded] = {}
        self.opening = 0
        """How many tokens all sequences begin with."""

    @property
    def experiences(self) -> list[Encoded]:
        """All that is trained, as it was first encoded: order and number of the steps follow from it."""
        return self._given.experiences

    def encode(self) -> None:
        """Make the sequences as long as the limits allow now."""
        sequences = self._given.encode(self.limits.max_tokens)
        self._sequences = {one.id: one for one in sequences}
        thinned = [one for variants in self._given.thinned.values() for one in variants]
        self.opening = shared_opening([*sequences, *thinned, *self._given.reference_examples])

    def members(self, ids: Sequence[str], step: int) -> list[Encoded]:
        """The chat examples of a step: these experiences, and the reference answers whose turn it is."""
        chosen = [self._presented(id_, step) for id_ in ids if id_ in self._sequences]
        turns = list({one.id: one for one in self._given.reference_examples}.values())
        first = step * self._strategy.kl_batch_size
        beside = min(len(turns), answers_beside(self._strategy, sum(one.supervised for one in chosen)))
        return chosen + [turns[(first + i) % len(turns)] for i in range(beside)]

    def rows(self, members: Sequence[Encoded]) -> list[PackedRow]:
        """These chat examples of one step in as few rows as the limits allow."""
        return make_rows(members, self.limits.micro_batch_tokens, self.opening, packed=self.packed)

    def _presented(self, id_: str, step: int) -> Encoded:
        one, share = self._sequences[id_], self._strategy.thinned_share
        return presented(one, self._given.thinned.get(id_, []), share, step=step, longest=self.limits.max_tokens)

    def shrink(self, rows: Sequence[PackedRow], where: str = "") -> None:
        """Take a step back after ``rows`` did not fit into memory.

        Args:
            rows: of the attempt that failed.
            where: it failed, in words that follow "out of memory".

        Raises:
            GiveUp: ``out_of_memory``, none is left.
        """
        longest = self.limits.max_tokens
        self.limits.shrink(rows, is_training=True, where=where)
        if self.limits.max_tokens != longest:
            self.encode()
