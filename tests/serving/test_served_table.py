"""Tests of the ledger's table of what an engine was proved to run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sleepd.store.sqlite import served
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.served import ServedTable

START = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)


@pytest.fixture
def table(tmp_path: Path) -> ServedTable:
    return ServedTable(Ledger(tmp_path / "state.db").database)


def minutes(number: float) -> datetime:
    return START + timedelta(minutes=number)


def prove(table: ServedTable, cycle: int | None, at: float) -> None:
    table.note_proof(cycle, at=minutes(at), distance=0.08, next_nearest=0.58)


def test_same_proof_prolongs_a_span(table: ServedTable) -> None:
    """Two proofs of one generation are one span with the moment of the second."""
    prove(table, 7, 0)
    prove(table, 7, 60)

    (span,) = table.spans(limit=5)
    assert (span.cycle, span.since, span.proved_at, span.until, span.proofs) == (7, START, minutes(60), None, 2)
    assert (span.distance, span.next_nearest) == (0.08, 0.58)


def test_proof_returns_the_open_span(table: ServedTable) -> None:
    """A proof answers with the span that it began or prolonged, and with its own distances."""
    prove(table, 7, 0)
    found = table.note_proof(7, at=minutes(60), distance=0.02, next_nearest=None)
    assert (found.since, found.proofs, found.distance, found.next_nearest) == (START, 2, 0.02, None)


def test_exchange_ends_a_span(table: ServedTable) -> None:
    """A span ends when the exchange begins, and none is open until the next proof."""
    prove(table, None, 0)
    table.end_span(at=minutes(10))

    assert table.open_span() is None
    assert table.last().until == minutes(10)
    prove(table, 1, 12)
    assert [(each.cycle, each.until) for each in table.spans(limit=5)] == [(1, None), (None, minutes(10))]


def test_unknown_end_is_the_last_proof(table: ServedTable) -> None:
    """Where another generation is found, the span before it is known to have lasted until its last proof only."""
    prove(table, 1, 0)
    prove(table, 1, 60)
    prove(table, None, 120)
    assert [(each.cycle, each.until) for each in table.spans(limit=5)] == [(None, None), (1, minutes(60))]

    table.end_span(at=None)
    assert table.last().until == minutes(120)


def test_spans_of_one_cycle(table: ServedTable) -> None:
    """The spans of a cycle are found alone; 0 finds those of the base."""
    for at, cycle in enumerate((None, 1, None, 1, 2)):
        prove(table, cycle, at)
    assert [len(table.spans_of(cycle)) for cycle in (0, 1, 2, 3)] == [2, 2, 1, 0]


def test_table_stays_bounded(table: ServedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """More spans than ``KEPT`` are never kept, and the newest stay."""
    monkeypatch.setattr(served, "KEPT", 5)
    for at in range(9):
        prove(table, at % 2, at)
    spans = table.spans(limit=-1)
    assert (len(spans), spans[0].since) == (5, minutes(8))


def test_found_before_swap_prolongs_span(table: ServedTable) -> None:
    """What is asked before a swap lengthens the open span where it is the same, and ends it at its last proof else."""
    prove(table, 7, 0)
    numbers = table.proofs()
    table.note_found(7, at=minutes(50))
    assert (table.last().proved_at, table.last().until, table.last().proofs) == (minutes(50), None, 2)
    assert table.proofs() != numbers

    table.note_found(None, at=minutes(55))
    table.end_span(at=minutes(60))
    assert (table.last().proved_at, table.last().until) == (minutes(50), minutes(50))
