"""The commands that ask the daemon: show its answer, return the exit code."""

from __future__ import annotations

import msgspec

from sleepd.cycle import JUDGED_STATES
from sleepd.errors import DaemonNotRunning, NothingToDo, ProtocolError, SleepdError
from sleepd.protocol.answers import Cancelled, Cycles, DaemonVersion, Paused, Reasons, Reloaded, RolledBack
from sleepd.protocol.control import (
    PROTOCOL_VERSION,
    Cancel,
    Check,
    GetStatus,
    GetVersion,
    History,
    Pause,
    Reload,
    Resume,
    Rollback,
    Run,
    Why,
)
from sleepd.protocol.decision_view import DecisionView
from sleepd.protocol.status import SCHEMA, RunResult, Status
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.cycle_table import history_page
from sleepd.sleepctl.pages.decision_page import decision_page, line, run_page, why_page
from sleepd.sleepctl.pages.lines.serving_lines import span_rows
from sleepd.sleepctl.pages.status_page import status_page
from sleepd.sleepctl.pages.wording import model
from sleepd.sleepctl.session import STATUS_SECONDS, Session
from sleepd.version import VERSION


def status(session: Session) -> ExitCode:
    """The state, live or as last written."""
    if session.arguments.watch is not None:
        from .watching.watch_status import watch

        return watch(session)
    try:
        seen: Status = session.ask(GetStatus(), Status, timeout=STATUS_SECONDS)
        code = ExitCode.OK
    except DaemonNotRunning as absent:
        from sleepd.sleepctl.offline import read_status

        seen = read_status(session.places.state, absent)
        code = session.note_offline(absent, seen.written_at)
    is_live = code == ExitCode.OK
    data = {**msgspec.to_builtins(seen), "is_live": is_live}
    session.console.show(data, status_page(seen, now=session.clock.now(), is_live=is_live))
    return code


def history(session: Session) -> ExitCode:
    """The cycles, live or as last written."""
    now, limit = session.clock.now(), session.arguments.limit
    try:
        known: Cycles = session.ask(History(limit=limit), Cycles, timeout=STATUS_SECONDS)
        code = ExitCode.OK
    except DaemonNotRunning as absent:
        from sleepd.sleepctl.offline import read_history

        known = written = read_history(session.places.state, absent)
        code = session.note_offline(absent, written.written_at)
    cycles = known.cycles[:limit]
    data = {"schema": known.schema, "is_live": code == ExitCode.OK, "cycles": msgspec.to_builtins(cycles)}
    if session.arguments.strategies:
        from sleepd.sleepctl.pages.strategy_page import compare, strategy_page

        found = compare(cycles)
        session.console.show(data | msgspec.to_builtins(found), strategy_page(found))
        return code
    data["served"] = msgspec.to_builtins(known.served[:limit])
    page = history_page(cycles, now, is_live=code == ExitCode.OK)
    session.console.show(data, page + span_rows(known.served[:limit], now, "Served"))
    return code


def check(session: Session) -> ExitCode:
    """The decision; with ``--apply`` a cycle is started when due."""
    decision: DecisionView = session.ask(Check(), DecisionView)
    is_started = session.arguments.apply and decision.should_sleep
    result = _started(session.ask(Run(), RunResult)) if is_started else None
    page = decision_page(decision)
    if result is not None:
        page += [line(""), *run_page(result)]
    data = {"schema": SCHEMA, "decision": msgspec.to_builtins(decision), "run": msgspec.to_builtins(result)}
    session.console.show(data, page)
    if result is not None:
        session.console.note_undo(result.undo)
    elif session.arguments.apply:
        session.console.note("nothing to do")
        return ExitCode.NOTHING_TO_DO
    return ExitCode.OK


def run(session: Session) -> ExitCode:
    """A cycle now; with ``--wait`` to its end."""
    given = session.arguments
    request = Run(
        force=given.force,
        wait=given.wait,
        epochs=given.epochs,
        learning_rate=given.learning_rate,
        max_experiences=given.max_experiences,
        strategy=given.strategy,
        strategies=given.strategies,
    )
    result = _waited(session, request) if given.wait else session.ask(request, RunResult)
    if result is None:
        return ExitCode.DETACHED
    result = _started(result)
    session.console.show(result, run_page(result))
    if result.summary is None:
        session.console.note("watch the cycle: sleepctl status")
    elif result.summary.hint:
        session.console.note(f"hint: {result.summary.hint}")
    session.console.note_undo(result.undo)
    has_failed = result.summary is not None and result.summary.state not in JUDGED_STATES
    return ExitCode.FAILED if has_failed else ExitCode.OK


def _waited(session: Session, request: Run) -> RunResult | None:
    """The result at the cycle's end; None: the operator pressed Ctrl-C."""
    from .watching.run_wait import run_and_wait

    try:
        result = run_and_wait(session.places.socket, request, session.console)
    except KeyboardInterrupt:
        session.console.note("detached; the cycle continues. See it: sleepctl status. Discard it: sleepctl cancel")
        return None
    if result.is_started and result.summary is None:
        raise ProtocolError("the daemon's answer has no end of the cycle", hint="sleepctl history")
    return result


def _started(result: RunResult) -> RunResult:
    if not result.is_started:
        raise NothingToDo(f"nothing to do: {result.reason}", hint="sleepctl check shows every condition")
    return result


def cancel(session: Session) -> ExitCode:
    """Discard the cycle under way."""
    done: Cancelled = session.ask(Cancel(), Cancelled)
    session.console.show(done, [line(f"cycle {done.cycle} cancelled; what it learned is discarded")])
    session.console.note_undo(done.undo)
    return ExitCode.OK


def pause(session: Session) -> ExitCode:
    """No cycle starts any more."""
    return _pause_or_resume(session, Pause())


def resume(session: Session) -> ExitCode:
    """Cycles start again."""
    return _pause_or_resume(session, Resume())


def _pause_or_resume(session: Session, request: Pause | Resume) -> ExitCode:
    done: Paused = session.ask(request, Paused)
    paused, resumed = "paused: no new cycle starts; a running cycle continues", "resumed: a cycle starts when due"
    session.console.show(done, [line(paused if done.is_paused else resumed)])
    session.console.note_undo(done.undo)
    return ExitCode.OK


def rollback(session: Session) -> ExitCode:
    """Another champion, or the base."""
    return _put_in_use(session, session.arguments.cycle)


def rebase(session: Session) -> ExitCode:
    """The base, from which a new lineage begins."""
    return _put_in_use(session, 0)


def _put_in_use(session: Session, cycle: int | None) -> ExitCode:
    done: RolledBack = session.ask(Rollback(cycle=cycle), RolledBack)
    verb = "is promoted" if done.serving else "is in use"
    page = [line(f"{model(done.champion)} {verb}; before: {model(done.was)}")]
    page += [line(done.serving)] if done.serving else []
    if done.quarantined:
        page.append(line(f"{done.quarantined} recorded under {model(done.was)} are in quarantine: sleepctl quarantine"))
    session.console.show(done, page)
    session.console.note_undo(done.undo)
    return ExitCode.OK


def show(session: Session) -> ExitCode:
    """The figures of one cycle."""
    from .adapters.cycle_commands import show as show_cycle

    return show_cycle(session)


def report(session: Session) -> ExitCode:
    """One cycle, to be read."""
    from .adapters.cycle_commands import report as report_cycle

    return report_cycle(session)


def why(session: Session) -> ExitCode:
    """The decision and its changes."""
    reasons: Reasons = session.ask(Why(limit=session.arguments.limit), Reasons)
    page = why_page(reasons.current, reasons.changes, session.clock.now(), adopted=reasons.adopted_strategy)
    session.console.show(reasons, page)
    return ExitCode.OK


def version(session: Session) -> ExitCode:
    """Both versions; this program's even when the daemon does not answer."""
    own = {"version": VERSION, "v": PROTOCOL_VERSION}
    page = [line(f"sleepctl {VERSION} (protocol {PROTOCOL_VERSION})")]
    try:
        other: DaemonVersion = session.ask(GetVersion(), DaemonVersion, timeout=STATUS_SECONDS)
    except SleepdError as error:
        problem = {"kind": error.kind, "message": error.message, "hint": error.hint}
        session.console.show({"schema": SCHEMA, "sleepctl": own, "sleepd": None, "problem": problem}, page)
        session.console.note(f"sleepctl: {error.message}")
        session.console.note(f"hint: {error.hint}")
        return ExitCode(error.exit_code)
    page.append(line(f"sleepd   {other.version} (protocol {other.v})"))
    data = {"schema": SCHEMA, "sleepctl": own, "sleepd": {"version": other.version, "v": other.v}, "problem": None}
    session.console.show(data, page)
    return ExitCode.OK


def reload(session: Session) -> ExitCode:
    """The configuration, read again."""
    from sleepd.config.schema import NEEDS_RESTART

    done: Reloaded = session.ask(Reload(), Reloaded)
    page = [line(f"changed: {key}") for key in done.changed] or [line("nothing changed")]
    session.console.show(done, page)
    for key in done.changed:
        if key.partition(".")[0] in NEEDS_RESTART:
            session.console.note(f"{key} takes effect at the next start: sudo systemctl restart sage-sleepd")
    return ExitCode.OK
