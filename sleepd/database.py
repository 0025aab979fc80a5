"""The ledger's database: its schema, how it is opened and migrated, what a transaction is.

A migration works on a copy, which takes the database's place once it is whole and on the disk; the old one stays beside
it as ``state.db.schema-N``. A crash at any point leaves the old database or the new one.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from .errors import LedgerUnusable
from .files import fsync_path

SCHEMA_VERSION = 2
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
CREATE INDEX cycles_by_state ON cycles(state, cycle);
CREATE TABLE decisions(at TEXT NOT NULL, decision BLOB NOT NULL, facts BLOB NOT NULL);
CREATE TABLE notes(name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""

MIGRATIONS = {1: "CREATE INDEX cycles_by_state ON cycles(state, cycle);"}
"""From each version to the next."""
_TABLES = ("cycles", "placements", "decisions", "notes")


def open_database(path: Path) -> sqlite3.Connection:
    """The database, made or migrated if need be; a transaction is on the disk when it ends.

    Raises:
        LedgerUnusable: it cannot be opened, is damaged (``is_damage``), or a newer version wrote it.
    """
    database = None
    try:
        database = sqlite3.connect(path, isolation_level=None)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version <= SCHEMA_VERSION:  # in a newer one's file not even the journal's mode is changed
            database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
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
    if 0 < version < SCHEMA_VERSION:
        database.close()
        migrate(path, version)
        return open_database(path)
    if version > SCHEMA_VERSION:
        database.close()
        raise LedgerUnusable(
            f"{path}: was written by a newer version (schema {version}, this one reads {SCHEMA_VERSION})",
            hint="install the version that wrote it, or a newer one",
        )
    return database


def migrate(path: Path, version: int) -> None:
    """Bring a closed database of an older version up to date.

    Raises:
        LedgerUnusable: the copy could not be made; the database is as it was.
    """
    unfinished = path.with_name(f"{path.name}.migrating")
    unfinished.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(unfinished, isolation_level=None)) as new:
            old.backup(new)
            steps = "".join(MIGRATIONS[each] for each in range(version, SCHEMA_VERSION))
            new.executescript(f"BEGIN; {steps} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            counts = [[_rows(database, table) for table in _TABLES] for database in (old, new)]
            if counts[0] != counts[1] or new.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError(f"the copy differs: {counts}")
        fsync_path(unfinished)
        kept = path.with_name(f"{path.name}.schema-{version}")
        kept.unlink(missing_ok=True)
        kept.hardlink_to(path)
        unfinished.replace(path)
        fsync_path(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnusable(
            f"{path}: could not be brought from schema {version} to {SCHEMA_VERSION}: {error}",
            hint="make space in the state directory (df -h); the ledger is as it was",
        ) from error


def _rows(database: sqlite3.Connection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - names of ours


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
