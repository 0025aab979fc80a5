"""Tests of ``quarantine`` as it is typed, on a real daemon."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sleepd.protocol.status import BufferDetail, BufferStatus, QuarantineList
from sleepd.sleepctl.commands.experiences.quarantine_commands import list_page
from sleepd.sleepctl.pages.decision_page import buffer_page
from sleepd.sleepctl.pages.terminal import Page, render
from tests.agents import config_for, experiences, write_buffer
from tests.kept import kept
from tests.processes import DaemonProcess
from tests.sleepctl.sleepctl_scenes import NOW

Sleepctl = Callable[..., subprocess.CompletedProcess[str]]
LOOP = {"id": "loop-1", "prompt": "How was it?", "response": "so we go on " * 20, "salience": 0.9}
ODD = {"id": "$(touch x); odd", "prompt": "And then?", "response": "and then we " * 20, "salience": 0.9}
ESCAPE = {"id": "esc", "prompt": "\x1b[2J?", "response": "\x1b]0;owned\x07 no " * 20, "salience": 0.9}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that has three loops in its buffer, and no reason to sleep."""
    directory = tmp_path_factory.mktemp("quarantine")
    write_buffer(directory / "buffer.json", [*experiences(6), LOOP, ODD, ESCAPE])
    with DaemonProcess(directory, config_for(directory, min_experiences=99)) as daemon:
        daemon.await_true(lambda: daemon.status().buffer.quarantined == 3, "the screening")
        yield daemon


@pytest.fixture
def sleepctl(daemon: DaemonProcess) -> Sleepctl:
    return daemon.sleepctl


def test_list_shows_entries_with_reasons(sleepctl: Sleepctl) -> None:
    """Id, state, reason with its figure, the beginning of the text; control characters are made visible."""
    listed = sleepctl("quarantine")
    assert listed.returncode == 0
    assert "loop-1  quarantined" in listed.stdout
    assert "loop: 'so we go on' 20 times" in listed.stdout
    assert "How was it? → so we go on so" in listed.stdout
    shown = re.sub(r"(today|yesterday) \d\d:\d\d", "today 07:20", listed.stdout)
    assert shown == kept("quarantine-list", shown)
    assert "\x1b" not in listed.stdout
    assert sleepctl("quarantine", "list", "--limit", "1").stdout.count("quarantined") == 1
    assert "and 2 more: --limit 3" in sleepctl("quarantine", "--limit", "1").stdout


def test_the_list_as_data(sleepctl: Sleepctl) -> None:
    """With --json a program gets the same."""
    found = json.loads(sleepctl("quarantine", "--json").stdout)
    assert (found["schema"], found["total"], found["unscreened"]) == (1, 3, 0)
    (entry,) = [each for each in found["entries"] if each["id"] == "loop-1"]
    assert (entry["state"], entry["reason"], entry["trained_in"]) == ("quarantined", "loop", [])


def test_one_is_shown_with_its_text(sleepctl: Sleepctl) -> None:
    """The prompt and the whole reply."""
    shown = sleepctl("quarantine", "show", "loop-1")
    assert "so we go on" in shown.stdout.split("reply")[1]
    assert json.loads(sleepctl("quarantine", "show", "loop-1", "--json").stdout)["response"] == LOOP["response"]


def test_released_dropped_and_reset(sleepctl: Sleepctl, daemon: DaemonProcess) -> None:
    """What is typed at undo brings back what was; the list and the status follow."""
    released = sleepctl("quarantine", "release", "loop-1")
    assert released.stdout.startswith("loop-1: released: ")
    assert released.stderr.endswith(" quarantine reset loop-1\n")
    assert daemon.status().buffer.quarantined == 2
    assert "loop-1  released" in sleepctl("quarantine").stdout
    assert sleepctl("quarantine", "reset", "loop-1").returncode == 0
    first = experiences(2)[0]["id"]
    dropped = sleepctl("quarantine", "drop", first, "loop-1")
    assert dropped.stdout.startswith(f"{first}, loop-1: dropped: ")
    said = released.stdout + dropped.stdout
    assert said == kept("quarantine-decided", said)
    assert daemon.status().buffer.quarantined == 4
    assert sleepctl("quarantine", "reset", first, "loop-1").returncode == 0
    assert daemon.status().buffer.quarantined == 3


@pytest.mark.parametrize(
    ("handling", "done"),
    [("keep", "trained as they are"), ("mask", "masked in training"), ("set_aside", "not trained")],
)
def test_pages_show_personal_data_handling(handling: Any, done: str) -> None:
    """The list, the buffer page and the status count them; list and buffer page say whether they are trained."""
    found = QuarantineList(entries=[], total=0, personal={"telephone": 1, "e-mail": 4}, personal_data=handling)
    (line,) = [shown for shown in shown_lines(list_page(found, NOW)) if "personal" in shown]
    assert "e-mail in 4, telephone in 1; " in line
    assert line.endswith(f"; {done} (quarantine.personal_data = {handling})")
    status = BufferStatus(path="/b.json", form="array", total=9, personal=5, personal_data=handling)
    detail = BufferDetail(status=status, histogram=[0] * 10, set_aside=[], min_salience=0.6)
    assert f"      5  with personal data: {done}" in shown_lines(buffer_page(detail, NOW))


def shown_lines(page: Page) -> list[str]:
    return render(page, width=120, is_coloured=False).splitlines()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("release",), 2),
        (("show", "a", "b"), 2),
        (("list", "a"), 2),
        (("drop", "nobody"), 4),
        (("show", "nobody"), 4),
        (("reset", "loop-1"), 5),
        (("burn", "loop-1"), 2),
    ],
)
def test_what_makes_no_sense_is_refused(sleepctl: Sleepctl, words: tuple[str, ...], code: int) -> None:
    """Each with its exit code and a hint."""
    done = sleepctl("quarantine", *words)
    assert done.returncode == code
    assert "hint: " in done.stderr


def test_status_and_buffer_say_how_many(sleepctl: Sleepctl) -> None:
    """Both name the number."""
    assert "3 in quarantine" in sleepctl("status").stdout
    assert "      3  in quarantine: " in sleepctl("buffer").stdout


def test_completions_offer_only_safe_ids(sleepctl: Sleepctl) -> None:
    """An id is an agent's: one that a shell would take for a command is not offered."""
    assert sleepctl("completions", "quarantine").stdout == "loop-1\tloop\nesc\tloop\n"
    script = sleepctl("completions", "bash").stdout
    assert "_sleepctl_quarantine() {" in script
    assert "sleepctl completions quarantine" in script
