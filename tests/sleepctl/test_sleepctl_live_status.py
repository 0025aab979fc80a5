"""``status --watch`` on a real pseudo-terminal: what is drawn, when, and how the terminal is left."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.protocol import control
from sleepd.protocol.control import Announcement
from sleepd.protocol.status import Status
from sleepd.sleepctl.commands.watching.watch_status import frame
from tests.sleepctl import sleepctl_scenes as scenes
from tests.sleepctl.sleepctl_fake_daemon import FakeDaemon
from tests.sleepctl.sleepctl_ran import Ran

Sleepctl = Callable[..., Ran]

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
EVENT = Announcement(event="state", at=scenes.NOW, fields={"cycle": 9, "state": "training"})


class Watching:
    """``sleepctl status --watch`` on a terminal of our own."""

    def __init__(self, ours: int, process: subprocess.Popen[bytes]) -> None:
        self.ours = ours
        self.process = process
        self.received = ""

    def until(self, text: str) -> str:
        """Everything received so far, once ``text`` is in what comes from now on."""
        start = len(self.received)
        while text not in self.received[start:]:
            chunk = self._chunk()
            assert chunk, f"waited in vain for {text!r} in {self.received!r}"
            self.received += chunk.decode()
        return self.received

    def resize(self, columns: int, rows: int) -> None:
        """As a window manager does; the kernel sends SIGWINCH to the terminal's foreground, we to the process."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self, number: signal.Signals) -> int:
        """Send a signal, read the rest, return how it ended."""
        self.process.send_signal(number)
        while chunk := self._chunk():
            self.received += chunk.decode()
        return self.process.wait(20)

    def _chunk(self) -> bytes:
        """What came; empty: the other end is closed, or nothing came for very long."""
        if not select.select([self.ours], [], [], 20)[0]:
            return b""
        try:
            return os.read(self.ours, 65536)
        except OSError:  # EIO
            return b""


@contextmanager
def watching(*arguments: str, columns: int = 80, rows: int = 24) -> Iterator[Watching]:
    """The command, with a timer that never fires unless ``arguments`` say so."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "sleepd.sleepctl", "status", "--watch", *(arguments or ("3600",))],
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        yield Watching(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def steps() -> Callable[[Any], Status]:
    """A training which is a step further each time that it is asked for."""
    asked = iter(range(1, 1000))

    def answer(_: object) -> Status:
        return scenes.changed(
            scenes.TRAINING, progress=msgspec.structs.replace(scenes.PROGRESS, step=next(asked), steps=1000)
        )

    return answer


def frames(received: str) -> list[list[str]]:
    """The lines of each drawing; the terminal itself adds a carriage return to each."""
    return [
        [line.removesuffix("\x1b[K") for line in drawn.removesuffix("\x1b[J").split("\r\r\n")]
        for drawn in re.findall(r"\x1b\[H(.*?\x1b\[J)", received, re.DOTALL)
    ]


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["no terminal", "json"])
def test_watch_without_terminal_is_refused(daemon: FakeDaemon, sleepctl: Sleepctl, arguments: tuple[str, ...]) -> None:
    """A program is sent to the stream that is made for it."""
    code, out, err = sleepctl("status", "--watch", *arguments)
    assert code == 2
    assert "sleepctl events --json" in err
    assert "\x1b" not in out


def test_event_redraws_in_place(daemon: FakeDaemon) -> None:
    """Two drawings, the second caused by the event alone; nothing is blanked in between; the end is 130."""
    daemon.replies[control.GetStatus] = steps()
    daemon.announcements = [EVENT]
    with watching() as screen:
        screen.until("step 1 of 1000")
        screen.until("step 2 of 1000")
        assert screen.end(signal.SIGINT) == 130
    assert screen.received.startswith(ENTER)
    assert screen.received.endswith(LEAVE)
    assert screen.received.count(LEAVE) == 1
    assert "\x1b[2J" not in screen.received
    drawn = frames(screen.received)
    assert len(drawn) >= 2
    assert all(len(line) < 80 for each in drawn for line in each)


def test_the_timer_draws_without_any_event(daemon: FakeDaemon) -> None:
    """Ages grow also where nothing happens."""
    daemon.replies[control.GetStatus] = steps()
    with watching("0.05") as screen:
        drawn = frames(screen.until("step 4 of 1000"))
    assert len(drawn) >= 3


def test_sigterm_restores_the_terminal(daemon: FakeDaemon) -> None:
    """Whoever sent it sees what it did, and the owner has the cursor back."""
    daemon.replies[control.GetStatus] = scenes.TRAINING
    with watching() as screen:
        screen.until("\x1b[J")
        assert screen.end(signal.SIGTERM) == -signal.SIGTERM
    assert screen.received.endswith(LEAVE)


def test_a_resized_terminal_is_filled_anew(daemon: FakeDaemon) -> None:
    """A narrower window has narrower lines, at once; what does not fit below is counted."""
    daemon.replies[control.GetStatus] = scenes.TRAINING
    with watching() as screen:
        screen.until("\x1b[J")
        screen.resize(50, 10)
        screen.process.send_signal(signal.SIGWINCH)
        screen.until("more lines")
        screen.end(signal.SIGINT)
    last = frames(screen.received)[-1]
    assert len(last) == 10
    assert all(len(line) < 50 for line in last)


def test_returning_daemon_is_followed(environment: Path) -> None:
    """In between its last word is shown, and said to be that; afterwards its events draw again."""
    (environment / "status.json").write_bytes(msgspec.json.encode(scenes.MORNING))
    path = environment / "sleepd.sock"
    first = FakeDaemon(path)
    first.replies[control.GetStatus] = scenes.TRAINING
    try:
        with watching("0.1", "--state", str(environment)) as screen:
            screen.until("sage-sleepd is training")
            first.close()
            path.unlink()
            screen.until("sage-sleepd is not running")
            second = FakeDaemon(path)
            second.replies[control.GetStatus] = steps()
            screen.until("step 3 of 1000")
            second.close()
    finally:
        first.close()
    states = re.findall(r"sage-sleepd is (training|not running)", screen.received)
    assert [state for state, _ in itertools.groupby(states)][:3] == ["training", "not running", "training"]


def test_stopped_watch_releases_the_terminal(daemon: FakeDaemon) -> None:
    """Ctrl-Z leaves the shell a usable terminal; `fg` takes the screen again."""
    daemon.replies[control.GetStatus] = scenes.TRAINING
    with watching() as screen:
        screen.until("\x1b[J")
        screen.process.send_signal(signal.SIGTSTP)
        assert screen.until(LEAVE).endswith(LEAVE)
        stopped = os.waitid(os.P_PID, screen.process.pid, os.WSTOPPED)
        assert stopped is not None
        assert stopped.si_status == signal.SIGSTOP
        screen.process.send_signal(signal.SIGCONT)
        screen.until(ENTER)
        screen.until("\x1b[J")


@pytest.mark.parametrize(
    ("lines", "rows", "drawn"),
    [
        (["a", "b"], 3, "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J"),
        (["a", "b"], 2, "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J"),
        (["a", "b", "c"], 2, "\x1b[Ha\x1b[K\r\n… 2 more lines\x1b[K\x1b[J"),
        (["a", "b"], 1, "\x1b[H… 2 more lines\x1b[K\x1b[J"),
    ],
)
def test_a_frame_never_scrolls(lines: list[str], rows: int, drawn: str) -> None:
    """As many rows as there are, no end of line after the last, and the rest counted."""
    assert frame("".join(f"{line}\n" for line in lines), rows=rows) == drawn
