"""``sleepctl digest``: what happened since a moment, for a letter in the morning."""

from __future__ import annotations

import msgspec

from sleepd.protocol.answers import Cycles
from sleepd.protocol.control import MOST_ENTRIES, GetStatus, History
from sleepd.protocol.status import SCHEMA, Status
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.digest_page import digest_page
from sleepd.sleepctl.session import Session


def show_digest(session: Session) -> ExitCode:
    """State, cycles since then, what is in use, what to look at."""
    now = session.clock.now()
    since = session.arguments.since(now)
    status: Status = session.ask(GetStatus(), Status)
    known: Cycles = session.ask(History(limit=MOST_ENTRIES), Cycles)
    cycles = [each for each in known.cycles if (each.ended_at or each.started_at) >= since]
    data = {
        "schema": SCHEMA,
        "since": since,
        "status": msgspec.to_builtins(status),
        "cycles": msgspec.to_builtins(cycles),
    }
    session.console.show(data, digest_page(status, cycles, since, now))
    return ExitCode.OK
