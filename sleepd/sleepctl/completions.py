"""``sleepctl completions``: a shell's script, and the numbers of the cycles that the scripts ask for.

A key was pressed and somebody waits: the numbers come quickly or not at all, and nothing is ever said about it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress

from sleepd.errors import DaemonNotRunning, SleepdError
from sleepd.protocol import History
from sleepd.status import CycleSummary

from .answers import Cycles
from .arguments import build_parser
from .completion_scripts import SCRIPTS
from .exit_codes import ExitCode
from .offline import read_history
from .session import Session

_PATIENCE_SECONDS = 0.5
_MOST = 100


def complete(session: Session) -> ExitCode:
    """Print a script, or a line for each cycle: its number, a tab, what became of it and when."""
    kind = session.arguments.kind
    if kind == "cycles":
        sys.stdout.writelines(cycle_lines(_cycles(session)))
    else:
        sys.stdout.write(SCRIPTS[kind](build_parser()))
    return ExitCode.OK


def cycle_lines(cycles: Iterable[CycleSummary]) -> list[str]:
    """``8<TAB>promoted 2026-07-05``, newest first."""
    return [f"{cycle.cycle}\t{cycle.state} {cycle.started_at.astimezone():%Y-%m-%d}\n" for cycle in cycles]


def _cycles(session: Session) -> list[CycleSummary]:
    with suppress(SleepdError):
        try:
            known: Cycles = session.ask(History(limit=_MOST), Cycles, timeout=_PATIENCE_SECONDS)
        except SleepdError:
            known = read_history(session.places.state, DaemonNotRunning(""))
        return known.cycles[:_MOST]
    return []
