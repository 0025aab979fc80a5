"""The ledger's database: its schema, how it is opened, what a transaction is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .errors import LedgerUnusable

SCHEMA_VERSION = 1
CACHE_KIB = 512
"""SQLite would take 2 MiB, a third of what the daemon itself has."""

_SCHEMA = """
CREATE TABLE cycles(
    cycle INTEGER PRIMARY KEY, state TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT, parent INTEGER,
    strategy TEXT NOT NULL, is_forced INTEGER NOT NULL, reason TEXT NOT NULL DEFAULT '', hint TEXT NOT NULL DEFAULT '',
    is_rolled_back INTEGER NOT NULL DEFAULT 0, report BLOB, seen BLOB NOT NULL
);
CREATE TABLE placements(
    cycle INTEGER NOT NULL, id TEXT NOT NULL, key INTEGER NOT NULL, grp INTEGER NOT NULL, role TEXT NOT NULL,
    PRIMARY KEY(cycle, id)
) WITHOUT ROWID;
CREATE INDEX placements_by_group ON placements(grp, role);
CREATE TABLE decisions(at TEXT NOT NULL, decision BLOB NOT NULL, facts BLOB NOT NULL);
CREATE TABLE notes(name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


def open_database(path: Path) -> sqlite3.Connection:
    """The database, made if it is not there; a transaction is on the disk when it ends.

    Raises:
        LedgerUnusable: it cannot be opened, is damaged (``is_damage``), or a newer version wrote it.
    """
    database = None
    try:
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("its check found damage")
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        damage = (None, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
        raise LedgerUnusable(
            f"{path}: cannot be opened: {error}",
            hint=f"check the disk and the owner of {path}",
            is_damage=getattr(error, "sqlite_errorcode", None) in damage,
        ) from error
    if version > SCHEMA_VERSION:
        database.close()
        raise LedgerUnusable(
            f"{path}: was written by a newer version (schema {version}, this one reads {SCHEMA_VERSION})",
            hint="install the version that wrote it, or a newer one",
        )
    return database


class Transaction:
    """All of the block, or nothing of it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def signed(number: int) -> int:
    """An unsigned 64-bit number as SQLite can hold it."""
    return number - 2**64 if number >= 2**63 else number


def unsigned(number: int) -> int:
    """The opposite of ``signed``."""
    return number + 2**64 if number < 0 else number
