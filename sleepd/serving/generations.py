"""The generations of one state directory, as an engine can be given them or be found to run them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sleepd.cycle import State
from sleepd.errors import CheckpointInvalid
from sleepd.protocol.checkpoint.checkpoint_files import FINGERPRINT_FILE, WEIGHTS_FILE
from sleepd.protocol.deployment.serve_messages import Generation
from sleepd.store.checkpoints import Checkpoints, has_weights, read_manifest
from sleepd.store.sqlite.ledger import Ledger

MOST_OTHERS: Final = 3
"""Generations that an engine is compared with beside the wanted one: each takes sixteen questions."""
SEARCHED: Final = 50
"""Cycles that are searched for them, the newest."""


class Generations:
    """What was trained in one state directory."""

    def __init__(self, ledger: Ledger, checkpoints: Checkpoints) -> None:
        self._ledger = ledger
        self._checkpoints = checkpoints

    def wanted(self) -> Generation | None:
        """What ``current`` names; None: the base.

        Raises:
            CheckpointInvalid: the link or the checkpoint is damaged.
        """
        champion = self._checkpoints.champion()
        return None if champion is None else _generation(champion, self._checkpoints.promoted_path(champion))

    def find(self, cycle: int) -> Generation | None:
        """That cycle with its weights; None: they are not there, or its manifest is damaged."""
        path = self._checkpoints.find(cycle)
        try:
            return _generation(cycle, path) if path is not None and has_weights(path) else None
        except CheckpointInvalid:
            return None

    def others(self, wanted: Generation | None, last_served: int | None) -> list[Generation]:
        """What the engine may be found to run instead: what was served last, then the newest, promoted ones first."""
        judged = self._ledger.judged(limit=SEARCHED)
        promoted = [each.cycle for each in judged if each.state is State.PROMOTED]
        rest = [each.cycle for each in judged if each.state is not State.PROMOTED]
        found: dict[int, Generation] = {}
        for cycle in ([] if last_served is None else [last_served]) + promoted + rest:
            if len(found) == MOST_OTHERS:
                break
            path = self._checkpoints.find(cycle)
            if path is None or cycle in found or (wanted is not None and cycle == wanted.cycle):
                continue
            if (path / FINGERPRINT_FILE).is_file() and (generation := self.find(cycle)) is not None:
                found[cycle] = generation
        return list(found.values())


def _generation(cycle: int, path: Path) -> Generation:
    record = read_manifest(path).files.get(WEIGHTS_FILE)
    return Generation(cycle=cycle, directory=str(path), sha256=record.sha256 if record else "")
