"""Checkpoints kept, tagged and pruned: ``retention`` decides, this gathers what it needs and carries it out.

A tag is the operator's label for a cycle; it keeps the weights. Tags stand in ``tags.json``, not in the ledger, which
may be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sleepd.cycle import State
from sleepd.errors import DECODE_ERRORS, CheckpointInvalid, LedgerUnusable, NotFound
from sleepd.files import read_document, replace_file
from sleepd.log import get_logger
from sleepd.policy.retention import Keep, Stored, to_prune
from sleepd.protocol.checkpoint.checkpoint_files import WEIGHTS_FILE
from sleepd.store.checkpoints import Checkpoints, has_weights
from sleepd.store.sqlite.ledger import Ledger
from sleepd.text.shell import command_line

from .rollback import champion_before


class PrunedWeights(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint whose weights were removed, or would be."""

    cycle: int
    bytes: int
    reason: str


class Keeping:
    """What is kept in one state directory.

    Args:
        ledger: the cycles.
        checkpoints: their files.
        served: gives the cycle that the engine was proved to run last; None: the base, or nothing was proved.
    """

    def __init__(self, ledger: Ledger, checkpoints: Checkpoints, *, served: Callable[[], int | None]) -> None:
        self._served = served
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._tags_file = checkpoints.directory / "tags.json"

    def tags(self) -> dict[int, str]:
        """The tag of each tagged cycle.

        Raises:
            CheckpointInvalid: the file is damaged.
        """
        try:
            return msgspec.json.decode(read_document(self._tags_file), type=dict[int, str])
        except FileNotFoundError:
            return {}
        except (OSError, *DECODE_ERRORS) as error:
            path = self._tags_file
            raise CheckpointInvalid(
                f"{path}: not understood: {error}",
                hint=f"repair the file, or move it away: {command_line('mv', path, f'{path}.old')}",
            ) from error

    def shown_tags(self) -> dict[int, str]:
        """As ``tags``, for display: a damaged file, which ``tag`` and ``prune`` refuse by name, shows none."""
        try:
            return self.tags()
        except CheckpointInvalid:
            return {}

    def tag(self, cycle: int, name: str | None) -> str | None:
        """Give the cycle a tag, or (None) take it away; returns the one before.

        Raises:
            NotFound: nothing was kept of that cycle, or it has no tag to take away.
            CheckpointInvalid: the file of the tags is damaged.
            OSError: the disk did not take it.
        """
        tags = self.tags()
        was = tags.pop(cycle, None)
        if name is None and was is None:
            raise NotFound(f"cycle {cycle} has no tag", hint="sleepctl history shows the tags")
        if name is not None:
            if self._checkpoints.find(cycle) is None:
                raise NotFound(f"nothing was kept of cycle {cycle}", hint="sleepctl history shows what there is")
            tags[cycle] = name
        replace_file(self._tags_file, msgspec.json.encode({str(key): tag for key, tag in sorted(tags.items())}))
        return was

    def prune(self, keep: Keep, *, is_dry_run: bool = False) -> list[PrunedWeights]:
        """Remove the weights that retention does not keep; returns which those are, oldest first.

        Raises:
            CheckpointInvalid: ``current`` or the tags are damaged: nothing is removed while it is unknown what counts.
            OSError: the disk did not take it.
        """
        champion = self._checkpoints.champion()
        before = champion_before(champion, self._ledger, self._checkpoints) if champion is not None else None
        in_use = {cycle for cycle in (champion, before, self._served()) if cycle is not None}
        plan = to_prune(self._stored(), keep, in_use=in_use)
        pruned = []
        for cycle, reason in plan:
            path = self._checkpoints.find(cycle)
            assert path is not None
            pruned.append(PrunedWeights(cycle=cycle, bytes=(path / WEIGHTS_FILE).stat().st_size, reason=reason))
            if not is_dry_run:
                self._checkpoints.prune(path)
        if pruned and not is_dry_run:
            total = sum(each.bytes for each in pruned)
            get_logger().info("checkpoints_pruned", cycles=[each.cycle for each in pruned], bytes=total)
        return pruned

    def prune_after_cycle(self, keep: Keep) -> None:
        """As ``prune``, and the ledger's old rows too; what goes wrong is logged, and waits for the next cycle."""
        try:
            self.prune(keep)
            self._ledger.compact()
        except (CheckpointInvalid, LedgerUnusable, OSError) as error:
            get_logger().error("prune_failed", text=str(error), hint="sleepctl prune tries again")

    def _stored(self) -> Sequence[Stored]:
        tags = self.tags()
        found = []
        for summary in self._ledger.judged(limit=-1):
            path = self._checkpoints.find(summary.cycle)
            if path is not None and has_weights(path):
                kind = "promoted" if summary.state == State.PROMOTED else "rejected"
                found.append(Stored(cycle=summary.cycle, kind=kind, is_tagged=summary.cycle in tags))  # type: ignore[arg-type]
        return found
