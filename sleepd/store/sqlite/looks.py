"""The facts of the daemon's polls, recorded where they changed: what a simulation of other thresholds decides anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from sleepd.policy.timing.simulation import Look
from sleepd.policy.timing.triggers import Facts

from .ledger import Ledger

KEPT_LOOKS = 10_000
"""A month of one every five minutes, at most 5 MiB."""
LEAST_APART = timedelta(minutes=5)
"""Where only counts changed."""


class Looks:
    """Of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._database = ledger.database
        self._last: Look | None = None

    def record(self, facts: Facts, *, at: datetime) -> None:
        """Record the facts, unless they are those recorded last, or differ in counts alone and come too soon.

        Raises:
            LedgerUnusable: the disk did not take it.
        """
        last = self._last
        if last is not None and _state(facts) == _state(last.facts):
            is_same = _counts(facts) == _counts(last.facts)
            if is_same or timedelta(0) <= at - last.at < LEAST_APART:
                return
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO looks(at, facts) VALUES(?,?)", (at.astimezone(UTC).isoformat(), msgspec.json.encode(facts))
            )
            self._database.execute("DELETE FROM looks WHERE rowid <= (SELECT max(rowid) FROM looks) - ?", (KEPT_LOOKS,))
        self._last = Look(at, facts)

    def spread(self, most: int) -> list[Look]:
        """At most so many of all, evenly spread, oldest first; the newest is among them."""
        rows = self._database.execute(
            "SELECT at, facts FROM looks, (SELECT max(rowid) AS last, 1 + count(*) / ? AS step FROM looks) "
            "WHERE (last - looks.rowid) % step = 0 ORDER BY looks.rowid",
            (most,),
        )
        return [Look(datetime.fromisoformat(at), msgspec.json.decode(facts, type=Facts)) for at, facts in rows]

    def since(self, moment: datetime) -> list[Look]:
        """Those from that moment on, oldest first."""
        rows = self._database.execute(
            "SELECT at, facts FROM looks WHERE at >= ? ORDER BY rowid", (moment.astimezone(UTC).isoformat(),)
        )
        return [Look(datetime.fromisoformat(at), msgspec.json.decode(facts, type=Facts)) for at, facts in rows]


def _counts(facts: Facts) -> object:
    return facts.total, facts.new, facts.trainable, facts.held_out, facts.most_salient_new, facts.marked_new


def _state(facts: Facts) -> object:
    """What may keep a sleep from starting, beside the counts."""
    problems = (facts.base_changed, facts.gpu_problem, facts.buffer_problem)
    return facts.is_paused, facts.trend, facts.trainable == 0, facts.held_out == 0, *problems
