"""A daemon that answers every page, with a long history and with texts made to break out of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from sleepd.protocol.answers import Cycles, FoundText, FoundTexts, PastAlarm, Reasons
from sleepd.protocol.control import Buffer, Experiences, GetStatus, GetVersion, History, Quarantine, Search, Show, Why
from sleepd.protocol.status import BufferMoment, CycleDetail, CycleSummary, DecisionRecord, QuarantineList, Status
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon

PAGES = (
    "/",
    "/cycles",
    "/cycles?limit=60",
    "/cycles/8",
    "/compare?a=5&b=8",
    "/buffer",
    "/buffer?search=lamp",
    "/quarantine",
    "/do/force",
    "/login",
)
"""Every page that shows or asks something."""
REASON = (
    "holdout reply loss 3.000 -> 2.500 (-0.437 nats/token on 3 experiences, more than -0.108 with 97.5% confidence)"
)
"""As long as real ones are."""
STATES = ("promoted", "rejected", "promoted", "inconclusive", "failed", "promoted", "cancelled", "interrupted")


def recent(value: Any, age: timedelta) -> Any:
    """The same data so much later, so that a page says "3 min ago" of what the scene says so of."""
    kind = type(value)

    def moved(each: Any) -> Any:
        if isinstance(each, dict):
            return {key: moved(part) for key, part in each.items()}
        if isinstance(each, list):
            return [moved(part) for part in each]
        return each + age if isinstance(each, datetime) else each

    return msgspec.convert(moved(msgspec.to_builtins(value, builtin_types=(datetime,))), kind)


def history(count: int) -> list[CycleSummary]:
    """So many cycles of every ending, newest first; the eighth is the champion."""
    found = []
    champion = None
    for number in range(1, count + 1):
        state = STATES[number % len(STATES)]
        is_judged = state in ("promoted", "rejected", "inconclusive")
        gain = 0.35 * math.sin(number) if state != "promoted" else 0.2 + 0.2 * abs(math.sin(number))
        found.append(
            scenes.cycle(
                number,
                state,
                started_at=scenes.NOW - timedelta(hours=7 * (count - number) + 1),
                ended_at=scenes.NOW - timedelta(hours=7 * (count - number), minutes=20 + number % 17),
                parent=champion,
                trained=12 + number % 9,
                replayed=number % 7,
                held_out=6 + number % 20,
                holdout_before=3.0 if is_judged else None,
                holdout_after=3.0 - gain if is_judged else None,
                gain_low=gain - 0.12 if is_judged else None,
                gain_high=gain + 0.12 if is_judged else None,
                drift=0.01 + 0.03 * abs(math.sin(2 * number)) if is_judged else None,
                drift_limit=0.05 if is_judged else None,
                loops=number % 3 if is_judged else None,
                energy_joules=40_000.0 + 900 * (number % 17) if is_judged else None,
                reason="" if state == "promoted" else f"{state}: {REASON}",
                is_rolled_back=state == "promoted" and number % 11 == 0,
                tag="liked" if number == 3 else "",
            )
        )
        if state == "promoted" and number % 11:
            champion = number
    return found[::-1]


def _moments() -> list[BufferMoment]:
    """Forty hours of an agent at work, with a sleep every eight hours."""
    return [
        BufferMoment(
            at=scenes.ago(hours=40 - n),
            total=250 + 2 * n,
            new=2 * (n % 8),
            unlearned=2 + 2 * (n % 8) - n % 3,
            held_out=32 + n // 4,
            quarantined=2 + n // 9,
        )
        for n in range(40)
    ]


def _part(cycles: Sequence[CycleSummary], request: History) -> list[CycleSummary]:
    return [each for each in cycles if request.before is None or each.cycle < request.before][: request.limit]


def answer_pages(
    fake: FakeDaemon,
    *,
    cycles: Sequence[CycleSummary],
    status: Status = scenes.TRAINING,
    detail: CycleDetail = scenes.FULL,
) -> None:
    """Have a fake daemon answer whatever a page asks."""
    age = datetime.now(UTC) - scenes.NOW
    cycles = [recent(each, age) for each in cycles]
    status, decision = recent(status, age), status.decision
    changes = [DecisionRecord(at=scenes.ago(hours=5 * n) + age, decision=decision, facts={}) for n in range(20)]
    since = scenes.ago(hours=30) + age
    alarm = PastAlarm(name="overdue", text="a sleep is due for 26 h", since=since, until=since + timedelta(hours=2))
    entries = [
        *scenes.QUARANTINE,
        msgspec.structs.replace(scenes.QUARANTINE[0], id=scenes.HOSTILE[:60], preview=scenes.HOSTILE, trained_in=[3]),
    ]
    fake.replies |= {
        GetStatus: status,
        GetVersion: {"version": "0.1.0", "v": 1},
        History: lambda request: Cycles(cycles=_part(cycles, request)),
        Why: Reasons(current=decision, changes=changes, alarms=[alarm]),
        Show: recent(detail, age),
        Experiences: scenes.LEARNED,
        Buffer: recent(
            msgspec.structs.replace(scenes.BUFFER_DETAIL, status=scenes.QUARANTINED, moments=_moments()), age
        ),
        Search: FoundTexts(
            found=[FoundText(id="e1", salience=0.7, prompt="Where is the lamp?", response=scenes.HOSTILE)],
            total=1,
            searched=333,
        ),
        Quarantine: QuarantineList(entries=entries, total=len(entries), unscreened=2, personal={"e-mail": 3}),
    }


def main(socket: str) -> None:
    """``python -m tests.web.pages_daemon SOCKET``: to look at the pages by hand."""
    Path(socket).unlink(missing_ok=True)
    fake = FakeDaemon(Path(socket))
    answer_pages(fake, cycles=history(60))
    print("ready", flush=True)
    input()


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
