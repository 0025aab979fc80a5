"""``show`` and ``report``: one cycle, asked of the daemon, or read from disk where it is down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from sleepd.config.buffer_config import BufferConfig
from sleepd.cycle import JUDGED_STATES
from sleepd.errors import DaemonNotRunning, NotFound, RequestFailed
from sleepd.files import replace_file
from sleepd.protocol.answers import Cycles, WrittenCycles
from sleepd.protocol.control import MOST_ENTRIES, History, Show
from sleepd.protocol.status import SCHEMA, CycleDetail, CycleSummary
from sleepd.sleepctl.asking import known_cycle
from sleepd.sleepctl.commands.watching.web_command import without_web
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.offline import read_history, read_status
from sleepd.sleepctl.offline_cycle import read_detail, read_learned
from sleepd.sleepctl.pages.report_page import KnownCycle, report_page
from sleepd.sleepctl.pages.show_page import show_page
from sleepd.sleepctl.session import Session

_SEARCHED_CYCLES = 50
"""Cycles among which the newest one with a verdict is searched."""


def show(session: Session) -> ExitCode:
    """The figures of one cycle."""
    try:
        detail: CycleDetail = session.ask(Show(cycle=session.arguments.cycle), CycleDetail)
        is_live = True
    except DaemonNotRunning as absent:
        detail, is_live = _detail_from_disk(session, absent), False
    data = {**msgspec.to_builtins(detail), "is_live": is_live}
    session.console.show(data, show_page(detail, session.clock.now()))
    return ExitCode.OK if is_live else ExitCode.NOT_RUNNING


def report(session: Session) -> ExitCode:
    """One cycle, to be read."""
    try:
        known = _ask(session)
    except DaemonNotRunning as absent:
        known = _from_disk(session, absent)
    data = {
        "schema": SCHEMA,
        "is_live": known.is_live,
        "cycle": msgspec.to_builtins(known.detail),
        "learned": msgspec.to_builtins(known.learned),
        "buffer": msgspec.to_builtins(known.buffer),
        "quarantine": msgspec.to_builtins(known.quarantine),
        "set_aside": msgspec.to_builtins(known.set_aside),
    }
    if session.arguments.html:
        _write_html(session, known)
    else:
        session.console.show(data, report_page(known, session.clock.now()))
    return ExitCode.OK if known.is_live else ExitCode.NOT_RUNNING


def _write_html(session: Session, known: KnownCycle) -> None:
    """The cycle's page as one file.

    Raises:
        NotFound: the extra [web] is not installed.
        RequestFailed: the file cannot be written.
    """
    try:
        from sleepd.web.report_file import report_file
    except ModuleNotFoundError as missing:
        raise without_web(missing) from missing
    cycles: list[CycleSummary] = []
    if known.is_live:
        answer: Cycles = session.ask(History(limit=MOST_ENTRIES), Cycles)
        cycles = answer.cycles
    path = Path(session.arguments.html)
    try:
        replace_file(path, report_file(known, cycles, session.clock.now()).encode(), mode=0o600)
    except OSError as error:
        raise RequestFailed(
            f"{path}: the page cannot be written: {error.strerror}", hint="name a file that you may write: --html FILE"
        ) from error
    session.console.note(f"written: {path}; it holds texts of the agent, and only you can read it")


def _ask(session: Session) -> KnownCycle:
    arguments = session.arguments
    cycle = arguments.cycle
    if cycle is None:
        known: Cycles = session.ask(History(limit=_SEARCHED_CYCLES), Cycles)
        cycle = _newest_judged(known.cycles)
    return known_cycle(session.ask, cycle, limit=arguments.limit)


def _from_disk(session: Session, absent: DaemonNotRunning) -> KnownCycle:
    detail, state = _detail_from_disk(session, absent), session.places.state
    learned, buffer = None, read_status(state, absent).buffer
    if detail.trained_ids or detail.replayed_ids:
        limit, masks = session.arguments.limit, buffer.personal_data == "mask"
        place = session.places.load_config().config.buffer
        if place.path_text != buffer.path:  # the daemon was started with another configuration
            place = BufferConfig(path=buffer.path)
        learned = read_learned(state, detail.summary.cycle, place, limit=limit, masks=masks)
    return KnownCycle(detail, learned, buffer, [], [], is_live=False)


def _detail_from_disk(session: Session, absent: DaemonNotRunning) -> CycleDetail:
    """The cycle that was asked for, or the newest one with a verdict; a note reports that the daemon is down.

    Raises:
        DaemonNotRunning: what the daemon wrote does not help either.
        NotFound: it wrote nothing of that cycle.
    """
    state, cycle = session.places.state, session.arguments.cycle
    written: WrittenCycles = read_history(state, absent)
    if cycle is None:
        cycle = _newest_judged(written.cycles)
    summary = _first(written.cycles, lambda each: each.cycle == cycle)
    if summary is None:
        raise NotFound(f"the daemon is not running, and its files have nothing about cycle {cycle}", hint=absent.hint)
    session.note_offline(absent, written.written_at)
    rival = _first(written.cycles, lambda each: each.cycle == summary.rival)
    return read_detail(state, summary, rival)


def _newest_judged(cycles: list[CycleSummary]) -> int:
    found = _first(cycles, lambda each: each.state in JUDGED_STATES)
    if found is None:
        raise NotFound("no cycle has a verdict yet", hint="sleepctl status")
    return found.cycle


def _first(cycles: list[CycleSummary], holds: Callable[[CycleSummary], bool]) -> CycleSummary | None:
    return next((each for each in cycles if holds(each)), None)
