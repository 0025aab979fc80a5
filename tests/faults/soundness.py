"""What must hold of a state directory after any crash, once the next start has done its work and ended."""

from __future__ import annotations

import json
from pathlib import Path

from sleepd.cycle import JUDGED_STATES, TERMINAL_STATES, State
from sleepd.store.checkpoints import Checkpoints, verify, verify_usable
from sleepd.store.sqlite.ledger import Ledger

_LEFTOVERS = ("*.tmp", ".*.tmp", "*.building*", "*.migrating*")


def faults_of(state: Path, ids: set[str], *, all_ended: bool = True) -> list[str]:
    """Everything that is not as it must be; empty: all is.

    Args:
        state: the directory; no process runs on it.
        ids: of the buffer's experiences, all of which are eligible.
        all_ended: whether the last start ran long enough to end every cycle; else one may still be suspended.
    """
    checkpoints, ledger = Checkpoints(state), Ledger(state / "state.db")
    try:
        return [
            *_cycles(ledger, checkpoints, all_ended=all_ended),
            *_experiences(ledger, checkpoints, ids, all_ended=all_ended),
            *_files(state, checkpoints, ledger),
        ]
    finally:
        ledger.close()


def _cycles(ledger: Ledger, checkpoints: Checkpoints, *, all_ended: bool) -> list[str]:
    found = []
    for summary in ledger.summaries():
        state = State(summary.state)
        if state not in TERMINAL_STATES and (all_ended or state not in (State.SUSPENDED, State.MEASURED)):
            found.append(f"cycle {summary.cycle} is left {state}")
        path = checkpoints.find(summary.cycle)
        if state in JUDGED_STATES and path is None:
            found.append(f"cycle {summary.cycle} is {state} and has no files")
        if state is State.PROMOTED and not summary.is_rolled_back and path != checkpoints.promoted_path(summary.cycle):
            found.append(f"cycle {summary.cycle} was promoted and does not stand with the champions")
    return found


def _experiences(ledger: Ledger, checkpoints: Checkpoints, ids: set[str], *, all_ended: bool) -> list[str]:
    """None trained twice in the champion's lineage, none held out once it was trained, none that no cycle has judged.

    A held-out one is released later, and trained then.
    """
    found = []
    trained: list[tuple[str, int]] = []
    held: dict[str, int] = {}
    judged: set[str] = set()
    lineage = ledger.lineage(checkpoints.champion())
    for summary in ledger.summaries():
        for place in ledger.assignments(summary.cycle):
            if place.role == "train" and summary.cycle in lineage:
                trained.append((place.id, summary.cycle))
            elif place.role == "holdout":
                held[place.id] = max(summary.cycle, held.get(place.id, 0))
            if summary.state in JUDGED_STATES:
                judged.add(place.id)
    if len(trained) != len(dict(trained)):
        found.append("an experience is trained twice in the champion's lineage")
    if any(held.get(identifier, 0) >= cycle for identifier, cycle in trained):
        found.append("an experience is held out though it was trained")
    if all_ended and judged != ids:
        found.append(f"{len(ids - judged)} experiences are lost")
    return found


def _files(state: Path, checkpoints: Checkpoints, ledger: Ledger) -> list[str]:
    found = []
    going_on = ledger.open_cycles()
    kept = {checkpoints.staging_path(cycle).name for cycle in going_on}
    staged = {entry.name for entry in (state / "staging").iterdir()}
    if staged != kept:
        found.append(f"staging holds {sorted(staged)}, and {going_on} go on")
    found += [f"{path.name} is left over" for pattern in _LEFTOVERS for path in state.glob(pattern)]
    champion = checkpoints.champion()
    if champion is not None:
        verify_usable(checkpoints.promoted_path(champion))
    for number in checkpoints.numbers():
        path = checkpoints.find(number)
        if path is not None:
            verify(path)
    for name in ("status.json", "history.json", "scheduler_state.json"):
        if (state / name).exists():
            json.loads((state / name).read_bytes())
    return found
