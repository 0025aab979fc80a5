"""What the ledger keeps of an old cycle, so that it does not grow without end: what later decisions rest on.

Of a cycle that is not among the newest ``KEPT_WHOLE`` and not the champion these rows and figures stay:

- that it was, its state, times, parent, verdict, its figures, and how many experiences it trained, replayed, held out;
- what it trained, where it was promoted: that is what its lineage has learned;
- of each experience's content one row, the newest that has most of it (trained before held out): trained once, it is
  never held out, and its split is never decided anew.

What goes is the list of the buffer at that time, the replayed ones, the held-out ones that stand in a newer cycle, and
the long lists of the report and of the verdict. All of it stands in the checkpoint's ``lineage.json`` and
``evaluation.json``.
"""

from __future__ import annotations

from typing import Final

from sleepd.cycle import TERMINAL_STATES, State

KEPT_WHOLE: Final = 100
"""So many cycles, the newest, stay as they were recorded."""

LONG_LISTS: Final = (
    "$.holdout",
    "$.replies",
    "$.notices",
    "$.evidence.probe_replies",
    "$.evidence.recall",
    "$.evidence.relevance.losses",
)
"""Of a report, as paths of SQLite's JSON; of a verdict it is ``$.figures``, without the one of the drift."""

_ENDED = ", ".join(f"'{state}'" for state in sorted(TERMINAL_STATES))
_OLD = "cycle IN (SELECT cycle FROM compacting)"
_OTHER = "SELECT 1 FROM placements AS other WHERE other.grp = placements.grp AND"
_EMPTIED = ", ".join(f"'{path}', json('[]')" for path in LONG_LISTS)
_DRIFT = """SELECT json_group_array(json(value)) FROM json_each(CAST(verdict AS TEXT), '$.figures')
            WHERE json_extract(value, '$.name') = 'drift'"""

STATEMENTS: Final = (
    "CREATE TEMP TABLE IF NOT EXISTS compacting(cycle INTEGER PRIMARY KEY)",
    "DELETE FROM compacting",
    f"""INSERT INTO compacting SELECT cycle FROM cycles
        WHERE trained IS NULL AND state IN ({_ENDED})
        AND cycle <= (SELECT max(cycle) FROM cycles) - {KEPT_WHOLE}
        AND cycle != (SELECT coalesce(max(cycle), 0) FROM cycles
                      WHERE state = '{State.PROMOTED}' AND NOT is_rolled_back)""",  # noqa: S608 - names of ours
    *(
        f"""UPDATE cycles SET {column} = (SELECT count(*) FROM placements
            WHERE placements.cycle = cycles.cycle AND role = '{role}') WHERE {_OLD}"""  # noqa: S608
        for column, role in (("trained", "train"), ("replayed", "replay"), ("held_out", "holdout"))
    ),
    f"DELETE FROM placements WHERE {_OLD} AND role = 'replay' AND EXISTS ({_OTHER} other.role = 'train')",  # noqa: S608
    f"""DELETE FROM placements WHERE {_OLD} AND role = 'holdout'
        AND EXISTS ({_OTHER} (other.role != 'holdout' OR other.cycle > placements.cycle))""",  # noqa: S608
    f"""DELETE FROM placements WHERE {_OLD} AND role = 'train'
        AND cycle NOT IN (SELECT cycle FROM cycles WHERE state = '{State.PROMOTED}')
        AND EXISTS ({_OTHER} other.role = 'train' AND other.cycle > placements.cycle)""",  # noqa: S608
    f"UPDATE cycles SET seen = X'' WHERE {_OLD}",  # noqa: S608
    f"""UPDATE cycles SET report = CAST(json_replace(CAST(report AS TEXT), {_EMPTIED}) AS BLOB)
        WHERE {_OLD} AND report IS NOT NULL""",  # noqa: S608
    f"""UPDATE cycles SET verdict = CAST(json_replace(CAST(verdict AS TEXT), '$.figures', ({_DRIFT})) AS BLOB)
        WHERE {_OLD} AND verdict IS NOT NULL""",  # noqa: S608
)
"""In one transaction; ``PRAGMA incremental_vacuum`` gives the space back afterwards."""
