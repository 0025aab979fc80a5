"""The ledger's database: its schema, how it is opened and migrated, what a transaction is.

A migration works on a copy, which takes the database's place once it is whole and on the disk; the old one stays beside
it as ``state.db.schema-N``. A crash at any point leaves the old database or the new one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from sleepd.errors import LedgerUnusable
from sleepd.files import fsync_path, make_private
from sleepd.text.shell import quoted

from .compaction import STATEMENTS

SCHEMA_VERSION = 9
CACHE_KIB = 512
"""SQLite would take 2 MiB, a third of what the daemon itself has."""

_SCREENINGS = """
CREATE TABLE screenings(
    key INTEGER PRIMARY KEY, grp INTEGER NOT NULL, id TEXT NOT NULL, said_under INTEGER, reason TEXT NOT NULL,
    detail TEXT NOT NULL, original INTEGER, signature BLOB NOT NULL, at TEXT NOT NULL
);
"""
_RULES = """
ALTER TABLE screenings ADD COLUMN rules INTEGER NOT NULL DEFAULT 1;
ALTER TABLE screenings ADD COLUMN personal TEXT NOT NULL DEFAULT '{}';
"""

_SAID_AT = "ALTER TABLE screenings ADD COLUMN said_at INTEGER;"
"""Of what was screened before there is no time: no engine was served then."""

_RIVAL = "ALTER TABLE cycles ADD COLUMN rival INTEGER;"
"""The other cycle of a pair, which trains another strategy on the same experiences."""

_LOOKS = "CREATE TABLE looks(at TEXT NOT NULL, facts BLOB NOT NULL);"

_WHOLE = "CREATE INDEX cycles_whole ON cycles(cycle) WHERE trained IS NULL;"
"""Those that ``compaction`` reads: without it every cycle would be read with its report."""

_BY_CONVERSATION = (
    "CREATE INDEX placements_by_conversation ON placements(conversation, role) WHERE conversation IS NOT NULL;"
)
"""A row without a conversation is one of its own; most are, and none of them is in the index."""

_SERVED = """
CREATE TABLE served(
    id INTEGER PRIMARY KEY, cycle INTEGER, since TEXT NOT NULL, proved_at TEXT NOT NULL, until TEXT,
    distance REAL, next_nearest REAL, proofs INTEGER NOT NULL DEFAULT 1
);
"""
"""What an engine was proved to run, from when to when; a cycle of NULL is the base."""

_BANDS = """
CREATE TABLE bands(hash BLOB NOT NULL, key INTEGER NOT NULL, PRIMARY KEY(hash, key)) WITHOUT ROWID;
CREATE TABLE unbanded(key INTEGER NOT NULL);
INSERT INTO unbanded SELECT key FROM screenings WHERE length(signature) > 0;
CREATE INDEX screenings_by_time ON screenings(at);
"""
"""See ``quarantine.bands``."""

_SCHEMA = f"""
CREATE TABLE cycles(
    cycle INTEGER PRIMARY KEY, state TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT, parent INTEGER,
    strategy TEXT NOT NULL, is_forced INTEGER NOT NULL, reason TEXT NOT NULL DEFAULT '', hint TEXT NOT NULL DEFAULT '',
    is_rolled_back INTEGER NOT NULL DEFAULT 0, report BLOB, seen BLOB NOT NULL,
    verdict BLOB, trained INTEGER, replayed INTEGER, held_out INTEGER, rival INTEGER
);
CREATE TABLE placements(
    cycle INTEGER NOT NULL, id TEXT NOT NULL, key INTEGER NOT NULL, grp INTEGER NOT NULL, role TEXT NOT NULL,
    conversation INTEGER, PRIMARY KEY(cycle, id)
) WITHOUT ROWID;
CREATE INDEX placements_by_group ON placements(grp, role);
{_BY_CONVERSATION}
CREATE INDEX cycles_by_state ON cycles(state, cycle);
{_WHOLE}
CREATE TABLE decisions(at TEXT NOT NULL, decision BLOB NOT NULL, facts BLOB NOT NULL);
CREATE TABLE notes(name TEXT PRIMARY KEY, value BLOB NOT NULL);
{_SCREENINGS}{_RULES}{_SERVED}{_LOOKS}{_SAID_AT}{_BANDS}"""

MIGRATIONS = {
    1: "CREATE INDEX cycles_by_state ON cycles(state, cycle);",
    2: f"ALTER TABLE cycles ADD COLUMN verdict BLOB;{_SCREENINGS}",
    3: "".join(f"ALTER TABLE cycles ADD COLUMN {name} INTEGER;" for name in ("trained", "replayed", "held_out"))
    + _WHOLE
    + _RULES,
    4: f"ALTER TABLE placements ADD COLUMN conversation INTEGER;{_BY_CONVERSATION}",
    5: _SERVED,
    6: _LOOKS,
    7: _SAID_AT,
    8: _RIVAL + _BANDS,
}
"""From each version to the next."""
_TABLES = ("cycles", "placements", "decisions", "notes")


def open_database(path: Path) -> Database:
    """The database, made or migrated if need be; a transaction is on the disk when it ends.

    Raises:
        LedgerUnusable: it cannot be opened, is damaged (``is_damage``), or a newer version wrote it.
    """
    database = None
    try:
        database = _connect(path)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:  # before anything is written: what is freed later can then be given back
            database.execute("PRAGMA auto_vacuum=INCREMENTAL")
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
    return Database(database, path)


def _connect(path: Path) -> sqlite3.Connection:
    """SQLite would make a new file for all to read, and gives its log the permissions of the file."""
    with suppress(OSError):  # SQLite reports what is wrong
        make_private(path)
    return sqlite3.connect(path, isolation_level=None)


def migrate(path: Path, version: int) -> None:
    """Bring a closed database of an older version up to date.

    Raises:
        LedgerUnusable: the copy could not be made; the database is as it was.
    """
    unfinished = path.with_name(f"{path.name}.migrating")
    unfinished.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(path)) as old, closing(_connect(unfinished)) as new:
            _fold_log(old)
            old.backup(new)
            steps = "".join(MIGRATIONS[each] for each in range(version, SCHEMA_VERSION))
            new.executescript(f"BEGIN; {steps} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            counts = [[_rows(database, table) for table in _TABLES] for database in (old, new)]
            if counts[0] != counts[1]:
                raise sqlite3.DatabaseError(f"the copy differs: {counts}")
            _compact(new)
            if new.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("the copy's check found damage")
        fsync_path(unfinished)
        kept = path.with_name(f"{path.name}.schema-{version}")
        kept.unlink(missing_ok=True)
        kept.hardlink_to(path)
        unfinished.replace(path)
        fsync_path(path.parent)
    except (sqlite3.Error, OSError) as error:
        is_open = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        way_out = (
            f"end what has it open: fuser {quoted(path)}" if is_open else "make space in the state directory (df -h)"
        )
        raise LedgerUnusable(
            f"{path}: could not be brought from schema {version} to {SCHEMA_VERSION}: {error}",
            hint=f"{way_out}; the ledger is as it was",
        ) from error


def _fold_log(database: sqlite3.Connection) -> None:
    """Take the log (``-wal``) into the database and remove it; refused while another program has the database open.

    SQLite would take a log that is left beside the new database for that one's, and destroy it.
    """
    database.execute("PRAGMA journal_mode=DELETE")


def _compact(database: sqlite3.Connection) -> None:
    """Once for all old cycles, and so that what is freed later can be given back."""
    database.execute("BEGIN")
    for statement in STATEMENTS:
        database.execute(statement)
    database.execute("COMMIT")
    database.execute("PRAGMA auto_vacuum=INCREMENTAL")
    database.execute("VACUUM")


def _rows(database: sqlite3.Connection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - names of ours


class Database:
    """The open database. An error of SQLite becomes a ``LedgerUnusable``; no failure leaves a transaction open."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Rows:
        """One statement; all its rows are read, so that a disk that fails in the middle fails here.

        Raises:
            LedgerUnusable: it could not be done.
        """
        try:
            return Rows(self._connection.execute(statement, parameters).fetchall())
        except sqlite3.IntegrityError:
            raise  # a fault of ours, and not the disk's
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        """One statement for each of the parameters.

        Raises:
            LedgerUnusable: it could not be done.
        """
        try:
            self._connection.executemany(statement, parameters)
        except sqlite3.IntegrityError:
            raise  # a fault of ours, and not the disk's
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block, or nothing of it.

        Raises:
            LedgerUnusable: it could not be written; nothing of it is.
        """
        self._roll_back()
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        finally:
            self._roll_back()

    def give_back(self) -> None:
        """Shrink the file by the pages that nothing stands on any more.

        Raises:
            LedgerUnusable: it could not be done.
        """
        try:
            # As a script: a single statement would be stepped once, which frees one page.
            self._connection.executescript("PRAGMA incremental_vacuum")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _roll_back(self) -> None:
        # SQLite does it by itself after some failures and not after others.
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close it. What SQLite tidies up then it also tidies up when it is opened again."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def _unusable(self, error: sqlite3.Error) -> LedgerUnusable:
        return LedgerUnusable(
            f"{self._path}: cannot be read or written: {error}",
            hint=f"make space (df -h {quoted(self._path.parent)}), or check the disk (journalctl -k); "
            "it is tried again",
        )


class Rows(list[tuple[Any, ...]]):
    """The rows of a statement."""

    def fetchone(self) -> Any:
        """The first one; None: there is none."""
        return self[0] if self else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All of them."""
        return self


def signed(number: int) -> int:
    """An unsigned 64-bit number as SQLite can hold it."""
    return number - 2**64 if number >= 2**63 else number


def unsigned(number: int) -> int:
    """The opposite of ``signed``."""
    return number + 2**64 if number < 0 else number


def as_list(values: Iterable[object]) -> str:
    """A list as one SQL parameter, for json_each."""
    return msgspec.json.encode(list(values)).decode()
