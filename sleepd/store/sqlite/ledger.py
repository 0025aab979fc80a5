"""The ledger: every cycle, where each experience went in it, every changed decision. Nothing else opens its database.

Every method is one transaction, durable when it returns (WAL with ``synchronous=FULL``). ``plan`` is called before a
worker exists; each later step of a cycle goes through :func:`sleepd.cycle.advance`, so that an illegal one changes
nothing. An experience is known by its 64-bit key (``id_hash``); SQLite's integers are signed, and so are these.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from sleepd.cycle import JUDGED_STATES, TERMINAL_STATES, Event, State, advance
from sleepd.errors import NotFound
from sleepd.policy.selecting.selection import Splits
from sleepd.policy.timing.triggers import Decision
from sleepd.protocol.job import Report
from sleepd.protocol.verdict import Verdict

from .compaction import STATEMENTS
from .database import as_list, open_database, signed, unsigned
from .ledger_rows import (
    ASSIGNMENT_COLUMNS,
    IS_AMONG,
    IS_OWN,
    SPLIT_QUERIES,
    SUMMARY_COLUMNS,
    CycleRecord,
    Plan,
    RecordedDecision,
    SplitAssignment,
    as_assignment,
    as_recorded_decision,
    of_several,
    summarise,
)
from .notes import Note
from .pairs import IS_NO_SECOND, RIVAL_HAS_NO_VERDICT, resumable

KEPT_DECISIONS = 1000

_T = TypeVar("_T")


class Ledger:
    """The open ledger of one state directory.

    Raises:
        LedgerUnusable: it cannot be opened; from every method: the disk failed, and nothing has changed.
    """

    def __init__(self, path: Path) -> None:
        self.database = self._db = open_database(path)

    def close(self) -> None:
        """Close the database; the ledger is of no use afterwards."""
        self._db.close()

    # --- the life of a cycle ---

    def plan(self, *plans: Plan) -> None:
        """Record planned cycles, both of a pair or none, with the place of every experience in them."""
        with self._db.transaction():
            for plan in plans:
                self._db.execute(
                    "INSERT INTO cycles(cycle, state, started_at, parent, strategy, is_forced, rival, seen) "
                    "VALUES(?,?,?,?,?,?,?,?)",
                    (plan.cycle, State.PLANNED, plan.started_at.isoformat(), *plan.terms, plan.seen.tobytes()),
                )
                self._insert_assignments(plan.cycle, plan.assignments)

    def _insert_assignments(self, cycle: int, places: Sequence[SplitAssignment]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO placements(cycle, id, key, grp, role, conversation) VALUES(?,?,?,?,?,?)",
            ((cycle, p.id, signed(p.key), signed(p.group), p.role, of_several(p)) for p in places),
        )

    def restore(
        self, summary: CycleRecord, report: Report, verdict: Verdict, rows: Sequence[SplitAssignment], seen: array[int]
    ) -> None:
        """Record a judged cycle as a whole, as a checkpoint has it."""
        self.plan(
            Plan(
                cycle=summary.cycle,
                started_at=summary.started_at,
                parent=summary.parent,
                strategy=summary.strategy,
                is_forced=summary.is_forced,
                assignments=rows,
                rival=summary.rival,
                seen=seen,
            )
        )
        assert summary.ended_at is not None
        ended_at, judged = summary.ended_at.isoformat(), (msgspec.json.encode(report), msgspec.json.encode(verdict))
        with self._db.transaction():
            self._db.execute(
                "UPDATE cycles SET state=?, ended_at=?, is_rolled_back=?, reason=?, report=?, verdict=? WHERE cycle=?",
                (summary.state, ended_at, summary.is_rolled_back, summary.reason, *judged, summary.cycle),
            )

    def assign_adopted(self, cycle: int, places: Sequence[SplitAssignment]) -> None:
        """Note what an older trainer's cycle may have been trained on; it is no cycle of ours."""
        with self._db.transaction():
            self._insert_assignments(cycle, places)

    def advance(
        self,
        cycle: int,
        event: Event,
        *,
        at: datetime,
        reason: str | None = None,
        hint: str | None = None,
        report: Report | None = None,
        verdict: Verdict | None = None,
    ) -> State:
        """Take the cycle one step along its table; returns its new state.

        Raises:
            IllegalTransition: the table has no such step; nothing is recorded.
            NotFound: there is no such cycle.
        """
        with self._db.transaction():
            state = advance(self.state(cycle), event)
            ended_at = at.isoformat() if state in TERMINAL_STATES else None
            documents = (msgspec.json.encode(one) if one else None for one in (report, verdict))
            self._db.execute(
                "UPDATE cycles SET state=?, ended_at=?, reason=coalesce(?,reason), hint=coalesce(?,hint), "
                "report=coalesce(?,report), verdict=coalesce(?,verdict) WHERE cycle=?",
                (state, ended_at, reason, hint, *documents, cycle),
            )
        return state

    def state(self, cycle: int) -> State:
        """Where the cycle stands.

        Raises:
            NotFound: there is no such cycle.
        """
        row = self._db.execute("SELECT state FROM cycles WHERE cycle=?", (cycle,)).fetchone()
        if row is None:
            raise NotFound(f"there is no cycle {cycle}", hint="sleepctl history lists the cycles")
        return State(row[0])

    def mark_rolled_back(self, cycles: Iterable[int], *, is_rolled_back: bool) -> None:
        """Note that champions were rolled back, or activated again."""
        with self._db.transaction():
            rows = ((is_rolled_back, cycle) for cycle in cycles)
            self._db.executemany("UPDATE cycles SET is_rolled_back=? WHERE cycle=?", rows)

    def compact(self) -> None:
        """Drop of old cycles what no later decision rests on, and give the space back; see ``compaction``."""
        with self._db.transaction():
            for statement in STATEMENTS:
                self._db.execute(statement)
        self._db.give_back()

    # --- what is known of cycles ---

    def summaries(self, *, limit: int = -1, before: int | None = None) -> list[CycleRecord]:
        """The cycles (below ``before``), newest first; a negative limit: all."""
        return self._summarised("WHERE cycle<? ORDER BY cycle DESC LIMIT ?", before or 2**62, limit)

    def summary(self, cycle: int) -> CycleRecord:
        """One cycle in a line.

        Raises:
            NotFound: there is no such cycle.
        """
        self.state(cycle)
        row = self._db.execute(f"SELECT {SUMMARY_COLUMNS} FROM cycles WHERE cycle=?", (cycle,)).fetchone()  # noqa: S608
        return summarise(row, self._placed(cycle))

    def _summarised(self, condition: str, *parameters: object) -> list[CycleRecord]:
        """One after the other: the reports of all would take more memory than the daemon itself."""
        rows = self._db.execute(f"SELECT cycle FROM cycles {condition}", parameters)  # noqa: S608
        return [self.summary(row[0]) for row in rows]

    def _placed(self, cycle: int) -> dict[str, int]:
        """How many experiences it has in each role."""
        kept = self._db.execute("SELECT trained, replayed, held_out FROM cycles WHERE cycle=?", (cycle,)).fetchone()
        if kept[0] is not None:
            return dict(zip(("train", "replay", "holdout"), kept, strict=True))
        return dict(self._db.execute("SELECT role, count(*) FROM placements WHERE cycle=? GROUP BY role", (cycle,)))

    def is_compact(self, cycle: int) -> bool:
        """Whether only that is kept of it which later decisions rest on; see ``compaction``."""
        return bool(self._number("SELECT count(trained) FROM cycles WHERE cycle=?", cycle))

    def report(self, cycle: int) -> Report | None:
        """What the worker reported; None: it did not come so far."""
        row = self._db.execute("SELECT report FROM cycles WHERE cycle=?", (cycle,)).fetchone()
        return msgspec.json.decode(row[0], type=Report) if row and row[0] else None

    def verdict(self, cycle: int) -> Verdict | None:
        """What was decided about it; None: nothing was, or an older version decided it and kept only the reason."""
        row = self._db.execute("SELECT verdict FROM cycles WHERE cycle=?", (cycle,)).fetchone()
        return msgspec.json.decode(row[0], type=Verdict) if row and row[0] else None

    def assignments(self, cycle: int) -> list[SplitAssignment]:
        """Where each experience went in that cycle."""
        rows = self._db.execute(f"SELECT {ASSIGNMENT_COLUMNS} FROM placements WHERE cycle=?", (cycle,))  # noqa: S608
        return [as_assignment(row) for row in rows.fetchall()]

    def seen(self, cycle: int) -> array[int]:
        """Keys of the whole buffer when that cycle was planned."""
        row = self._db.execute("SELECT seen FROM cycles WHERE cycle=?", (cycle,)).fetchone()
        return array("Q", row[0] if row else b"")

    def open_cycles(self) -> list[int]:
        """Cycles that have not ended, oldest first."""
        rows = self._db.execute("SELECT cycle, state FROM cycles ORDER BY cycle")
        return [cycle for cycle, state in rows if State(state) not in TERMINAL_STATES]

    def suspended_cycle(self) -> int | None:
        """The interrupted cycle that may be resumed, or the first one of a pair; None: there is none."""
        return resumable(self._db)

    def highest_cycle(self) -> int:
        """The highest cycle number in use; 0: none."""
        return self._number("SELECT max(cycle) FROM cycles")

    def begun_between(self, first: datetime, last: datetime) -> int:
        """How many cycles began in that time; a pair counts as one."""
        query = f"SELECT count(*) FROM cycles WHERE started_at BETWEEN ? AND ? AND {IS_NO_SECOND}"  # noqa: S608
        return self._number(query, first.isoformat(), last.isoformat())

    def last_judged(self) -> CycleRecord | None:
        """The newest cycle of this machine's own with a verdict."""
        return next(iter(self.judged(limit=1, is_own=True)), None)

    def judged(self, *, limit: int, is_own: bool = False) -> list[CycleRecord]:
        """The cycles with a verdict, newest first; ``is_own``: without those that judged another machine's adapter."""
        condition = f"WHERE {IS_AMONG} AND (NOT ? OR {IS_OWN}) ORDER BY cycle DESC LIMIT ?"
        return self._summarised(condition, as_list(JUDGED_STATES), is_own, limit)

    def own_by_state(self) -> dict[str, int]:
        """How many cycles of this machine's own are in each state."""
        return dict(self._db.execute(f"SELECT state, count(*) FROM cycles WHERE {IS_OWN} GROUP BY state"))  # noqa: S608

    def unjudged_in_a_row(self) -> list[CycleRecord]:
        """The cycles that ended without a verdict since the last one with, newest first."""
        last = self.last_judged()
        condition = f"WHERE {IS_AMONG} AND {IS_OWN} AND cycle>? AND {RIVAL_HAS_NO_VERDICT} ORDER BY cycle DESC"
        return self._summarised(condition, as_list(TERMINAL_STATES - JUDGED_STATES), last.cycle if last else 0)

    def promoted(self, *, above: int = 0) -> list[int]:
        """Cycles whose verdict promoted them, also those that were rolled back since; newest first."""
        query = "SELECT cycle FROM cycles WHERE state=? AND cycle>? ORDER BY cycle DESC"
        return [row[0] for row in self._db.execute(query, (State.PROMOTED, above)).fetchall()]

    def active(self) -> list[int]:
        """Champions that were not rolled back, oldest first."""
        query = "SELECT cycle FROM cycles WHERE state=? AND NOT is_rolled_back ORDER BY cycle"
        return [row[0] for row in self._db.execute(query, (State.PROMOTED,)).fetchall()]

    def lineage(self, champion: int | None) -> list[int]:
        """The champion and the cycles it continues, newest first."""
        if champion is None:
            return []
        query = (
            "WITH RECURSIVE line(cycle) AS (SELECT ? UNION SELECT parent FROM cycles JOIN line USING(cycle) "
            "WHERE parent IS NOT NULL) SELECT cycle FROM line"
        )
        return [row[0] for row in self._db.execute(query, (champion,))]

    def learned(self, champion: int | None) -> set[int]:
        """Keys of every experience trained in the champion's lineage."""
        line, found = self.lineage(champion), set[int]()
        query = "SELECT key FROM placements WHERE role='train' AND cycle IN (SELECT value FROM json_each(?))"
        for start in range(0, len(line), 100):  # not all rows are held at once
            found.update(unsigned(row[0]) for row in self._db.execute(query, (as_list(line[start : start + 100]),)))
        return found

    def trained_in(self, cycles: Iterable[int]) -> int:
        """How many experiences these cycles reported as trained, replayed ones included."""
        row = self._db.execute(
            "SELECT sum(json_extract(text, '$.trained') + json_extract(text, '$.replayed')) FROM "
            "(SELECT CAST(report AS TEXT) AS text FROM cycles WHERE cycle IN (SELECT value FROM json_each(?)))",
            (as_list(cycles),),
        ).fetchone()
        return int(row[0] or 0)

    def trained_groups(self, champions: Iterable[int]) -> set[int]:
        """Groups of every experience trained in the lineage of one of these champions."""
        cycles = {cycle for champion in champions for cycle in self.lineage(champion)}
        rows = self._db.execute(
            "SELECT DISTINCT grp FROM placements WHERE role='train' AND cycle IN (SELECT value FROM json_each(?))",
            (as_list(cycles),),
        )
        return {unsigned(row[0]) for row in rows.fetchall()}

    def recorded_splits(self) -> Splits:
        """Of every conversation that was in a cycle, whether it is held out; trained once, it never is again."""
        found = {True: array("q"), False: array("q")}
        for query in SPLIT_QUERIES:
            first = -(2**63)
            while first < 2**63 and (page := self._db.execute(query, (first,))):
                for side, is_held_out in page:
                    found[bool(is_held_out)].append(side)
                first = page[-1][0] + 1
        return Splits(*(map(unsigned, found[split]) for split in (True, False)))

    # --- decisions and notes ---

    def record_decision(self, decision: Decision, facts: msgspec.Struct, *, at: datetime) -> None:
        """Record a decision and what it rests on; old ones beyond ``KEPT_DECISIONS`` go."""
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO decisions(at, decision, facts) VALUES(?,?,?)",
                (at.isoformat(), msgspec.json.encode(decision), msgspec.json.encode(facts)),
            )
            self._db.execute(
                "DELETE FROM decisions WHERE rowid <= (SELECT max(rowid) FROM decisions) - ?", (KEPT_DECISIONS,)
            )

    def decisions(self, *, limit: int, since: datetime | None = None) -> list[RecordedDecision]:
        """The recorded decisions, newest first; those from ``since`` on."""
        first = since.astimezone(UTC).isoformat() if since else ""
        query = "SELECT at, decision, facts FROM decisions WHERE at >= ? ORDER BY rowid DESC LIMIT ?"
        return [as_recorded_decision(row) for row in self._db.execute(query, (first, limit))]

    def note(self, note: Note[_T]) -> _T | None:
        """A small fact that must survive a restart; None: it was never set, or was taken away.

        Raises:
            LedgerUnusable: what stands there is no such fact.
        """
        row = self._db.execute("SELECT value FROM notes WHERE name=?", (note.name,)).fetchone()
        return note.decode(row[0]) if row else None

    def set_note(self, note: Note[_T], value: _T | None) -> None:
        """Set such a fact; None takes it away."""
        with self._db.transaction():
            self._db.execute("INSERT OR REPLACE INTO notes VALUES(?,?)", (note.name, msgspec.json.encode(value)))

    def _number(self, query: str, *parameters: object) -> int:
        """The one number that a query gives; 0 where it gives none."""
        return int(self._db.execute(query, parameters).fetchone()[0] or 0)
