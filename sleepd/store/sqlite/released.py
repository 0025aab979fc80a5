"""Which experiences a cycle trained after they had judged: an earlier cycle held them out, and they were released."""

from __future__ import annotations

from .ledger import Ledger

_QUERY = """
SELECT id FROM placements AS trained WHERE cycle=? AND role='train' AND EXISTS(
    SELECT 1 FROM placements AS judge WHERE judge.grp=trained.grp AND judge.role='holdout' AND judge.cycle<trained.cycle
)
"""


def released_in(cycle: int, ledger: Ledger) -> list[str]:
    """Their ids. ``compaction`` drops the rows of old cycles: of these only ``lineage.json`` has them."""
    return [row[0] for row in ledger.database.execute(_QUERY, (cycle,))]
