"""Pairs of cycles in the ledger: two strategies on the same experiences; see ``cycles.running.pair``."""

from __future__ import annotations

from typing import Final, NamedTuple

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
IS_NO_SECOND: Final = "coalesce(rival, cycle) >= cycle"
"""Condition on a row of ``cycles``: it is not the second one of a pair."""
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


class PairedCycle(NamedTuple):
    """One cycle of a pair in which both were measured."""

    strategy: str
    gain: float
    """By how much its loss on held-out experiences was below the other's."""
    has_passed: bool
    """It passed its own gates, whatever became of it beside the other one."""


class PairedCycles(NamedTuple):
    """Both cycles of such a pair."""

    first: PairedCycle
    second: PairedCycle

    def beside(self, strategy: str) -> PairedCycle | None:
        """The one that ran beside that strategy; None: neither had it."""
        names = [self.first.strategy, self.second.strategy]
        return self[1 - names.index(strategy)] if strategy in names else None


_PAIRED: Final = f"""
WITH judged AS (
    SELECT cycle, rival, strategy, CAST(verdict AS TEXT) AS text FROM cycles
    WHERE rival IS NOT NULL AND state IN ({_listed(JUDGED_STATES)})
), measured AS (
    SELECT cycle, rival, strategy, json_extract(text, '$.pair.holdout.estimate') AS gain,
        json_extract(text, '$.outcome')='promoted' OR json_extract(text, '$.failed')='["rival"]' AS has_passed
    FROM judged
)
SELECT one.strategy, one.gain, one.has_passed, other.strategy, other.gain, other.has_passed
FROM measured AS one JOIN measured AS other ON other.cycle=one.rival
WHERE one.cycle<other.cycle AND one.gain IS NOT NULL AND other.gain IS NOT NULL ORDER BY one.cycle
"""  # noqa: S608 - names of ours


def paired_cycles(database: Database) -> list[PairedCycles]:
    """All pairs of which both were measured, oldest first."""
    rows = database.execute(_PAIRED).fetchall()
    return [PairedCycles(*(PairedCycle(row[i], row[i + 1], bool(row[i + 2])) for i in (0, 3))) for row in rows]
