"""Start-up after whatever happened: the ledger is made equal to what stands on disk.

Rule 1: ``current`` is the truth about what is in use. It is moved to finish a verdict (rule 2), or where it names
nothing whole: then to the newest champion that is whole, else to the newest adopted one, else to the base.
Rule 2: a whole checkpoint is the truth about a verdict. The ledger follows the manifest.
Rule 3: every step may be done twice. A power cut during recovery is met by the next recovery.

Theory of operation. An open cycle is one whose last record in the ledger is no end. Which of these happened:

    ledger says               | on disk                 | it was cut short          | the cycle is
    --------------------------+-------------------------+---------------------------+------------------------------
    judged                    | its checkpoint, whole   | after the rename          | finished as the manifest says
    judged                    | no whole checkpoint     | before the rename         | interrupted
    planned, training,        | its job can be read     | in the worker's time      | suspended, and counted
    evaluating                |                         |                           |
    planned, the second one   | its job can be read     | before its worker's time  | suspended
    of a pair                 |                         |                           |
    measured, one of a pair   | its job can be read     | before its verdict        | measured, as it was
    one of these, or suspended| its job cannot be read, | again and again, or the   | interrupted
                              | or 4th time             | staging was damaged       |

One of a pair whose other one was cancelled is interrupted: the cut came between the two records.

Interrupted means: its experiences are as unlearned as before, and the next cycle trains them. Suspended means: it goes
on with what was staged for it (``resume``), from the worker's last resume point, else from its beginning.

Order, and why. Cycles are closed first: finishing a verdict may move ``current`` and decides which staging directory is
kept. Then every other staging directory is removed. Then ``current`` is checked, because only now it is what the last
verdict made of it. What stands above it as ``cycle_NNN`` is retired, and only then recorded as rolled back, so that a
cut in between is met again. What is finished is in effect on disk before the ledger records it, and what is given up is
recorded before its staging directory is removed: a cut between the two leaves the same case to the next start. A crash
is counted before the cycle is suspended, so that a start that dies here is counted too.
"""

from __future__ import annotations

from pathlib import Path

from sleepd.clock import Clock
from sleepd.cycle import Event, State
from sleepd.errors import CheckpointInvalid
from sleepd.log import get_logger
from sleepd.protocol.verdict import Outcome
from sleepd.store.checkpoints import Checkpoints, read_manifest, verify_usable
from sleepd.store.sqlite.ledger import Ledger

from .running import resume
from .running.commit import EVENTS

CUT_SHORT = "sage-sleepd ended in the middle of it"


def recover(ledger: Ledger, checkpoints: Checkpoints, clock: Clock, *, cause: str = CUT_SHORT) -> list[str]:
    """Close or suspend every open cycle, sweep the staging directory, fix a ``current`` that points at nothing whole.

    Blocks while the champion's files are read; call it before there is a loop to block.

    Args:
        ledger: what is changed.
        checkpoints: what it is made equal to.
        clock: where time comes from.
        cause: why a cycle is still open; it is recorded as the reason.

    Returns:
        What the operator should know, a sentence each.
    """
    for cycle in ledger.open_cycles():
        _close(cycle, ledger, checkpoints, clock, cause)
    swept = checkpoints.sweep(keep=ledger.open_cycles())
    if swept:
        get_logger().info("staging_swept", text=", ".join(sorted(swept)))
    return fix_current(ledger, checkpoints)


def _close(cycle: int, ledger: Ledger, checkpoints: Checkpoints, clock: Clock, cause: str) -> None:
    state = ledger.state(cycle)
    places = (checkpoints.promoted_path(cycle), checkpoints.retired_path(cycle))
    whole = next((path for path in places if state is State.JUDGED and _is_whole(path)), None)
    if whole is not None:
        # Committed, and then the power went: finish what was decided.
        outcome = Outcome(read_manifest(whole).verdict)
        if outcome is Outcome.PROMOTED:
            # Also where ``current`` names it already: the second time changes nothing.
            checkpoints.promote(cycle)
        ledger.advance(cycle, EVENTS[outcome], at=clock.now())
        get_logger().info("cycle_completed_after_crash", cycle=cycle, outcome=str(outcome))
        return
    reason = _why_over(cycle, state, ledger, checkpoints, clock, cause)
    if reason:
        ledger.advance(cycle, Event.INTERRUPT, at=clock.now(), reason=reason)
        get_logger().warning("cycle_interrupted", cycle=cycle, text=reason)
    elif state not in (State.SUSPENDED, State.MEASURED):
        ledger.advance(cycle, Event.SUSPEND, at=clock.now(), reason=cause)
        get_logger().warning("cycle_suspended", cycle=cycle, text=cause)


def _why_over(cycle: int, state: State, ledger: Ledger, checkpoints: Checkpoints, clock: Clock, cause: str) -> str:
    """Why the cycle cannot go on; empty: nothing here speaks against it."""
    if state is State.JUDGED:
        return f"{cause}; its experiences are trained by the next cycle"
    rival = ledger.summary(cycle).rival
    if rival is not None and ledger.state(rival) is State.CANCELLED:
        return f"cycle {rival}, the other one of its pair, was cancelled"
    times = resume.crashes(ledger, cycle).count
    is_waiting = state is State.PLANNED and rival is not None and rival < cycle
    if state not in (State.SUSPENDED, State.MEASURED) and not is_waiting:
        times = resume.note_crash(ledger, cycle, clock.now()).count
    if times > resume.MAX_CRASHES:
        return f"it was interrupted {times} times; its experiences are trained by the next cycle"
    job = resume.staged_job(checkpoints, cycle)
    return f"it cannot go on: {job}" if isinstance(job, str) else ""


def fix_current(ledger: Ledger, checkpoints: Checkpoints) -> list[str]:
    """Keep the champion if it is whole; else fall back along its lineage, at the end to the base, and report that."""
    active = ledger.active()[::-1]
    troubles = []
    try:
        champion = checkpoints.champion()
        if champion is not None:
            verify_usable(checkpoints.promoted_path(champion))
    except CheckpointInvalid as error:
        candidates = [*active, *reversed(checkpoints.adopted())]
        champion = next((cycle for cycle in candidates if _is_whole(checkpoints.promoted_path(cycle))), None)
        checkpoints.promote(champion)
        in_use = "the base" if champion is None else f"cycle {champion}"
        troubles = [f"the champion was damaged, so {in_use} is in use: {error.message}"]
        get_logger().error("champion_damaged", text=troubles[0], fallback=champion)
    # Older tools load the newest cycle_NNN they find, so none may stand above the one in use: neither a damaged one
    # nor, after a crash in the middle of a rollback, one that was rolled back.
    above = [cycle for cycle in active if champion is None or cycle > champion]
    for cycle in above:
        checkpoints.retire(cycle)
    # Last: until it is recorded, the next start finds them again and retires what is still left.
    ledger.mark_rolled_back(above, is_rolled_back=True)
    return troubles


def _is_whole(path: Path) -> bool:
    if not path.is_dir():
        return False
    try:
        verify_usable(path)
    except CheckpointInvalid as error:
        get_logger().error("checkpoint_damaged", text=error.message, hint=error.hint)
        return False
    return True
