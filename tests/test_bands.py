"""Tests that the index of sketches finds what a comparison with all sketches finds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sleepd.quarantine import bands
from sleepd.quarantine.near_duplicates import MOST_COMPARED, Neighbours, Screened, bands_of
from sleepd.quarantine.screening_table import Screenings
from sleepd.store.sqlite.ledger import Ledger

AT = datetime(2026, 11, 28, tzinfo=UTC)
WORDS = [number.to_bytes(4, "little") for number in range(1, 40)]
"""Hashes: so few that most are in many sketches."""


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Screenings]:
    """Of an empty ledger."""
    ledger = Ledger(tmp_path / "state.db")
    yield Screenings(ledger.database)
    ledger.close()


def found(key: int, signature: bytes) -> Screened:
    return Screened(key=key, group=key, id=f"{key:x}", said_under=None, reason="", detail="", signature=signature)


def sketch(chance: random.Random) -> bytes:
    """Some hashes, the smallest first."""
    return b"".join(sorted(chance.sample(WORDS, chance.randint(1, 8)), key=lambda each: int.from_bytes(each, "little")))


def answers(neighbours: Neighbours, later: list[tuple[int, bytes]]) -> list[tuple[int, float] | None]:
    """What each is a near-duplicate of; those that are of none are compared with, as the screening does."""
    told = []
    for key, signature in later:
        told.append(neighbours.find(key, signature))
        if told[-1] is None:
            neighbours.add(key, signature)
    return told


@pytest.mark.parametrize("at_once", [1, 40, 200], ids=["alone", "few", "many"])
def test_asked_ones_are_as_all(table: Screenings, at_once: int) -> None:
    """Of hundreds that share hashes, some of them rewritten or removed, the same original is found with the same share.

    However many were recorded together, and though more share a hash than are compared.
    """
    chance = random.Random(at_once)
    earlier = [found(chance.getrandbits(64), sketch(chance)) for _ in range(600)]
    rewritten = [found(one.key, sketch(chance)) for one in earlier[200:400]]
    emptied = [found(one.key, b"") for one in earlier[400:430]]
    for number, some in enumerate((earlier, rewritten, emptied)):
        for start in range(0, len(some), at_once):
            table.record(some[start : start + at_once], at=AT + timedelta(days=number, seconds=start))
        if number == 0:
            assert table.trim(520)
        while table.bands.catch_up():
            pass
    later = [(chance.getrandbits(64), sketch(chance)) for _ in range(200)] + [(earlier[500].key, sketch(chance))]
    barred = {one.key for one in earlier[300:350]}
    whole = Neighbours()
    kept = [(key, signature) for page in table.signatures() for key, signature in page if key not in barred]
    for key, signature in kept:
        whole.add(key, signature)
    for word in WORDS:
        sharing = [pair for pair in kept if word in bands_of(pair[1])]
        assert table.bands.sharing([word], barred.__contains__) == sharing[-MOST_COMPARED:]
    asking = Neighbours(lambda some: table.bands.sharing(some, barred.__contains__))
    told = answers(whole, later)
    assert told == answers(asking, later)
    assert len(kept) > 4 * MOST_COMPARED
    assert 0 < told.count(None) < len(told)


def test_few_sketches_wait_for_nothing(table: Screenings) -> None:
    """A few are found as soon as they are recorded; many are found once they were put in, step by step."""
    table.record([found(5, WORDS[0])], at=AT)
    assert table.bands.sharing([WORDS[0]], {0}.__contains__) == [(5, WORDS[0])]
    assert table.bands.sharing([WORDS[0]], {5}.__contains__) == []
    table.record([found(number, WORDS[0]) for number in range(10, 11 + bands.FEW)], at=AT)
    assert len(table.bands.sharing([WORDS[0]], {0}.__contains__)) == 1
    assert [table.bands.catch_up(), table.bands.catch_up()] == [True, False]
    assert len(table.bands.sharing([WORDS[0]], {0}.__contains__)) == MOST_COMPARED


def test_removed_sketches_take_no_space(table: Screenings) -> None:
    """Where rows are removed, the index is made anew of those that stay."""
    for number in range(6):
        table.record([found(number, WORDS[number])], at=AT + timedelta(seconds=number))
    assert table.trim(2)
    assert table.bands.catch_up()
    rows = table._db.execute("SELECT hash, key FROM bands ORDER BY key")
    assert rows == [(WORDS[4], 4), (WORDS[5], 5)]


def test_oldest_come_first(table: Screenings) -> None:
    """All keys come by their time, each once, however many pages they fill."""
    for number in range(3):
        page = [found(2**63 + 1500 * number + each, b"") for each in range(1500)]
        table.record(page, at=AT - timedelta(seconds=number))
    listed = [pair for page in table.oldest_first() for pair in page]
    assert [at for _, at in listed] == sorted(at for _, at in listed)
    assert sorted(key for key, _ in listed) == list(range(2**63, 2**63 + 4500))
