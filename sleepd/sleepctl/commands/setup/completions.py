"""``sleepctl completions``: a shell's script, and the cycles and experiences that the scripts ask for.

A key was pressed and somebody waits: the numbers come quickly or not at all, and nothing is ever said about it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from contextlib import suppress

from sleepd.errors import DaemonNotRunning, SleepdError
from sleepd.protocol.answers import Cycles
from sleepd.protocol.control import History, Quarantine
from sleepd.protocol.status import CycleSummary, QuarantineEntry, QuarantineList
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.generated.shipped import COMPLETIONS, SHARE
from sleepd.sleepctl.offline import read_history
from sleepd.sleepctl.session import Session
from sleepd.text.display import clean

_PATIENCE_SECONDS = 0.5
_MOST = 100
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def complete(session: Session) -> ExitCode:
    """Print a script, or a line for each cycle or quarantined experience: its number or id, a tab, and a word on it."""
    kind = session.arguments.kind
    if kind == "cycles":
        sys.stdout.writelines(cycle_lines(_cycles(session)))
    elif kind == "quarantine":
        sys.stdout.writelines(quarantine_lines(_quarantined(session)))
    else:
        sys.stdout.write((SHARE / COMPLETIONS[kind]).read_text())
    return ExitCode.OK


def cycle_lines(cycles: Iterable[CycleSummary]) -> list[str]:
    """``8<TAB>promoted 2026-07-05``, newest first."""
    return [f"{cycle.cycle}\t{clean(cycle.state)} {cycle.started_at.astimezone():%Y-%m-%d}\n" for cycle in cycles]


def quarantine_lines(entries: Iterable[QuarantineEntry]) -> list[str]:
    """``4f3a…<TAB>loop`` for each id that no shell could mistake for something else: agents make them."""
    return [f"{each.id}\t{clean(each.reason or each.state)}\n" for each in entries if _PLAIN_ID.fullmatch(each.id)]


def _quarantined(session: Session) -> list[QuarantineEntry]:
    with suppress(SleepdError):
        known: QuarantineList = session.ask(Quarantine(limit=_MOST), QuarantineList, timeout=_PATIENCE_SECONDS)
        return known.entries
    return []


def _cycles(session: Session) -> list[CycleSummary]:
    with suppress(SleepdError):
        try:
            known: Cycles = session.ask(History(limit=_MOST), Cycles, timeout=_PATIENCE_SECONDS)
        except SleepdError:
            known = read_history(session.places.state, DaemonNotRunning("", hint=""))
        return known.cycles[:_MOST]
    return []
