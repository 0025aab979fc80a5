"""Tests of bringing an older ledger up to date: the same answers, and old or new after a crash at any point."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sleepd.daemon.status_view import cycles
from sleepd.errors import LedgerUnusable
from sleepd.store.sqlite import database
from sleepd.store.sqlite.database import SCHEMA_VERSION
from sleepd.store.sqlite.ledger import Ledger
from tests.agents import write_config
from tests.processes import LIMIT_SECONDS
from tests.stages import OpenSleeper, Stage

VERSION_1 = """
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
"""As the first release wrote it; never edited."""


async def answers(sleeper: OpenSleeper) -> Any:
    await sleeper.refresh()
    return (
        cycles(sleeper.reader, limit=50),
        sleeper.parts.history.known().splits,
        sleeper.parts.intake.counts,
        sleeper.parts.state.decision,
    )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Two cycles, in a ledger of version 1."""
    stage = Stage(tmp_path)
    stage.write(12)
    stage.sleep()
    stage.clock.advance(7 * 3600)
    stage.write(24)
    stage.sleep()
    path = stage.state / "state.db"
    new = path.rename(tmp_path / "new.db")
    with closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_1)
        old.execute("ATTACH ? AS new", (str(new),))
        for table in ("cycles", "placements", "decisions", "notes"):
            columns = ", ".join(row[1] for row in old.execute(f"PRAGMA main.table_info({table})"))
            old.execute(f"INSERT INTO {table} SELECT {columns} FROM new.{table}")
        old.commit()
        old.execute("PRAGMA user_version=1")
    return stage


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as opened:
        return int(opened.execute("PRAGMA user_version").fetchone()[0])


def test_migration_keeps_answers_and_original(stage: Stage) -> None:
    """The ledger is of the newest version afterwards; the one before stands beside it, and nothing else."""
    summary = stage.play(answers)
    assert [each.cycle for each in summary[0]] == [2, 1]
    assert version_of(stage.state / "state.db") == SCHEMA_VERSION
    assert version_of(stage.state / "state.db.schema-1") == 1
    assert stage.play(answers) == summary
    assert not list(stage.state.glob("*.migrating*"))


def test_migrated_tables_are_the_new_ones(stage: Stage, tmp_path: Path) -> None:
    """After all steps tables, log and free pages are as in a new ledger, and no step is left that none takes."""
    assert sorted(database.MIGRATIONS) == list(range(1, SCHEMA_VERSION))
    found = []
    for path in (stage.state / "state.db", tmp_path / "fresh.db"):
        Ledger(path).close()
        with closing(sqlite3.connect(path)) as opened:
            tables = sorted(row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
            columns = {table: {row[1:4] for row in opened.execute(f"PRAGMA table_info({table})")} for table in tables}
            modes = [opened.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "auto_vacuum")]
            found.append((columns, modes))
    assert found[0] == found[1]
    assert found[0][1] == ["wal", 2]


@pytest.mark.parametrize("point", ["backup", "hardlink_to", "replace", "fsync_path"])
def test_crash_leaves_old_or_new(stage: Stage, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """Broken off there, the next start has all that there was."""

    class PowerLoss(BaseException):
        pass

    def break_off(*_: object, **__: object) -> None:
        raise PowerLoss

    with monkeypatch.context() as patched:
        if point == "fsync_path":
            patched.setattr(database, "fsync_path", break_off)
        elif point == "backup":
            patched.setattr(database, "_rows", break_off)
        else:
            patched.setattr(Path, point, break_off)
        with pytest.raises(PowerLoss):
            Ledger(stage.state / "state.db")
    ledger = Ledger(stage.state / "state.db")
    assert [summary.cycle for summary in ledger.summaries()] == [2, 1]
    ledger.close()
    assert version_of(stage.state / "state.db") == SCHEMA_VERSION


def test_failed_copy_leaves_the_ledger(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what could not be done; nothing is rebuilt or moved aside for it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(database, "fsync_path", full)
        with pytest.raises(LedgerUnusable, match=rf"from schema 1 to {SCHEMA_VERSION}: .*No space left") as refused:
            Ledger(stage.state / "state.db")
    assert not refused.value.is_damage
    assert "df -h" in refused.value.hint
    assert version_of(stage.state / "state.db") == 1


def test_newer_ledger_is_refused(stage: Stage) -> None:
    """The daemon ends with the two versions and the next step, and touches nothing."""
    path = stage.state / "state.db"
    with closing(sqlite3.connect(path)) as opened:
        opened.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    write_config(stage.directory / "config.toml", stage.config)
    command = [sys.executable, "-m", "sleepd", "--config", str(stage.directory / "config.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert ended.returncode == LedgerUnusable.exit_code
    assert f"(schema {SCHEMA_VERSION + 1}, this one reads {SCHEMA_VERSION})" in ended.stderr
    assert "install the version" in ended.stderr
    assert path.read_bytes() == before


READS = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
database.execute("UPDATE cycles SET reason = reason || ' ' || hex(randomblob(20000))")
database.execute("BEGIN")
database.execute("SELECT count(*) FROM cycles").fetchone()
print("open", flush=True)
sys.stdin.read()
"""


def test_ledger_that_another_has_open_stays(stage: Stage) -> None:
    """While a backup tool has it open, with a log beside it, nothing is migrated and nothing lost; afterwards it is."""
    path = stage.state / "state.db"
    command = [sys.executable, "-c", READS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(LedgerUnusable, match="database is locked") as refused:
            Ledger(path)
        assert refused.value.hint.startswith(f"end what has it open: fuser {path}")
        assert not refused.value.is_damage
        other.communicate("")
    assert version_of(path) == 1
    ledger = Ledger(path)
    assert [summary.cycle for summary in ledger.summaries()] == [2, 1]
    ledger.close()
    assert version_of(path) == SCHEMA_VERSION
    with closing(sqlite3.connect(stage.state / "state.db.schema-1")) as kept:
        assert kept.execute("SELECT count(*) FROM cycles WHERE length(reason) > 40000").fetchone() == (2,)
