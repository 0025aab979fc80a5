"""Against whom a champion is compared before the next cycle trains on: the one that a rollback would activate."""

from __future__ import annotations

import msgspec

from sleepd.protocol.checkpoint.base_identity import is_same_base
from sleepd.store.checkpoints import Checkpoints, read_manifest
from sleepd.store.sqlite.ledger import Ledger

from .rollback import champion_before


class Predecessor(msgspec.Struct, frozen=True, kw_only=True):
    """The champion before; without a cycle the base itself."""

    cycle: int | None
    directory: str
    """Of its adapter; empty: the base."""


def predecessor(champion: int, ledger: Ledger, checkpoints: Checkpoints) -> Predecessor | None:
    """The one before that champion; None: there is nothing to compare.

    An adopted champion is not ours to judge: nobody knows what it was trained on. An adapter of another base, or an
    adopted one that ours did not grow from, would not load beside it.

    Raises:
        CheckpointInvalid: a manifest is damaged.
    """
    if champion in checkpoints.adopted():
        return None
    before = champion_before(champion, ledger, checkpoints)
    if before is None:
        return Predecessor(cycle=None, directory="")
    path = checkpoints.promoted_path(before)
    if before in checkpoints.adopted():
        fits = before in ledger.lineage(champion)
    else:
        mine, other = read_manifest(checkpoints.promoted_path(champion)), read_manifest(path)
        fits = is_same_base(mine.base_fingerprint, other.base_fingerprint)
    return Predecessor(cycle=before, directory=str(path)) if fits else None
