"""Pairs of cycles in the ledger: two strategies on the same experiences; see ``cycles.running.pair``."""

from __future__ import annotations

from typing import Final

from sleepd.cycle import JUDGED_STATES, UNDECIDED_STATES, State

from .database import Database


def _listed(states: frozenset[State]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))


_UNMEASURED: Final = _listed(UNDECIDED_STATES - {State.MEASURED, State.JUDGED})
RIVAL_HAS_NO_VERDICT: Final = (
    "NOT EXISTS(SELECT 1 FROM cycles AS other WHERE other.cycle=cycles.rival "  # noqa: S608 - names of ours
    f"AND other.state IN ({_listed(JUDGED_STATES)}))"
)
"""Condition on a row of ``cycles``: no verdict makes up for it. Of a pair of which one failed the other was judged."""
_RESUMABLE: Final = f"""
SELECT min(cycle) FROM cycles WHERE state='{State.SUSPENDED}' OR (state='{State.MEASURED}' AND NOT EXISTS(
    SELECT 1 FROM cycles AS other WHERE other.cycle=cycles.rival AND other.state IN ({_UNMEASURED})
))
"""  # noqa: S608 - names of ours


def resumable(database: Database) -> int | None:
    """The lowest cycle that goes on at the next start; None: there is none.

    Of a pair that is the one which is not measured yet, the first before the second; once no one is left to be
    measured, it is one that waits for its verdict.
    """
    row = database.execute(_RESUMABLE).fetchone()
    return int(row[0]) if row[0] is not None else None
