"""``tag``, ``prune`` and ``decisions``: what is kept of earlier cycles and decisions."""

from __future__ import annotations

from sleepd.protocol.answers import PruneResult, Reasons, Tagged
from sleepd.protocol.control import Prune, Tag, Why
from sleepd.protocol.status import DecisionRecord
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import changes_page, line
from sleepd.sleepctl.pages.wording import count, size
from sleepd.sleepctl.session import Session


def tag(session: Session) -> ExitCode:
    """A tag for a cycle, which keeps its weights."""
    arguments = session.arguments
    name = None if arguments.remove else arguments.name
    done: Tagged = session.ask(Tag(cycle=arguments.cycle, name=name), Tagged)
    text = f"cycle {done.cycle} is tagged {done.tag}" if done.tag else f"cycle {done.cycle} no longer has a tag"
    session.console.show(done, [line(text)])
    session.console.note_undo(done.undo)
    return ExitCode.OK


def prune(session: Session) -> ExitCode:
    """The weights that are not kept."""
    arguments = session.arguments
    done: PruneResult = session.ask(Prune(is_dry_run=arguments.dry_run, keep=arguments.keep), PruneResult)
    verb = "would be removed" if done.is_dry_run else "removed"
    page = [line(f"cycle {each.cycle}: {size(each.bytes)} {verb} ({each.reason})") for each in done.pruned]
    total = size(sum(each.bytes for each in done.pruned))
    end = f"the weights of {count(len(done.pruned), 'cycle')}, {total}, {verb}; their measurements stay"
    session.console.show(done, [*page, line(end if done.pruned else "nothing to prune")])
    return ExitCode.OK


def decisions(session: Session) -> ExitCode:
    """How the decision changed, and the figures it rested on."""
    arguments = session.arguments
    since = arguments.since(session.clock.now()) if arguments.since else None
    found: Reasons = session.ask(Why(limit=arguments.limit, since=since), Reasons)
    records: list[DecisionRecord] = found.changes
    session.console.show({"schema": found.schema, "changes": records}, changes_page(records, session.clock.now()))
    return ExitCode.OK
