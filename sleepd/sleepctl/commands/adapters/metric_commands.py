"""``metric add`` and ``metric remove``: the operator's own figures of a cycle."""

from __future__ import annotations

from sleepd.protocol.answers import MetricResult
from sleepd.protocol.control import AddMetric
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.pages.terminal import Page
from sleepd.sleepctl.pages.wording import model
from sleepd.sleepctl.session import Session


def add(session: Session) -> ExitCode:
    """A figure added, and held against the operator's limits on it."""
    return _changed(session, session.arguments.value)


def remove(session: Session) -> ExitCode:
    """A figure taken away."""
    return _changed(session, None)


def _changed(session: Session, value: float | None) -> ExitCode:
    arguments = session.arguments
    request = AddMetric(cycle=arguments.cycle, name=arguments.name, value=value)
    done: MetricResult = session.ask(request, MetricResult)
    session.console.show(done, _page(done))
    session.console.note_undo(done.undo)
    return ExitCode.OK


def _page(done: MetricResult) -> Page:
    if done.value is None:
        return [line(f"cycle {done.cycle} no longer has the figure {done.name}")]
    page = [line(f"cycle {done.cycle}: {done.name} {done.value:g}")]
    page += [line(f"{'within' if figure.is_met else 'misses'} your limit: {figure.text}") for figure in done.figures]
    if done.was_champion and done.is_broken:
        rolled_back = done.champion != done.cycle
        then = (
            f"rolled back: {model(done.champion)} is in use"
            if rolled_back
            else "the champion is rolled back when the running cycle ends"
        )
        page.append(line(then))
    return page
