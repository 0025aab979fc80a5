"""Which cycle compared a champion with the one before it, on experiences that came later."""

from __future__ import annotations

from typing import Final

from .ledger import Ledger

_QUERY: Final = (
    "SELECT max(cycle) FROM cycles WHERE cycle>? AND report IS NOT NULL "
    "AND json_extract(CAST(report AS TEXT), '$.evidence.probation.champion')=?"
)


def compared_by(champion: int, ledger: Ledger) -> int | None:
    """The newest one whose report does; None: there is none."""
    row = ledger.database.execute(_QUERY, (champion, champion)).fetchone()
    return row[0] or None
