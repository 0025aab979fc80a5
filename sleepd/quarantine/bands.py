"""Finds the earlier replies that share one of a sketch's smallest hashes, without reading all sketches.

A *band* is one of the hashes by which sketches are compared (``COMPARED_BY``). The ledger's table ``bands`` has a row
for each band of each sketch. It is only an index of ``screenings``: a row whose sketch has gone, or is another one, is
passed over. Thousands of new rows all over a large tree would write most of its pages again for each batch. So the
keys of many are only noted in ``unbanded``, and ``catch_up`` puts them in sorted and in large steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sleepd.store.sqlite.database import Database, signed, unsigned

from .near_duplicates import COMPARED_BY, HASH_BYTES, MOST_COMPARED, bands_of

FEW: Final = 64
"""So many sketches are put in at once."""
_STEP: Final = 5000
"""Sketches that are put in before the event loop turns."""
_DESCENDING: Final = ((-(2**63), -1), (0, 2**63 - 1))
"""SQLite's integers are signed: in this order the keys descend."""
_PLACES: Final = ", ".join(f"({1 + HASH_BYTES * number})" for number in range(COMPARED_BY))
_NOTED: Final = "SELECT key FROM unbanded WHERE rowid <= ?"
_PUT_IN: Final = f"""
INSERT OR IGNORE INTO bands
SELECT substr(signature, column1, {HASH_BYTES}) AS hash, key FROM screenings CROSS JOIN (VALUES {_PLACES})
WHERE key IN ({_NOTED}) AND length(hash) = {HASH_BYTES} ORDER BY hash, key
"""  # noqa: S608 - numbers of ours. What stands behind the hashes of a short sketch may get in, and is passed over.
_SHARING: Final = f"""
SELECT screenings.key, signature FROM bands CROSS JOIN screenings ON screenings.key = bands.key
WHERE hash = ? AND bands.key BETWEEN ? AND ? ORDER BY bands.key DESC LIMIT {MOST_COMPARED}
"""  # noqa: S608
RENEW: Final = (
    "DELETE FROM bands",
    "DELETE FROM unbanded",
    "INSERT INTO unbanded SELECT key FROM screenings WHERE length(signature) > 0",
)
"""Makes the table anew, so that what has gone takes no space."""


class Bands:
    """The table ``bands``."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, sketches: Sequence[tuple[int, bytes]]) -> None:
        """Put in some, by key; in the caller's transaction."""
        if len(sketches) > FEW:
            self._db.executemany("INSERT INTO unbanded VALUES(?)", ((signed(key),) for key, _ in sketches))
            return
        rows = sorted((band, signed(key)) for key, signature in sketches for band in bands_of(signature))
        self._db.executemany("INSERT OR IGNORE INTO bands VALUES(?,?)", rows)

    def catch_up(self) -> bool:
        """Put in a step of those that were only noted; returns whether there were any."""
        last = self._db.execute(f"SELECT max(rowid) FROM (SELECT rowid FROM unbanded LIMIT {_STEP})").fetchone()[0]  # noqa: S608
        if last is not None:
            with self._db.transaction():
                self._db.execute(_PUT_IN, (last,))
                self._db.execute("DELETE FROM unbanded WHERE rowid <= ?", (last,))
        return last is not None

    def sharing(self, bands: Iterable[bytes], is_left_out: Callable[[int], bool]) -> list[tuple[int, bytes]]:
        """The sketches that have one of these bands, by ascending key: of each band the last ``MOST_COMPARED``.

        Args:
            bands: as of ``bands_of``.
            is_left_out: whether a key is passed over.
        """
        found = dict[int, bytes]()
        for band in bands:
            found.update(self._last_with(band, is_left_out))
        return sorted(found.items())

    def _last_with(self, band: bytes, is_left_out: Callable[[int], bool]) -> list[tuple[int, bytes]]:
        found = list[tuple[int, bytes]]()
        for first, last in _DESCENDING:
            while page := self._db.execute(_SHARING, (band, first, last)):
                pairs = [(unsigned(key), signature) for key, signature in page]
                found += [(key, each) for key, each in pairs if band in bands_of(each) and not is_left_out(key)]
                last = page[-1][0] - 1  # noqa: PLW2901
                if len(found) >= MOST_COMPARED or last < first:
                    break
        return found[:MOST_COMPARED]
