"""Tests that a buffer that is counted again and again is counted as it would be once."""

from __future__ import annotations

import math
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleepd.buffer.columns import BufferColumns
from sleepd.policy.selecting import holdout, tally
from sleepd.policy.selecting.selection import Counts, Excluded, HashSet, Known
from sleepd.policy.selecting.tally import Tally

SECRET = b"s" * 32
Row = tuple[int, int, float, int]
"""Key, conversation, salience, and whether it bears a mark."""
ROWS = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 40), st.sampled_from([-1.0, 0.5, 0.6, 0.9]), st.integers(0, 1)),
    unique_by=lambda row: row[0],
    max_size=60,
)
SETS = st.frozensets(st.integers(0, 200), max_size=60)


def buffer_of(rows: list[Row]) -> BufferColumns:
    keys, conversations, saliences, marked = zip(*rows, strict=True) if rows else ((), (), (), ())
    return BufferColumns(
        keys=array("Q", keys),
        groups=array("Q", (key + 1000 for key in keys)),
        saliences=array("d", saliences),
        conversations=array("Q", conversations),
        given=array("B", bytes(len(rows))),
        marked=array("B", marked),
    )


def counted_plainly(rows: list[Row], known: Known, least: float, excluded: Excluded) -> tuple[Counts, list[int]]:
    """Row by row, with the functions that decide which conversations are held out."""
    usable = [row for row in rows if row[2] >= least and row[0] not in excluded.keys]
    held = holdout.divide([row[1] for row in usable], known.splits, SECRET)
    held -= holdout.released([row[1] for row in usable if row[1] in held], known.splits)
    unlearned = [row[0] for row in usable if row[1] not in held and row[0] not in known.learned]
    new = [row for row in rows if row[0] not in known.seen]
    weighed = [row for row in new if row[0] not in excluded.keys and row[2] >= 0]
    counts = Counts(
        total=len(rows),
        new=len(new),
        eligible=len(usable),
        unlearned=len(unlearned),
        held_out=sum(row[1] in held for row in usable),
        quarantined=len(excluded.keys),
        new_salience=math.fsum(row[2] for row in weighed) / len(weighed) if weighed else None,
        most_salient_new=max((row[2] for row in weighed), default=0.0),
        marked_new=sum(row[3] for row in weighed),
    )
    return counts, unlearned


@settings(max_examples=150)
@given(
    st.lists(st.tuples(ROWS, st.integers(0, 60), st.integers(0, 60), SETS), min_size=1, max_size=5),
    st.lists(st.tuples(SETS, SETS, st.dictionaries(st.integers(0, 40), st.booleans())), min_size=1, max_size=2),
    st.sampled_from([0.0, 0.6]),
)
def test_tally_counts_as_once(steps: list[Any], pasts: list[Any], least: float) -> None:
    """Whatever is put in, dropped, excluded, weighed anew or learned between two counts, each is that of the whole."""
    one, rows = Tally(), list[Row]()
    knowns = [
        Known(seen=HashSet(seen), learned=HashSet(learned), splits=splits, secret=SECRET)
        for seen, learned, splits in pasts
    ]
    for number, (added, place, dropped, barred) in enumerate(steps):
        rows = rows[dropped % 3 :] if dropped < 30 else rows
        before = {row[0]: row for row in rows}
        others = [row for row in added if row[0] not in before]
        rows = [*rows[:place], *others, *rows[place:]]
        weighed = {row[0]: row[2] for row in added}
        rows = [(key, conversation, weighed.get(key, each), mark) for key, conversation, each, mark in rows]
        known, excluded = knowns[min(number, len(knowns) - 1)], Excluded(keys=HashSet(barred))
        counts, unlearned = one.count(buffer_of(rows), known=known, min_salience=least, excluded=excluded)
        assert (counts, list(unlearned)) == counted_plainly(rows, known, least, excluded)


def test_one_row_is_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more row costs one keyed hash, though the oldest is dropped; so does one that is put in between."""
    hashed: list[int] = []

    def noting(group: int, secret: bytes) -> bool:
        hashed.append(group)
        return group % 5 == 0

    monkeypatch.setattr(tally.holdout, "is_held_out", noting)
    known = Known(seen=HashSet(), learned=HashSet(), splits={}, secret=SECRET)
    one, rows = Tally(), [(number, number, 0.7, 0) for number in range(50)]
    for given_rows, fresh in (
        (rows, 50),
        ([*rows[1:], (50, 50, 0.7, 0)], 1),
        ([*rows[1:20], (51, 51, 0.7, 0), *rows[20:], (50, 50, 0.7, 0)], 1),
        ([*rows[1:20], (51, 51, 0.9, 0), *rows[20:], (50, 50, 0.7, 0)], 0),
    ):
        hashed.clear()
        one.count(buffer_of(given_rows), known=known, min_salience=0.6, excluded=Excluded(keys=HashSet()))
        assert len(hashed) == fresh


@settings(max_examples=150)
@given(ROWS, ROWS, st.integers(0, 60), st.integers(0, 60))
def test_spans_hold_same_rows(rows: list[Row], more: list[Row], place: int, dropped: int) -> None:
    """Rows that two spans name are the same in both columns, none is named twice, and one gap misses none."""
    more = [row for row in more if row[0] not in {key for key, *_ in rows}]
    left = rows[dropped:]
    grown = [*left[:place], *more, *left[place:]]
    new, old = buffer_of(grown), buffer_of(rows)
    spans = new.spans_of(old)
    named = [(span.here + step, span.there + step) for span in spans for step in range(span.rows)]
    assert all(grown[here][:2] == rows[there][:2] for here, there in named)
    assert len({here for here, _ in named}) == len({there for _, there in named}) == len(named)
    if not left or place:
        assert len(named) == len(left), "the first row tells how many were dropped"
