"""Tests of a ledger that does not grow without end: what goes of an old cycle, and what never does."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sleepd.cycle import State
from sleepd.daemon.status_view import detail
from sleepd.errors import CheckpointInvalid
from sleepd.store.checkpoint_documents import assignments_of, evaluation_of, seen_by
from sleepd.store.sqlite.compaction import KEPT_WHOLE, STATEMENTS
from sleepd.store.sqlite.database import SCHEMA_VERSION
from sleepd.store.sqlite.ledger import Ledger
from tests.faults.ten_years import HELD_OUT, NEW_A_DAY, Life, live
from tests.stages import OpenSleeper, Stage

DAYS = KEPT_WHOLE + 60
BYTES_AN_OLD_CYCLE = 10_000
BYTES_A_WHOLE_CYCLE = 120_000


def opened(path: Path) -> Ledger:
    """A ledger that does not wait for the disk."""
    ledger = Ledger(path)
    ledger._db.execute("PRAGMA synchronous=OFF")
    return ledger


def answers(ledger: Ledger, life: Life) -> dict[str, Any]:
    """All that decisions rest on, and what is shown of each cycle."""
    assert life.champion is not None
    return {
        "sides": ledger.recorded_splits(),
        "learned": ledger.learned(life.champion),
        "trained": ledger.trained_groups([life.champion]),
        "total": ledger.trained_in(ledger.lineage(life.champion)),
        "seen": ledger.seen(life.champion),
        "summaries": ledger.summaries(),
        "states": ledger.own_by_state(),
        "standing": ledger.active(),
    }


def rows(path: Path, query: str) -> int:
    """One number, read beside the ledger."""
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute(query).fetchone()[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Life]:
    """A ledger in which nothing was compacted, its answers, and the truth."""
    path = tmp_path_factory.mktemp("whole") / "state.db"
    ledger = opened(path)
    life = live(ledger, DAYS, lambda _ledger, _number: None)
    told = answers(ledger, life)
    ledger.close()
    return path, told, life


def test_compacted_answers_are_the_same(tmp_path: Path, whole: tuple[Path, dict[str, Any], Life]) -> None:
    """Compacted after each of the cycles, the ledger gives every answer that it gave before, and they are true."""
    ledger = opened(tmp_path / "state.db")
    life = live(ledger, DAYS, lambda ledger, _number: ledger.compact())
    told = answers(ledger, life)
    assert told == whole[1]
    assert {group for group, is_held in told["sides"].items() if is_held} == life.held
    assert {group for group, is_held in told["sides"].items() if not is_held} == life.trained
    assert told["learned"] == life.learned
    ledger.close()
    assert rows(tmp_path / "state.db", "SELECT count(*) FROM cycles WHERE trained IS NOT NULL") == DAYS - KEPT_WHOLE


def test_ledger_size_is_bounded(tmp_path: Path, whole: tuple[Path, dict[str, Any], Life]) -> None:
    """An old cycle has the row of each experience once and no list of the buffer; its space is given back."""
    path = tmp_path / "state.db"
    ledger = opened(path)
    live(ledger, DAYS, lambda ledger, _number: ledger.compact())
    ledger.close()
    old = DAYS - KEPT_WHOLE
    in_old = "SELECT count(*) FROM placements JOIN cycles USING(cycle) WHERE cycles.trained IS NOT NULL"
    assert rows(path, in_old) <= old * NEW_A_DAY
    assert rows(path, f"SELECT max(length(seen)) FROM cycles WHERE cycle <= {old}") == 0
    assert rows(path, "PRAGMA freelist_count") == 0
    assert rows(path, "PRAGMA auto_vacuum") == 2
    assert path.stat().st_size < KEPT_WHOLE * BYTES_A_WHOLE_CYCLE + old * BYTES_AN_OLD_CYCLE
    assert path.stat().st_size < whole[0].stat().st_size
    assert HELD_OUT > NEW_A_DAY, "else there is nothing that could go"


def test_older_ledger_is_compacted_once(tmp_path: Path, whole: tuple[Path, dict[str, Any], Life]) -> None:
    """Brought up from the schema before, an old ledger becomes small at once and gives the same answers."""
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(whole[0])) as source, closing(sqlite3.connect(path)) as older:
        source.backup(older)
        for table in ("served", "looks", "bands", "unbanded"):
            older.execute(f"DROP TABLE {table}")
        older.execute("DROP INDEX screenings_by_time")
        older.execute("DROP INDEX cycles_whole")
        older.execute("DROP INDEX placements_by_conversation")
        older.execute("ALTER TABLE placements DROP COLUMN conversation")
        for column in ("trained", "replayed", "held_out", "rival"):
            older.execute(f"ALTER TABLE cycles DROP COLUMN {column}")
        for column in ("rules", "personal", "said_at"):
            older.execute(f"ALTER TABLE screenings DROP COLUMN {column}")
        older.execute("PRAGMA auto_vacuum=NONE")
        older.execute("PRAGMA user_version=3")
        older.commit()
        older.execute("VACUUM")
    before = path.stat().st_size
    ledger = opened(path)
    assert answers(ledger, whole[2]) == whole[1]
    ledger.close()
    assert (rows(path, "PRAGMA user_version"), rows(path, "PRAGMA auto_vacuum")) == (SCHEMA_VERSION, 2)
    assert path.stat().st_size < 0.8 * before


FIRST_WHOLE = 7
CYCLES = {
    1: State.PROMOTED,
    2: State.REJECTED,
    3: State.PROMOTED,  # the champion
    4: State.PROMOTED,  # rolled back
    5: State.SUSPENDED,
    6: State.REJECTED,
    FIRST_WHOLE: State.REJECTED,
    FIRST_WHOLE - 1 + KEPT_WHOLE: State.REJECTED,
}
STAYS, GOES = True, False
PLACEMENTS = [
    # Replayed: goes where the same content was trained.
    (1, 10, "train", STAYS),
    (2, 10, "replay", GOES),
    (2, 11, "replay", STAYS),
    # Held out: goes where a newer cycle held it out, or any used it otherwise.
    (1, 12, "holdout", GOES),
    (2, 12, "holdout", STAYS),
    (1, 13, "train", STAYS),
    (2, 13, "holdout", GOES),
    # Trained: goes where a newer cycle trained it, unless it was promoted.
    (2, 14, "train", GOES),
    (6, 14, "train", STAYS),
    (1, 15, "train", STAYS),
    (6, 15, "train", STAYS),
    # Of a cycle that stays whole nothing goes.
    (3, 10, "replay", STAYS),
    (5, 10, "replay", STAYS),
    (FIRST_WHOLE, 10, "replay", STAYS),
]
REPORT = {
    "trained": 8,
    "holdout": [1],
    "replies": [1],
    "notices": [1],
    "evidence": {"probe_replies": [1], "recall": [1], "relevance": {"prompts": 4, "losses": [1]}},
}
VERDICT = {"outcome": "promoted", "figures": [{"name": "drift", "value": 0.1}, {"name": "holdout", "value": 0.5}]}


def test_what_goes_by_cases(tmp_path: Path) -> None:
    """Which cycles are compacted, which rows and lists of these go, and that the counts are those of before."""
    ledger = opened(tmp_path / "state.db")
    database = ledger.database
    for cycle, state in CYCLES.items():
        database.execute(
            "INSERT INTO cycles(cycle, state, started_at, strategy, is_forced, is_rolled_back, seen, report, verdict) "
            "VALUES(?, ?, '', '', 0, ?, X'00', ?, ?)",
            (cycle, state, cycle == 4, json.dumps(REPORT).encode(), json.dumps(VERDICT).encode()),
        )
    for cycle, group, role, _ in PLACEMENTS:
        row = (cycle, f"e{group}", group, group, role)
        database.execute("INSERT INTO placements(cycle, id, key, grp, role) VALUES(?, ?, ?, ?, ?)", row)
    ledger.compact()
    counts = "SELECT cycle, trained, replayed, held_out FROM cycles WHERE trained IS NOT NULL"
    assert sorted(database.execute(counts)) == [(1, 3, 0, 1), (2, 1, 2, 2), (4, 0, 0, 0), (6, 2, 0, 0)]
    left = [row[:3] for row in PLACEMENTS if row[3]]
    assert sorted(database.execute("SELECT cycle, grp, role FROM placements")) == sorted(left)
    for cycle, seen, report, verdict in database.execute("SELECT cycle, seen, report, verdict FROM cycles"):
        is_compact = cycle in (1, 2, 4, 6)
        assert seen == (b"" if is_compact else b"\0")
        emptied = {"probe_replies": [], "recall": [], "relevance": {"prompts": 4, "losses": []}}
        short = REPORT | {"holdout": [], "replies": [], "notices": [], "evidence": emptied}
        assert json.loads(report) == (short if is_compact else REPORT)
        figures = VERDICT["figures"][:1] if is_compact else VERDICT["figures"]
        assert json.loads(verdict) == VERDICT | {"figures": figures}


def test_compacted_cycle_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ledger dropped of a cycle is read in its checkpoint: ids, report, and the buffer of that time."""
    stage = Stage(tmp_path)
    stage.make_champions(12, 24, 36)

    async def read(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        parts = sleeper.parts.ledger, sleeper.parts.checkpoints
        return detail(sleeper.reader, 1), assignments_of(1, *parts), evaluation_of(1, *parts), seen_by(1, *parts)

    before = stage.play(read)
    _compact_all(stage, monkeypatch)
    shown, placed, report, seen = stage.play(read)
    assert shown == before[0]
    assert {(each.id, each.role) for each in placed} == {(each.id, each.role) for each in before[1]}
    assert (report, seen) == (before[2], before[3])
    (stage.state / "cycle_001" / "lineage.json").unlink()
    with pytest.raises(CheckpointInvalid, match="lineage"):
        stage.play(read)


def _compact_all(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a hundred cycles had followed."""
    statements = tuple(statement.replace(f"- {KEPT_WHOLE}", "- 1") for statement in STATEMENTS)
    monkeypatch.setattr("sleepd.store.sqlite.ledger.STATEMENTS", statements)
    ledger = Ledger(stage.state / "state.db")
    ledger.compact()
    assert [ledger.is_compact(cycle) for cycle in (1, 2, 3)] == [True, True, False]
    ledger.close()
