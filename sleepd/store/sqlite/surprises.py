"""The base's loss on each reply that a cycle has measured, from the reports in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sleepd.buffer.experience import id_hash

from .ledger import Ledger

_NEWEST: Final = """
SELECT cycle, json_extract(CAST(report AS TEXT), '$.base_fingerprint') FROM cycles
WHERE report IS NOT NULL ORDER BY cycle DESC LIMIT 1
"""
_MEASURED: Final = """
SELECT json_extract(value, '$.id'), json_extract(value, '$.base')
FROM (SELECT cycle, CAST(report AS TEXT) AS text FROM cycles WHERE report IS NOT NULL AND cycle > ?),
     json_each(text, ?)
WHERE json_extract(text, '$.base_fingerprint') = ? AND json_extract(value, '$.base') IS NOT NULL
"""
_LISTS: Final = ("$.holdout", "$.evidence.repeated", "$.evidence.newly_trained")
"""Of a report, where such losses stand. ``compaction`` empties the first one of old cycles."""


class Surprises:
    """Of one ledger. Reports are read once; another base makes all that was measured void."""

    def __init__(self, ledger: Ledger) -> None:
        self._database = ledger.database
        self._read: tuple[int, str] = (0, "")
        """The newest cycle that was read, and its base."""
        self._found: dict[int, float] = {}

    def known(self) -> Mapping[int, float]:
        """By key, nats a token with the base of the newest cycle; another object whenever something was added."""
        newest = self._database.execute(_NEWEST).fetchone()
        if newest is None or newest == self._read:
            return self._found
        first, found = (self._read[0], dict(self._found)) if newest[1] == self._read[1] else (0, {})
        for place in _LISTS:
            rows = self._database.execute(_MEASURED, (first, place, newest[1]))
            found |= {id_hash(identifier): float(nats) for identifier, nats in rows}
        self._read, self._found = newest, found
        return found
