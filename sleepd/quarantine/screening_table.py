"""The ledger's table of what was found in each experience that was screened. No text is in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from sleepd.buffer.experience import Experience, group_of, id_hash
from sleepd.store.sqlite.database import Database, signed, unsigned

from .bands import RENEW, Bands
from .near_duplicates import RULES, Reason, Screened

PAGE: Final = 1000
"""Rows read at once, so that the event loop turns between two pages."""
LARGEST_PAGE: Final = 16 * PAGE
KEPT: Final = 20_000
"""So many rows stay beside those of the buffer, the newest. What fell out is screened anew where it is met again."""
BEYOND: Final = 1 / 8
"""So much more than these may stand there, for each removal reads all of them."""
_SHOWN: Final[frozenset[Reason]] = frozenset({"", "loop", "questions", "near_duplicate", "bare_question"})
"""The findings after which a text was screened as a whole and no secret was in it."""
_COLUMNS: Final = "key, grp, id, said_under, said_at, reason, detail, original, rules, personal"
_HALVES: Final = ((0, 2**63 - 1), (-(2**63), -1))
"""SQLite's integers are signed: in this order the keys ascend."""


class Screenings:
    """The table ``screenings``."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.bands = Bands(database)

    def pages(self) -> Iterator[list[Screened]]:
        """All rows by ascending key, without their signatures, a page at a time."""
        for page in self._pages(_COLUMNS):
            yield [_screened(row) for row in page]

    def signatures(self) -> Iterator[list[tuple[int, bytes]]]:
        """Key and signature of what later ones are compared with, a page at a time."""
        for page in self._pages("key, signature", "length(signature) > 0"):
            yield [(unsigned(key), signature) for key, signature in page]

    def personal(self) -> Iterator[list[tuple[int, dict[str, int]]]]:
        """Key and personal data of what holds some, a page at a time."""
        for page in self._pages("key, personal", "personal != '{}'"):
            yield [(unsigned(key), _personal(text)) for key, text in page]

    def _pages(self, columns: str, condition: str = "1") -> Iterator[Sequence[tuple[Any, ...]]]:
        query = f"SELECT {columns} FROM screenings WHERE key BETWEEN ? AND ? AND {condition} ORDER BY key LIMIT {PAGE}"  # noqa: S608 - names of ours
        for first, last in _HALVES:
            while page := self._db.execute(query, (first, last)):
                yield page
                first = page[-1][0] + 1  # noqa: PLW2901
                if first > last:
                    break

    def find(self, key: int) -> Screened | None:
        """One row; None: it was not screened."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM screenings WHERE key=?", (signed(key),)).fetchone()  # noqa: S608
        return _screened(row) if row else None

    def may_be_shown(self, key: int, group: int | None) -> bool:
        """Whether all who may read the status may read the text of that group: today's rules found no secret in it."""
        found = self.find(key)
        return found is not None and not found.is_outdated and found.group == group and found.reason in _SHOWN

    def may_text_be_shown(self, text: Experience) -> bool:
        """The same for a text."""
        return self.may_be_shown(id_hash(text.id), group_of(text))

    def screened_at(self, key: int) -> datetime | None:
        """When it was screened."""
        row = self._db.execute("SELECT at FROM screenings WHERE key=?", (signed(key),)).fetchone()
        return datetime.fromisoformat(row[0]) if row else None

    def oldest_first(self) -> Iterator[list[tuple[int, datetime]]]:
        """Key and time of all that was screened, the first ones first; each page is larger than the one before."""
        query = "SELECT key, at FROM screenings WHERE (at, key) > (?, ?) ORDER BY at, key LIMIT ?"
        size, last = PAGE, ("", 0)
        while page := self._db.execute(query, (*last, size)):
            yield [(unsigned(key), datetime.fromisoformat(at)) for key, at in page]
            size, last = min(2 * size, LARGEST_PAGE), (page[-1][1], page[-1][0])

    def record(self, found: Sequence[Screened], *, at: datetime) -> None:
        """Keep what was found; an experience whose text changed is replaced."""
        with self._db.transaction():
            self._db.executemany(
                f"INSERT OR REPLACE INTO screenings({_COLUMNS}, signature, at) VALUES(?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    (
                        signed(each.key),
                        signed(each.group),
                        each.id,
                        each.said_under,
                        each.said_at,
                        each.reason,
                        each.detail,
                        None if each.original is None else signed(each.original),
                        RULES,
                        msgspec.json.encode(each.personal).decode(),
                        each.signature,
                        at.isoformat(),
                    )
                    for each in found
                ),
            )
            self.bands.add([(each.key, each.signature) for each in found if each.signature])

    def rolled_back(self) -> frozenset[int]:
        """The cycles whose adapter is rolled back now."""
        return frozenset(row[0] for row in self._db.execute("SELECT cycle FROM cycles WHERE is_rolled_back"))

    def trained_in(self, id_: str) -> list[int]:
        """The cycles that trained or replayed the experience, oldest first."""
        query = "SELECT cycle FROM cycles JOIN placements USING(cycle) WHERE id=? AND role != 'holdout' ORDER BY cycle"
        return [row[0] for row in self._db.execute(query, (id_,))]

    def trim(self, kept: int) -> bool:
        """Remove the oldest rows beyond ``kept``; returns whether there were any."""
        beyond = int(self._db.execute("SELECT count(*) FROM screenings").fetchone()[0]) - kept
        if beyond > 0:
            with self._db.transaction():
                oldest = "SELECT key FROM screenings ORDER BY at LIMIT ?"
                self._db.execute(f"DELETE FROM screenings WHERE key IN ({oldest})", (beyond,))  # noqa: S608
                for statement in RENEW:
                    self._db.execute(statement)
        return beyond > 0


def _personal(text: str) -> dict[str, int]:
    return msgspec.json.decode(text, type=dict[str, int])


def _screened(row: tuple[Any, ...]) -> Screened:
    key, group, id_, said_under, said_at, reason, detail, original, rules, personal = row
    return Screened(
        key=unsigned(key),
        group=unsigned(group),
        id=id_,
        said_under=said_under,
        said_at=said_at,
        reason=reason,
        detail=detail,
        original=None if original is None else unsigned(original),
        personal=_personal(personal),
        is_outdated=rules != RULES,
    )
