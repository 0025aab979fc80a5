"""Start-up after whatever happened: the ledger is mended to what stands on disk, never the other way round.

``current`` is the truth about what is in use; a whole checkpoint is the truth about a verdict. A cycle that has neither
ended nor left a whole checkpoint is closed as interrupted: its experiences are as unlearned as before.
"""

from __future__ import annotations

from pathlib import Path

from .checkpoints import Checkpoints, verify
from .clock import Clock
from .cycle import Event, State
from .errors import CheckpointInvalid
from .ledger import Ledger
from .log import get_logger

_INTERRUPTED = "sage-sleepd ended in the middle of it; its experiences are trained by the next cycle"


def recover(ledger: Ledger, checkpoints: Checkpoints, clock: Clock) -> list[str]:
    """Close every open cycle, sweep the staging directory, mend ``current`` where it points at nothing whole.

    Blocks while the champion's files are read; call it before there is a loop to block.

    Returns:
        What the owner should know, a sentence each.
    """
    for cycle in ledger.open_cycles():
        _close(cycle, ledger, checkpoints, clock)
    swept = checkpoints.sweep()
    if swept:
        get_logger().info("staging_swept", text=", ".join(sorted(swept)))
    return _mend_current(ledger, checkpoints)


def _close(cycle: int, ledger: Ledger, checkpoints: Checkpoints, clock: Clock) -> None:
    promoted = _is_whole(checkpoints.promoted_path(cycle))
    if ledger.state(cycle) is State.JUDGED and (promoted or _is_whole(checkpoints.retired_path(cycle))):
        # Committed, and then the power went: finish what was decided.
        if promoted:
            checkpoints.promote(cycle)
        ledger.advance(cycle, Event.PROMOTE if promoted else Event.REJECT, at=clock.now())
        get_logger().info("cycle_completed_after_crash", cycle=cycle, promoted=promoted)
    else:
        ledger.advance(cycle, Event.INTERRUPT, at=clock.now(), reason=_INTERRUPTED)
        get_logger().warning("cycle_interrupted", cycle=cycle, text=_INTERRUPTED)


def _mend_current(ledger: Ledger, checkpoints: Checkpoints) -> list[str]:
    """Keep the champion if it is whole; else fall back along its lineage, at the end to the base, and say so."""
    standing = [s.cycle for s in ledger.summaries() if s.state == State.PROMOTED and not s.is_rolled_back]
    troubles = []
    try:
        champion = checkpoints.champion()
        if champion is not None:
            verify(checkpoints.promoted_path(champion))
    except CheckpointInvalid as error:
        champion = next((cycle for cycle in standing if _is_whole(checkpoints.promoted_path(cycle))), None)
        checkpoints.promote(champion)
        in_use = "the base" if champion is None else f"cycle {champion}"
        troubles = [f"the champion was damaged, so {in_use} is in use: {error.message}"]
        get_logger().error("champion_damaged", text=troubles[0], fallback=champion)
    # Older tools load the newest cycle_NNN they find, so none may stand above the one in use: neither a damaged one
    # nor, after a crash in the middle of a rollback, one that was rolled back.
    above = [cycle for cycle in standing if champion is None or cycle > champion]
    for cycle in above:
        checkpoints.retire(cycle)
    ledger.mark_rolled_back(above, is_rolled_back=True)
    return troubles


def _is_whole(path: Path) -> bool:
    if not path.is_dir():
        return False
    try:
        verify(path)
    except CheckpointInvalid as error:
        get_logger().error("checkpoint_damaged", text=error.message, hint=error.hint)
        return False
    return True
