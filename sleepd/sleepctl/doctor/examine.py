"""``sleepctl doctor``: what may keep it from sleeping, and the command that fixes it."""

from __future__ import annotations

import msgspec

from sleepd.protocol.status import SCHEMA
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.terminal import Page, Row, Span, pad
from sleepd.sleepctl.pages.wording import count
from sleepd.sleepctl.session import Session

from .findings import Finding, judge
from .gather import gather

_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}
_NAME_COLUMNS = 10
_INDENT = 6 + _NAME_COLUMNS


def examine(session: Session) -> ExitCode:
    """Check everything and show the findings; FAILED where anything fails."""
    if session.console.can_redraw and not session.console.is_json:
        session.console.note("checking (the worker's interpreter takes some seconds) …")
    findings = judge(gather(session))
    has_failed = any(finding.mark == "FAIL" for finding in findings)
    data = {"schema": SCHEMA, "is_usable": not has_failed, "findings": msgspec.to_builtins(findings)}
    session.console.show(data, findings_page(findings))
    return ExitCode.FAILED if has_failed else ExitCode.OK


def findings_page(findings: list[Finding]) -> Page:
    """A line for each, and below it what fixes it; then the count."""
    page = []
    for finding in findings:
        start = [Span(f"{finding.mark}  ", _STYLES[finding.mark]), Span(pad(finding.name, _NAME_COLUMNS), "bold")]
        page.append(Row([*start, Span(finding.text)], hang=_INDENT))
        if finding.command:
            page.append(Row([Span(" " * _INDENT), Span(f"→ {finding.command}", "bold")], hang=_INDENT + 2))
    failed, warned = (sum(finding.mark == mark for finding in findings) for mark in ("FAIL", "WARN"))
    words = "no problem found" if not failed + warned else f"{count(failed, 'failure')}, {count(warned, 'warning')}"
    return [*page, Row([]), Row([Span(words, _STYLES["FAIL" if failed else "WARN" if warned else "PASS"])])]
