"""Which checkpoints keep their weights. Pure.

Weights are what costs space; the documents of a cycle (lineage, evaluation, manifest) stay for ever, so that the ledger
can be rebuilt and nothing that was trained or held out is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from sleepd.config.schema import StateConfig


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint of ours that has its weights."""

    cycle: int
    kind: Literal["promoted", "rejected"]
    """Promoted once; a rolled-back champion was too."""
    is_tagged: bool = False


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each kind keep their weights, beside those that always do."""

    promoted: int
    rejected: int

    @classmethod
    def of(cls, config: StateConfig, promoted: int | None = None) -> Keep:
        """The configured numbers; ``promoted`` replaces one of them."""
        return cls(
            promoted=config.keep_promoted if promoted is None else max(1, promoted), rejected=config.keep_rejected
        )


def to_prune(stored: Sequence[Stored], keep: Keep, *, in_use: Collection[int]) -> list[tuple[int, str]]:
    """The cycles whose weights go, oldest first, and why.

    Args:
        stored: what there is.
        keep: the newest so many of each kind stay.
        in_use: what stays in any case: the champion, the one that a rollback would activate, and what is served.
    """
    found = []
    for kind, most in (("promoted", keep.promoted), ("rejected", keep.rejected)):
        newest_first = sorted((each for each in stored if each.kind == kind), key=lambda each: -each.cycle)
        found += [
            (each.cycle, f"{kind}, and {most} newer ones are kept")
            for each in newest_first[most:]
            if not each.is_tagged and each.cycle not in in_use
        ]
    return sorted(found)
