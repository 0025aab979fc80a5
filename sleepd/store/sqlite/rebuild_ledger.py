"""A lost or damaged ledger, rebuilt from the checkpoints: each one holds all that the ledger knew of its cycle.

Not rebuilt, because nothing but the ledger knew it: cycles that ended without a verdict, decisions, and a pause.
"""

from __future__ import annotations

from pathlib import Path

from sleepd.clock import Clock
from sleepd.cycle import State
from sleepd.errors import CheckpointInvalid, LedgerUnusable
from sleepd.files import fsync_path
from sleepd.log import get_logger
from sleepd.protocol.checkpoint.checkpoint_files import EVALUATION_FILE, LINEAGE_FILE, Evaluation, Lineage
from sleepd.protocol.verdict import Outcome
from sleepd.store.adoption import restore_trained
from sleepd.store.checkpoint_documents import assignments_in, read_document, seen_in
from sleepd.store.checkpoints import Checkpoints, read_manifest
from sleepd.text.shell import quoted

from .ledger import Ledger
from .ledger_rows import CycleRecord

LEDGER_NAME = "state.db"
KEPT_DAMAGED = 3
"""Damaged ledgers that stay beside the new one, the newest."""


def open_ledger(directory: Path, checkpoints: Checkpoints, clock: Clock) -> tuple[Ledger, list[str]]:
    """The ledger of a state directory: as it is; or new, with what the checkpoints hold.

    Returns:
        The ledger, and what the operator should know, a sentence each.

    Raises:
        LedgerUnusable: a newer version wrote it, or the disk does not take a new one.
    """
    path, troubles = directory / LEDGER_NAME, []
    if path.exists():
        try:
            return Ledger(path), []
        except LedgerUnusable as error:
            if not error.is_damage:
                raise
            aside = path.with_name(f"{LEDGER_NAME}.damaged-{clock.now():%Y%m%dT%H%M%SZ}")
            path.rename(aside)
            for older in sorted(directory.glob(f"{LEDGER_NAME}.damaged-*"))[:-KEPT_DAMAGED]:
                older.unlink()
            troubles = [f"the ledger was damaged; it was moved to {aside.name} and rebuilt from the checkpoints"]
            get_logger().error("ledger_damaged", text=troubles[0], error=error.message)
    _remove_companions(path)
    _build(path, checkpoints)
    return Ledger(path), troubles


def _build(path: Path, checkpoints: Checkpoints) -> None:
    """A ledger with what the checkpoints hold, there as a whole or not at all.

    Raises:
        LedgerUnusable: the disk did not take it.
    """
    unfinished = path.with_name(f"{path.name}.building")
    unfinished.unlink(missing_ok=True)
    _remove_companions(unfinished)
    ledger = Ledger(unfinished)
    for cycle in checkpoints.numbers():
        _restore(cycle, ledger, checkpoints)
    restore_trained(ledger, checkpoints)
    ledger.compact()
    ledger.close()
    if unfinished.with_name(f"{unfinished.name}-wal").exists():
        # SQLite's close does not report it: part of the ledger is in its log, and would be lost with the new name.
        raise LedgerUnusable(
            f"{unfinished}: the disk did not take it", hint=f"make space: df -h {quoted(path.parent)}; or journalctl -k"
        )
    unfinished.rename(path)
    fsync_path(path.parent)


def _remove_companions(path: Path) -> None:
    """A write-ahead log belongs to the database that is gone."""
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _restore(cycle: int, ledger: Ledger, checkpoints: Checkpoints) -> None:
    path = checkpoints.find(cycle)
    if path is None or not (path / "manifest.json").exists():
        return  # an older trainer's, or still staged
    try:
        manifest = read_manifest(path)
        lineage = read_document(path / LINEAGE_FILE, Lineage)
        evaluation = read_document(path / EVALUATION_FILE, Evaluation)
    except CheckpointInvalid as error:
        get_logger().error("checkpoint_unreadable", cycle=cycle, text=error.message, hint=error.hint)
        return
    outcome = evaluation.verdict.outcome
    summary = CycleRecord(
        cycle=cycle,
        state=State(outcome),
        started_at=lineage.started_at,
        ended_at=lineage.judged_at,
        parent=lineage.parent,
        strategy=manifest.strategy,
        is_forced=lineage.is_forced,
        rival=lineage.rival,
        is_rolled_back=outcome is Outcome.PROMOTED and path == checkpoints.retired_path(cycle),
        reason=evaluation.verdict.reason,
    )
    ledger.restore(summary, evaluation.report, evaluation.verdict, assignments_in(lineage), seen_in(lineage))
    get_logger().info("cycle_restored", cycle=cycle, state=summary.state)
