"""The ledger's table of what the engine was proved to run, from when to when.

A span begins with a proof and lasts as long as every further proof finds the same. It ends when a swap begins or
when something else is found; from then on nothing is known until the next proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sleepd.protocol.deployment.serve_messages import ServedSpan

from .database import Database

KEPT: Final = 1000
"""So many spans stay, the newest."""
_COLUMNS: Final = "cycle, since, proved_at, until, distance, next_nearest, proofs"


class ServedTable:
    """The table ``served``."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def open_span(self) -> ServedSpan | None:
        """The span that lasts; None: nothing is known of what the engine runs."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM served WHERE until IS NULL ORDER BY id DESC LIMIT 1").fetchone()  # noqa: S608 - names of ours
        return _span(row) if row else None

    def last(self) -> ServedSpan | None:
        """The newest span; None: nothing was ever proved."""
        return next(iter(self.spans(limit=1)), None)

    def spans(self, *, limit: int) -> list[ServedSpan]:
        """The spans, newest first."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM served ORDER BY id DESC LIMIT ?", (limit,))  # noqa: S608
        return [_span(row) for row in rows]

    def spans_of(self, cycle: int) -> list[ServedSpan]:
        """The spans of one cycle, newest first; 0: of the base."""
        query = f"SELECT {_COLUMNS} FROM served WHERE coalesce(cycle, 0)=? ORDER BY id DESC"  # noqa: S608
        return [_span(row) for row in self._db.execute(query, (cycle,))]

    def proofs(self) -> tuple[int, ...]:
        """Other numbers after each proof."""
        row = self._db.execute("SELECT coalesce(max(id), 0), coalesce(sum(proofs), 0) FROM served").fetchone()
        return tuple(row)

    def note_proof(
        self, cycle: int | None, *, at: datetime, distance: float | None, next_nearest: float | None
    ) -> ServedSpan:
        """The engine was proved to run this now: the open span goes on, or another one begins."""
        moment, was = at.isoformat(), self.open_span()
        with self._db.transaction():
            if was is not None and was.cycle == cycle:
                self._db.execute(
                    "UPDATE served SET proved_at=?, distance=?, next_nearest=?, proofs=proofs+1 WHERE until IS NULL",
                    (moment, distance, next_nearest),
                )
            else:
                # Seen in the ordinary course only where the engine was changed by somebody else.
                self._db.execute("UPDATE served SET until=proved_at WHERE until IS NULL")
                self._db.execute(
                    "INSERT INTO served(cycle, since, proved_at, distance, next_nearest) VALUES(?,?,?,?,?)",
                    (cycle, moment, moment, distance, next_nearest),
                )
                self._db.execute("DELETE FROM served WHERE id <= (SELECT max(id) FROM served) - ?", (KEPT,))
        found = self.open_span()
        assert found is not None
        return found

    def note_found(self, cycle: int | None, *, at: datetime) -> None:
        """The engine was asked before a swap, and proved to run this: the open span lasted until now, or had ended."""
        with self._db.transaction():
            self._db.execute(
                "UPDATE served SET proved_at=?, proofs=proofs+1 WHERE until IS NULL AND coalesce(cycle, 0)=?",
                (at.isoformat(), cycle or 0),
            )
            self._db.execute(
                "UPDATE served SET until=proved_at WHERE until IS NULL AND coalesce(cycle, 0)!=?", (cycle or 0,)
            )

    def end_span(self, *, at: datetime | None) -> None:
        """What was proved holds no longer: since ``at``, or (None) since an unknown moment after its last proof."""
        with self._db.transaction():
            self._db.execute(
                "UPDATE served SET until=coalesce(?, proved_at) WHERE until IS NULL", (at.isoformat() if at else None,)
            )


def _span(row: Sequence[Any]) -> ServedSpan:
    cycle, since, proved_at, until, distance, next_nearest, proofs = row
    return ServedSpan(
        cycle=cycle,
        since=datetime.fromisoformat(since),
        proved_at=datetime.fromisoformat(proved_at),
        until=datetime.fromisoformat(until) if until else None,
        distance=distance,
        next_nearest=next_nearest,
        proofs=proofs,
    )
