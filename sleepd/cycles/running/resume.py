"""An interrupted cycle: whether it may go on, and why not.

It goes on with what was staged for it (job, experiences, the worker's resume point), so all of that must still hold:
the same base is configured, the champion is still the one it continues, and the agent has neither removed nor changed
any of its experiences. The rest (the code, the weights of the base) only the worker can compare; see
``sleepd.worker.resume_point``. What cuts a cycle short again and again is not tried for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from sleepd.buffer.reading.view import View
from sleepd.config.schema import Config
from sleepd.errors import ProtocolError
from sleepd.files import read_document
from sleepd.protocol.job import RESUME_POINT, Job, decode_job
from sleepd.store.checkpoints import Checkpoints, directory_name
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.ledger_rows import SplitAssignment
from sleepd.store.sqlite.notes import CRASHES, Crashes

MAX_CRASHES: Final = 3
"""An interrupted cycle by so many deaths (not shutdowns) is given up."""


def crashes(ledger: Ledger, cycle: int) -> Crashes:
    """Those of that cycle."""
    found = ledger.note(CRASHES) or Crashes()
    return found if found.cycle == cycle else Crashes(cycle)


def note_crash(ledger: Ledger, cycle: int, at: datetime) -> Crashes:
    """Count one more."""
    counted = Crashes(cycle, crashes(ledger, cycle).count + 1, at)
    ledger.set_note(CRASHES, counted)
    return counted


def staged_job(checkpoints: Checkpoints, cycle: int) -> Job | str:
    """The job that was staged for the cycle; or why it cannot be read."""
    try:
        job = decode_job(read_document(checkpoints.staging_path(cycle) / "work" / "job.json"))
    except OSError as error:
        return f"its job cannot be read: {error.strerror}"
    except ProtocolError as error:
        return error.message
    return job if job.cycle == cycle else f"its job is that of cycle {job.cycle}"


def has_resume_point(checkpoints: Checkpoints, cycle: int) -> bool:
    """Whether its worker has left anything worth going on from."""
    return (checkpoints.staging_path(cycle) / RESUME_POINT).exists()


def obstacle(
    cycle: int, assigned: Sequence[SplitAssignment], view: View, config: Config, checkpoints: Checkpoints
) -> str:
    """Why the cycle must not go on; empty: it may.

    Args:
        cycle: the suspended one.
        assigned: its experiences, as they were when it was planned.
        view: the buffer as it is now.
        config: in force now.
        checkpoints: where it was staged.

    Raises:
        CheckpointInvalid: ``current`` is damaged.
    """
    job = staged_job(checkpoints, cycle)
    if isinstance(job, str):
        return job
    if job.base != config.model.base:
        return f"[model] base is now {config.model.base}, it began with {job.base}"
    if job.quantization != config.model.quantization:
        return f"[model] quantization is now {config.model.quantization}, it began with {job.quantization}"
    if not (job.foreign or config.worker.trains):
        return 'worker.device is now "none": this machine trains nothing'
    if job.parent and Path(job.parent).name != directory_name(checkpoints.champion() or 0):
        return f"it continues {Path(job.parent).name}, which is no longer in use"
    groups = dict(zip(view.keys, view.groups, strict=True))
    gone = [each.id for each in assigned if each.key not in groups]
    if gone:
        return f"{len(gone)} of its experiences left the buffer, such as {gone[0]}"
    changed = [each.id for each in assigned if groups[each.key] != each.group]
    if changed:
        return f"{len(changed)} of its experiences have another text now, such as {changed[0]}"
    return ""
