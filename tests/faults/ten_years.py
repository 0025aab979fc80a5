"""``python tests/faults/ten_years.py [CYCLES]``: how large the ledger, and a daemon that opens it, are after ten years.

A cycle a day by direct calls of the ledger, with the rows that a real one leaves: a buffer of a thousand experiences of
which twenty are new, sixteen trained, thirty-two replayed, a hundred held out, three quarters of the cycles promoted; a
report with a pair of losses for each held-out one and the replies to twenty probes; changed decisions; screenings.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from array import array
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

sys.path.append(str(Path(__file__).parent.parent.parent))

from sleepd.cycle import Event
from sleepd.policy.judging.promotion import Gates, judge
from sleepd.policy.timing.triggers import Facts, Policy, decide
from sleepd.protocol.evidence import ProbeReply
from sleepd.protocol.job import Report
from sleepd.quarantine.near_duplicates import Screened
from sleepd.quarantine.screening_table import KEPT, Screenings
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.ledger_rows import Plan, SplitAssignment
from tests.test_promotion import report

DAYS = 3650
NEW_A_DAY, HELD_OUT, REPLAYED, BUFFER = 20, 100, 32, 1000
START = datetime(2026, 1, 1, 3, tzinfo=UTC)


class Life:
    """An agent's buffer as the ledger sees it, one day after the other."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.trained: set[int] = set()
        """Groups that were trained in some cycle, whatever became of it."""
        self.held: set[int] = set()
        """Groups that were held out and never trained."""
        self.learned: set[int] = set()
        self.champion: int | None = None
        self._random = random.Random(1)
        self._seen: deque[int] = deque(maxlen=BUFFER)
        self._holdout: deque[int] = deque(maxlen=HELD_OUT)
        self._known: list[int] = []
        self._waiting: list[int] = []
        self._report = _large_report()
        self._verdict = judge(self._report, Gates())

    def day(self, number: int) -> None:
        """One cycle and what comes with it."""
        at = START + timedelta(days=number)
        fresh = [self._random.getrandbits(64) for _ in range(NEW_A_DAY)]
        self._seen.extend(fresh)
        self._holdout.extend(fresh[:4])
        train = self._waiting + fresh[4:]
        replay = self._random.sample(self._known, min(REPLAYED, len(self._known)))
        places = [(train, "train"), (replay, "replay"), (list(self._holdout), "holdout")]
        self._screen(fresh, at)
        self._decide(number, at)
        self.ledger.plan(
            Plan(
                cycle=number,
                started_at=at,
                parent=self.champion,
                strategy="consolidate",
                is_forced=False,
                assignments=[
                    SplitAssignment(f"{key:016x}", key, key, role, key) for keys, role in places for key in keys
                ],
                seen=array("Q", self._seen),
            )
        )
        self.ledger.advance(number, Event.TRAINING_STARTED, at=at)
        self.ledger.advance(number, Event.EVALUATION_STARTED, at=at)
        done = msgspec.structs.replace(self._report, trained=len(train), replayed=len(replay))
        self.ledger.advance(number, Event.REPORT_JUDGED, at=at, reason="better", report=done, verdict=self._verdict)
        is_promoted = number % 4 != 0
        self.ledger.advance(number, Event.PROMOTE if is_promoted else Event.REJECT, at=at)
        self.trained |= {*train, *replay}
        self.held = (self.held | set(self._holdout)) - self.trained
        self._waiting = [] if is_promoted else train
        if is_promoted:
            self.champion, self.learned = number, self.learned | set(train)
            self._known = (self._known + train)[-BUFFER:]

    def _screen(self, fresh: list[int], at: datetime) -> None:
        found = [
            Screened(
                key=key,
                group=key,
                id=f"{key:016x}",
                said_under=self.champion,
                reason="",
                detail="",
                signature=self._random.randbytes(256),
            )
            for key in fresh
        ]
        screenings = Screenings(self.ledger.database)
        screenings.record(found, at=at)
        screenings.trim(KEPT + 2 * BUFFER)  # as the keeper of the quarantine does

    def _decide(self, number: int, at: datetime) -> None:
        facts = Facts(total=BUFFER, new=number % 20, hours_since_last_sleep=6.0, trainable=16, held_out=HELD_OUT)
        decision = decide(facts, Policy())
        for _ in range(3):
            self.ledger.record_decision(decision, facts, at=at)


def live(ledger: Ledger, days: int, after_each: Callable[[Ledger, int], object]) -> Life:
    """So many days; what the daemon does after a cycle is done after each."""
    life = Life(ledger)
    for number in range(1, days + 1):
        life.day(number)
        after_each(ledger, number)
    return life


def _large_report() -> Report:
    made = report(gains=[0.5 + number / 1000 for number in range(HELD_OUT)])
    text = "A reply of about a hundred words, as an agent gives it. " * 10
    replies = [
        msgspec.structs.replace(made.replies[0], id=f"{number}", prompt=text[:200], text=text) for number in range(8)
    ]
    probes = [ProbeReply(prompt=text[:200], base=text, parent=text, candidate=text) for _ in range(20)]
    evidence = msgspec.structs.replace(made.evidence, probe_replies=probes)
    return msgspec.structs.replace(made, replies=replies, evidence=evidence)


OPENED = """
import resource, sys
from pathlib import Path
import sleepd.daemon.service
from sleepd.store.sqlite.ledger import Ledger
from sleepd.quarantine.screening_table import Screenings
from sleepd.quarantine.rules import Findings
from sleepd.policy.selecting.selection import HashSet
plain = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ledger = Ledger(Path(sys.argv[1]))
champion = ledger.active()[-1]
known = ledger.summaries(limit=50), ledger.summaries(), ledger.judged(limit=-1), ledger.recorded_splits()
learned = HashSet(ledger.learned(champion)), HashSet(ledger.seen(champion))
findings = Findings()
for page in Screenings(ledger.database).pages():
    for each in page:
        findings.put(each)
print(plain // 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
"""What the daemon reads of the ledger at its start, in a process of its own: MiB before and at the most."""


def main() -> None:
    """Live, and say how large it has become."""
    days = int(sys.argv[1]) if len(sys.argv) > 1 else DAYS
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "state.db")
        ledger = Ledger(path)
        ledger._db.execute("PRAGMA synchronous=OFF")
        began = time.monotonic()
        live(ledger, days, lambda ledger, _number: ledger.compact())
        seconds = time.monotonic() - began
        ledger.close()
        command = [sys.executable, "-c", OPENED, str(path)]
        plain, most = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        print(f"{days} cycles in {seconds:.0f} s: state.db {path.stat().st_size / 1e6:.1f} MB;")
        print(f"a process that reads it as the daemon does at its start: {plain} MiB before, {most} MiB at the most")


if __name__ == "__main__":
    main()
