"""Notifications: each event told once, chosen by name, bounded in number and time, also across restarts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleepd.config.reporting_config import EVENTS, NotifyConfig
from sleepd.errors import ConfigError
from sleepd.protocol.answers import Cycles
from sleepd.protocol.status import Alarm, CycleSummary, Status
from sleepd.sleepctl.commands.watching.notify import EventNotifier
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

KEEP = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_bytes(p.read_bytes() + sys.stdin.buffer.read())"


class Told:
    """A command that keeps what it gets, and a notifier that starts it."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.path = directory / "told"
        self.path.touch()
        self.notes: list[str] = []
        self.now = 0.0
        command = f"{sys.executable} -c '{KEEP}' {self.path}"
        self.config = NotifyConfig(**{"command": command, "events": EVENTS, **options})
        self.state = directory / "state.json"
        self.restart()

    def restart(self) -> None:
        self.notifier = EventNotifier(self.config, self.state, self.notes.append, lambda: self.now)

    def tell(self, *cycles: CycleSummary, status: Status = scenes.MORNING) -> list[str]:
        """The texts that this call tells."""
        before = len(self.path.read_text().splitlines())
        self.notifier.tell(status, Cycles(cycles=list(cycles)))
        return self.path.read_text().splitlines()[before::2]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def ended(number: int, **fields: Any) -> CycleSummary:
    return scenes.cycle(number, "rejected", reason="worse by 0.25", **fields)


def test_the_past_is_not_told(told: Told) -> None:
    """At the very first start nothing is told of cycles that had ended before."""
    assert told.tell(scenes.REJECTED, scenes.PROMOTED) == []
    assert told.tell(scenes.REJECTED, scenes.PROMOTED) == []


def test_each_end_is_told_once(told: Told) -> None:
    """An end is told once, also after a restart; one that came while nobody followed is told at the next start."""
    told.tell(ended(1))
    assert told.tell(ended(2), ended(1)) == ["cycle 2 rejected: worse by 0.25"]
    told.restart()
    assert told.tell(ended(4), ended(3), ended(2), ended(1)) == [
        "cycle 3 rejected: worse by 0.25",
        "cycle 4 rejected: worse by 0.25",
    ]
    told.restart()
    assert told.tell(ended(4), ended(3)) == []


def test_rollback_is_told_after_the_promotion(told: Told) -> None:
    """A promotion and its later rollback are two events of one cycle."""
    promoted = scenes.cycle(5, "promoted")
    told.tell()
    assert told.tell(promoted) == ["cycle 5 promoted"]
    assert "rolled back" in told.tell(scenes.cycle(5, "promoted", is_rolled_back=True))[0]


def test_alarm_is_told_when_it_begins(told: Told) -> None:
    """An alarm that lasts is told once; when it ended and comes back, it is told again."""
    alarmed = scenes.changed(scenes.MORNING, alarms=[Alarm(name="overdue", text="no sleep for 3 days")])
    told.tell()
    assert told.tell(status=alarmed) == ["no sleep for 3 days"]
    assert told.tell(status=alarmed) == []
    assert told.tell() == []
    assert told.tell(status=alarmed) == ["no sleep for 3 days"]


def test_command_gets_text_and_data(told: Told) -> None:
    """The first line is the text on one line, the second a JSON object with event, cycle and hint."""
    told.tell()
    told.tell(scenes.cycle(7, "failed", reason="a\nb", hint="sleepctl doctor"))
    text, data = told.path.read_text().splitlines()
    assert text == "cycle 7 failed: a b"
    assert {key: json.loads(data)[key] for key in ("event", "cycle", "hint", "schema")} == {
        "event": "failed",
        "cycle": 7,
        "hint": "sleepctl doctor",
        "schema": 1,
    }


def test_other_events_are_not_told(tmp_path: Path) -> None:
    """Only the events that are named in ``notify.events`` start the command."""
    told = Told(tmp_path, events=("promoted",))
    told.tell()
    assert told.tell(scenes.cycle(2, "promoted"), ended(1)) == ["cycle 2 promoted"]


def test_alarm_is_chosen_by_name(tmp_path: Path) -> None:
    """An alarm that is named in ``notify.events`` is told without the others."""
    told = Told(tmp_path, events=("overdue",))
    told.tell()
    alarms = [Alarm(name="overdue", text="no sleep for 3 days"), Alarm(name="too_many_cycles", text="nine a day")]
    assert told.tell(status=scenes.changed(scenes.MORNING, alarms=alarms)) == ["no sleep for 3 days"]


def test_events_of_an_hour_are_bounded(tmp_path: Path) -> None:
    """More than the allowed number within an hour are held back, and counted in the next one that is told."""
    told = Told(tmp_path, most_per_hour=2)
    told.tell()
    cycles = [ended(number) for number in range(5, 0, -1)]
    assert len(told.tell(*cycles)) == 2
    told.now = 3601.0
    (text,) = told.tell(ended(6), *cycles)
    assert re.fullmatch(r"cycle 6 rejected: .* \(3 .*: sleepctl history\)", text)


def test_failing_command_is_noted(tmp_path: Path) -> None:
    """A command that fails, hangs or does not exist is noted and not started again for the same event."""
    for command, noted in (
        ("/bin/false", "exit status 1"),
        (f"{sys.executable} -c 'import time; time.sleep(600)'", "killed after 1 s"),
        ("/no/such/program", "cannot be started"),
    ):
        told = Told(tmp_path, command=command, seconds=1.0)
        told.state.unlink(missing_ok=True)
        told.tell()
        told.tell(ended(1))
        assert noted in told.notes[-1]
        count = len(told.notes)
        told.tell(ended(1))
        assert len(told.notes) == count


def test_damaged_memory_tells_nothing_twice(told: Told) -> None:
    """Where the file of what was told cannot be read, it is begun anew as at the first start, with a note."""
    told.tell(ended(1))
    told.state.write_text("{")
    assert told.tell(ended(2), ended(1)) == []
    assert "not understood" in told.notes[0]


def test_unwritable_memory_starts_no_command(told: Told, tmp_path: Path) -> None:
    """What cannot be written down as told is not told: it would be told again and again."""
    told.state = tmp_path / "absent" / "state.json"
    told.restart()
    with pytest.raises(ConfigError, match="cannot be written down"):
        told.tell(ended(1))
    assert told.path.read_text() == ""


def test_once_needs_a_command(
    daemon: FakeDaemon, sleepctl: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``sleepctl notify --once`` without a command exits with 9; with one it tells and ends."""
    assert sleepctl("notify", "--once").code == 9
    from sleepd.protocol.control import GetStatus, History

    daemon.replies |= {GetStatus: scenes.MORNING, History: Cycles(cycles=[ended(1)])}
    monkeypatch.setenv("SLEEPD_NOTIFY_COMMAND", "/bin/cat")
    assert sleepctl("notify", "--once", "--told", str(tmp_path / "told.json")).code == 0
    assert "1 ended" in (tmp_path / "told.json").read_text()
