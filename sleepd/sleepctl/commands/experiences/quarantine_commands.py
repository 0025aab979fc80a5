"""``quarantine``: what is excluded from training, and the operator's overrides."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, cast

from sleepd.errors import UsageError
from sleepd.protocol.answers import Decided
from sleepd.protocol.chat_example import Message, whole_text
from sleepd.protocol.control import Quarantine, QuarantineDecide, QuarantineShow
from sleepd.protocol.status import QuarantineDetail, QuarantineEntry, QuarantineList
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.pages.terminal import Page, Row, Span
from sleepd.sleepctl.pages.wording import HANDLINGS, count, moment
from sleepd.sleepctl.session import Session

_DONE = {
    "release": "released: the next cycle may train {it}, whatever was found in the text",
    "drop": "dropped: no cycle trains or replays {it} from now on",
    "reset": "reset: the screening decides on {it} again",
}
_NAMES = {"system": "system", "user": "prompt", "assistant": "earlier reply", "tool": "tool result"}
_STYLES = {"quarantined": "yellow", "dropped": "red", "released": "green"}


def quarantine(session: Session) -> ExitCode:
    """List the quarantine, show one experience, or override some."""
    action, ids = session.arguments.action, session.arguments.ids
    wanted = {"list": not ids, "show": len(ids) == 1}.get(action, bool(ids))
    if not wanted:
        expected = {"list": "no ID", "show": "one ID"}.get(action, "at least one ID")
        raise UsageError(
            f"quarantine {action}: expected {expected}, found {len(ids)}", hint="sleepctl quarantine --help"
        )
    if action == "list":
        found: QuarantineList = session.ask(Quarantine(limit=session.arguments.limit), QuarantineList)
        session.console.show(found, list_page(found, session.clock.now()))
    elif action == "show":
        detail: QuarantineDetail = session.ask(QuarantineShow(id=ids[0]), QuarantineDetail)
        session.console.show(detail, detail_page(detail, session.clock.now()))
    else:
        _decide(session, cast(Literal["release", "drop", "reset"], action), ids)
    return ExitCode.OK


def _decide(session: Session, decision: Literal["release", "drop", "reset"], ids: list[str]) -> None:
    done: Decided = session.ask(QuarantineDecide(ids=ids, decision=decision), Decided)
    it = "it" if len(done.ids) == 1 else "them"
    page = [line(f"{', '.join(done.ids)}: {_DONE[decision].format(it=it)}")]
    if decision == "drop" and done.trained_in:
        page.append(line(f"{_cycles(done.trained_in)} already trained {it}: sleepctl rollback undoes that", "yellow"))
    session.console.show(done, page)
    session.console.note_undo(done.undo)


def list_page(found: QuarantineList, now: datetime) -> Page:
    """Two lines for each, and what to type."""
    page: Page = []
    for entry in found.entries:
        page += _entry_rows(entry, now)
        if entry.preview:
            page.append(Row([Span(f"    {entry.preview}", "dim")], hang=4))
    if found.total > len(found.entries):
        page.append(line(f"and {found.total - len(found.entries)} more: --limit {found.total}"))
    if not found.total:
        page.append(line("nothing is in quarantine"))
    if found.unscreened:
        page.append(line(f"{count(found.unscreened, 'experience')} not screened yet; not trained before that"))
    if found.personal:
        page.append(line(personal_line(found.personal, found.personal_data)))
    if found.total:
        page += [line(""), line("sleepctl quarantine show|release|drop|reset ID", "dim")]
    return page


def personal_line(kinds: dict[str, int], handling: str) -> str:
    """How many experiences hold personal data of each kind, and what becomes of them."""
    listed = ", ".join(f"{kind} in {number}" for kind, number in sorted(kinds.items()))
    return f"personal data: {listed}; {HANDLINGS[handling]} (quarantine.personal_data = {handling})"


def _entry_rows(entry: QuarantineEntry, now: datetime) -> Page:
    since = f"  {moment(entry.at, now)}" if entry.at else ""
    state = Span(entry.state, _STYLES[entry.state])
    if entry.state == "quarantined" and not entry.is_kept_from_training:
        state = Span("not in quarantine", "dim")
    head = [Span(entry.id, "bold"), Span("  "), state, Span(since, "dim")]
    page = [Row(head), Row([Span(f"    {entry.text}")], hang=4)]
    return [*page, line(f"    trained before, in {_cycles(entry.trained_in)}")] if entry.trained_in else page


def detail_page(detail: QuarantineDetail, now: datetime) -> Page:
    """Why, and the text line by line."""
    page = _entry_rows(detail.entry, now)
    if detail.said_under is not None:
        how = ", by its time and what was served then" if detail.is_said_under_by_time else ""
        page.append(line(f"    recorded under cycle {detail.said_under}{how}"))
    if detail.salience is None:
        return [*page, line("    it is not in the buffer any more")]
    page.append(line("    rated down" if detail.salience < 0 else f"    salience {detail.salience:.2f}"))
    if detail.tools:
        page += _text("tools", detail.tools)
    for message in detail.context or (Message(role="user", text=detail.prompt),):
        page += _text(_NAMES[message.role], message.whole_text)
    return page + _text("reply", whole_text(detail.response, detail.calls))


def _text(name: str, text: str) -> Page:
    return [line(""), line(name, "bold"), *(Row([Span(f"  {each}")], hang=2) for each in text.splitlines())]


def _cycles(cycles: list[int]) -> str:
    return f"cycle {', '.join(map(str, cycles))}"
