"""``sleepctl worker-host``: what a cycle on another machine lacks, and being that machine."""

from __future__ import annotations

import os
import sys

from sleepd.errors import WorkerFailed
from sleepd.protocol.host_check import HostCheck, HostFinding
from sleepd.protocol.status import SCHEMA
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.terminal import Row, Span
from sleepd.sleepctl.session import Session
from sleepd.worker_program import NoAnswer, ask_worker

_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}
_SECONDS = 3600.0
"""Where a base was never hashed before, both machines do it now."""


def check(session: Session) -> ExitCode:
    """Ask the host, from a process of its own: this program speaks to no other machine.

    Raises:
        WorkerFailed: that process gives no answer.
    """
    host = session.arguments.host
    arguments = ["sleepd.cycles.remote.check_host", *_config(session), *(["--host", host] if host else [])]
    try:
        found = ask_worker(sys.executable, arguments, HostCheck, seconds=_SECONDS)
    except NoAnswer as error:
        raise WorkerFailed(f"the check did not come to its end: {error}", hint="sleepctl config check") from error
    page = [row for each in found.findings for row in _rows(each)]
    session.console.show({"schema": SCHEMA, "host": found.host, "findings": found.findings}, page)
    return ExitCode.FAILED if any(each.level == "FAIL" for each in found.findings) else ExitCode.OK


def _rows(finding: HostFinding) -> list[Row]:
    first = Row([Span(f"{finding.level}  ", _STYLES[finding.level]), Span(f"{finding.name:<7} {finding.text}")])
    return [first, Row([Span(f"{'':<14}{finding.hint}")])] if finding.hint else [first]


def serve(session: Session) -> ExitCode:
    """Become the program that trains for another machine; it does not return."""
    command = [sys.executable, "-P", "-m", "sleepd.cycles.remote.remote_host", *_config(session)]
    os.execv(sys.executable, command)  # noqa: S606 - a found program, no shell


def _config(session: Session) -> list[str]:
    file = session.places.config_file
    return ["--config", str(file)] if file else []
