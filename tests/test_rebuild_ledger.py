"""Tests of opening a ledger that is damaged, newer, or half made; what it is rebuilt from is in ``test_sleeper.py``."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sleepd.clock import SystemClock
from sleepd.errors import LedgerUnusable
from sleepd.store.checkpoints import Checkpoints
from sleepd.store.sqlite.database import SCHEMA_VERSION
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.rebuild_ledger import KEPT_DAMAGED, open_ledger
from tests.test_ledger import plan


def opened(directory: Path) -> tuple[Ledger, list[str]]:
    return open_ledger(directory, Checkpoints(directory), SystemClock())


def test_newest_damaged_ledgers_are_kept(tmp_path: Path) -> None:
    """A damaged one is moved aside under the moment's name, that is told, and of all of them the newest three stay."""
    for year in (2021, 2019, 2023, 2020):
        (tmp_path / f"state.db.damaged-{year}0101T000000Z").touch()
    (tmp_path / "state.db").write_bytes(b"no ledger" * 1000)
    ledger, told = opened(tmp_path)
    left = sorted(path.name for path in tmp_path.glob("state.db.damaged-*"))
    assert len(left) == KEPT_DAMAGED == 3
    assert left[:2] == ["state.db.damaged-20210101T000000Z", "state.db.damaged-20230101T000000Z"]
    assert (tmp_path / left[2]).read_bytes() == b"no ledger" * 1000
    assert [left[2] in text for text in told] == [True]
    assert ledger.highest_cycle() == 0


def test_newer_ledger_is_left_alone(tmp_path: Path) -> None:
    """What a newer version wrote is refused, and neither moved nor rebuilt."""
    with closing(sqlite3.connect(tmp_path / "state.db")) as newer:
        newer.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    before = (tmp_path / "state.db").read_bytes()
    with pytest.raises(LedgerUnusable, match="newer"):
        opened(tmp_path)
    assert (tmp_path / "state.db").read_bytes() == before
    assert not list(tmp_path.glob("*damaged*"))


def test_half_made_ledger_is_made_anew(tmp_path: Path) -> None:
    """What a crash left of a rebuilding, and the log of a ledger that is gone, are removed, and nothing of them comes
    back.
    """
    earlier = Ledger(tmp_path / "earlier.db")
    earlier.plan(plan(7))
    log = (tmp_path / "earlier.db-wal").read_bytes()
    assert log
    for name in ("state.db-wal", "state.db.building-wal"):
        (tmp_path / name).write_bytes(log)
    earlier.close()
    (tmp_path / "state.db.building").write_bytes((tmp_path / "earlier.db").read_bytes())
    ledger, told = opened(tmp_path)
    assert (told, ledger.highest_cycle()) == ([], 0)
    ledger.close()
    assert {path.name for path in tmp_path.glob("state.db*")} == {"state.db"}
    assert opened(tmp_path)[1] == []
