"""``sleepctl worker-host``: what is missing is shown with the next step, and the exit code says whether it suffices."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sleepd.sleepctl.commands.setup.worker_host as command
from sleepd.protocol.host_check import HostCheck, HostFinding
from sleepd.worker_program import NoAnswer
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]


@pytest.mark.parametrize(("level", "code"), [("WARN", 0), ("FAIL", 1)])
def test_check_shows_each_finding(sleepctl: Sleepctl, monkeypatch: pytest.MonkeyPatch, level: str, code: int) -> None:
    """A finding is shown with its hint; only a failure makes the exit code 1."""
    asked = []

    def answer(interpreter: str, arguments: list[str], kind: type, *, seconds: float) -> HostCheck:
        asked.append((interpreter, arguments[0], arguments[-2:]))
        return HostCheck(host="thor", findings=[HostFinding("disk", level, "5 MiB free", "df -h")])

    monkeypatch.setattr(command, "ask_worker", answer)
    ran = sleepctl("worker-host", "check", "thor")
    assert (ran.code, "disk    5 MiB free" in ran.out, "df -h" in ran.out) == (code, True, True)
    assert asked == [(sys.executable, "sleepd.cycles.remote.check_host", ["--host", "thor"])]
    assert sleepctl("worker-host", "check", "--json").json["findings"][0]["level"] == level


def test_check_without_answer_fails(sleepctl: Sleepctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that gives no answer is told as that, with a next step."""

    def answer(*_arguments: object, **_options: object) -> HostCheck:
        raise NoAnswer("it broke")

    monkeypatch.setattr(command, "ask_worker", answer)
    ran = sleepctl("worker-host", "check")
    assert (ran.code, "it broke" in ran.err) == (1, True)


def test_serve_becomes_the_host(sleepctl: Sleepctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``serve`` becomes the program that trains for another machine, with the same configuration."""
    became: list[list[str]] = []

    def become(program: str, arguments: list[str]) -> None:
        became.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)
    file = tmp_path / "config.toml"
    file.write_text("")
    sleepctl("worker-host", "serve", "--config", str(file))
    assert became == [[sys.executable, "-P", "-m", "sleepd.cycles.remote.remote_host", "--config", str(file)]]
