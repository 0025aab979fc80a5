"""Tests of the ledger's notes: each has one declaration, and what older versions wrote is still understood."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sleepd.errors import LedgerUnusable
from sleepd.protocol.verdict import Comparison
from sleepd.store.legacy_formats import SchedulerState
from sleepd.store.sqlite import notes
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.notes import (
    AdoptedStrategy,
    AlarmSpan,
    Crashes,
    Demoted,
    FoundComparison,
    Misfit,
    Note,
    ServeAttempt,
    comparison_note,
)

PACKAGE = Path(__file__).parent.parent / "sleepd"
AT = datetime(2026, 1, 10, 6, tzinfo=UTC)

WRITTEN: list[tuple[Note[Any], str, Any]] = [
    (notes.PAUSED, "true", True),
    (notes.ALARMS, '["overdue"]', ["overdue"]),
    (
        notes.PAST_ALARMS,
        '[{"name":"overdue","text":"a sleep is due","since":"2026-01-10T06:00:00Z"}]',
        [AlarmSpan(name="overdue", text="a sleep is due", since=AT)],
    ),
    (notes.DUE_SINCE, '"2026-01-10T06:00:00+00:00"', AT),
    (notes.CRASHES, '{"cycle":3,"count":2,"at":"2026-01-10T06:00:00Z"}', Crashes(3, 2, AT)),
    (notes.IMPORTED_STATE, "{}", SchedulerState()),
    (notes.IMPORTED_SEEN, "[1,18446744073709551615]", [1, 2**64 - 1]),
    (notes.BASE_CHANGED, '["embedded",3,"other weights"]', Misfit("embedded", 3, "other weights")),
    (notes.ADOPTED_UNFIT, '["embedded",null,"other shape"]', Misfit("embedded", None, "other shape")),
    (
        notes.ADOPTED_STRATEGY,
        '{"configured":"consolidate","adopted":"careful","text":"better in 6 pairs","at":"2026-01-10T06:00:00Z"}',
        AdoptedStrategy(configured="consolidate", adopted="careful", text="better in 6 pairs", at=AT),
    ),
    (
        notes.DEMOTION,
        '{"champion":3,"reason":"worse","at":"2026-01-10T06:00:00Z","found_by":4,"is_done":true}',
        Demoted(champion=3, reason="worse", at=AT, found_by=4, is_done=True),
    ),
    (
        notes.SERVE_ATTEMPT,
        '{"key":"3 agent","result":"unreachable","text":"no answer","hint":"start it","at":"2026-01-10T06:00:00Z"}',
        ServeAttempt(key="3 agent", result="unreachable", text="no answer", hint="start it", at=AT),
    ),
]
"""Each declared note, as an earlier version wrote it, and what it means."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "state.db")
    yield opened
    opened.close()


def write(ledger: Ledger, name: str, text: str) -> None:
    """What another version left."""
    with ledger.database.transaction():
        ledger.database.execute("INSERT OR REPLACE INTO notes VALUES(?,?)", (name, text.encode()))


def test_every_declared_note_is_tested_here() -> None:
    """The table above holds each note of the module once, and no two share a name."""
    declared = [value for value in vars(notes).values() if isinstance(value, Note)]
    assert [note for note, _, _ in WRITTEN] == declared
    assert len({note.name for note in declared}) == len(declared)


@pytest.mark.parametrize(("note", "text", "value"), WRITTEN, ids=[note.name for note, _, _ in WRITTEN])
def test_a_note_keeps_its_form(ledger: Ledger, note: Note[Any], text: str, value: Any) -> None:
    """What an earlier version wrote is understood, what is written now is read back, and None takes it away."""
    assert ledger.note(note) is None
    write(ledger, note.name, text)
    assert ledger.note(note) == value
    ledger.set_note(note, value)
    assert ledger.note(note) == value
    ledger.set_note(note, None)
    assert ledger.note(note) is None


def test_each_champion_has_its_comparison(ledger: Ledger) -> None:
    """The note of one champion is not that of another, and stands as a pair, as it always did."""
    worse = Comparison(champion=3, predecessor=2, outcome="worse", gain=None, reason="later ones say so")
    found = FoundComparison(worse, 5)
    ledger.set_note(comparison_note(3), found)
    assert ledger.note(comparison_note(3)) == found
    assert ledger.note(comparison_note(4)) is None
    stored = ledger.database.execute("SELECT value FROM notes WHERE name='comparison_3'").fetchone()[0]
    assert stored.startswith(b'[{"outcome":"worse"')
    assert stored.endswith(b",5]")


def test_note_of_other_form_is_named(ledger: Ledger) -> None:
    """A newer version's form is an error that names the note and says what to install."""
    write(ledger, notes.CRASHES.name, '"many"')
    with pytest.raises(LedgerUnusable, match="note crashes is not") as caught:
        ledger.note(notes.CRASHES)
    assert "install" in caught.value.hint


def test_the_named_module_writes_the_note() -> None:
    """Each declaration names the one module that sets the note, in its own words."""
    body = ast.parse((PACKAGE / "store" / "sqlite" / "notes.py").read_text()).body
    named = {
        declared.target.id: re.findall(r"Written by ``([\w.]+)``", ast.unparse(text))
        for declared, text in pairwise(body)
        if isinstance(declared, ast.AnnAssign) and isinstance(declared.target, ast.Name)
    }
    written: dict[str, set[str]] = {name: set() for name in named}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in re.findall(r"\bset_note\(([A-Z_]+),", path.read_text()):
            written.setdefault(name, set()).add(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    assert {name: set(modules) for name, modules in named.items()} == written


def test_notes_are_declared_in_one_module() -> None:
    """No other module makes a note of its own."""
    makers = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).partition("[")[0].rpartition(".")[2] == "Note"
    ]
    assert set(makers) == {"store/sqlite/notes.py"}
