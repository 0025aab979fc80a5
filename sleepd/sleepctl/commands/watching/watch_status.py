"""``sleepctl status --watch``: the screen of ``status``, drawn in place whenever something happens, and by a timer.

A thread waits for the daemon's events and only signals that there was one; what is shown is always a whole
answer to a whole question. With the daemon down it shows what was last written, and goes on when the daemon is back.
Signals and the thread wake the loop through a pipe: the one way that is safe in a signal handler too.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from types import FrameType
from typing import TextIO

from sleepd.client import Client
from sleepd.errors import DaemonNotRunning, SleepdError, UsageError
from sleepd.protocol.control import GetStatus
from sleepd.protocol.status import Status
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.offline import read_status
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.pages.status_page import status_page
from sleepd.sleepctl.pages.terminal import Page, is_coloured, render, width_of
from sleepd.sleepctl.session import STATUS_SECONDS, Session

_REST_SECONDS = 0.2
"""Between two drawings: a training of many short steps is not drawn step by step."""

# Another screen, no cursor, and no wrapping: what is wider than the terminal is cut, and the lines keep their places.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"


class _Terminated(BaseException):
    """SIGTERM or SIGHUP came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def watch(session: Session) -> ExitCode:
    """Draw until Ctrl-C. The terminal is as it was when this ends, in whatever way.

    Raises:
        UsageError: there is no terminal to draw on.
    """
    out, environment = session.console.out, session.console.environment
    if session.console.is_json or not out.isatty() or environment.get("TERM", "dumb") == "dumb":
        raise UsageError(
            "--watch needs a terminal, and the output is no terminal", hint="for a program: sleepctl events --json"
        )
    try:
        with _wakeable() as (wake, wait), _own_screen(out, wake):
            _draw_on(session, out, wake, wait)
    except _Terminated as ended:
        # As if it had never been caught, for whoever waits for this process.
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)
    return ExitCode.OK


def _draw_on(session: Session, out: TextIO, wake: Callable[[], None], wait: Callable[[float], None]) -> None:
    follower: Thread | None = None
    while True:
        page, is_live = _refresh(session)
        if is_live and (follower is None or not follower.is_alive()):
            follower = Thread(target=_follow, args=(session.places.socket, wake), daemon=True)
            follower.start()
        # A line that fills the last column would lose its end to the erasing that follows it.
        text = render(page, width=width_of(out) - 1, is_coloured=is_coloured(out, session.console.environment))
        out.write(frame(text, rows=_rows(out)))
        out.flush()
        time.sleep(_REST_SECONDS)
        wait(session.arguments.watch)


def _refresh(session: Session) -> tuple[Page, bool]:
    """The page, and whether it comes from a running daemon."""
    now = session.clock.now()
    try:
        seen: Status = session.ask(GetStatus(), Status, timeout=STATUS_SECONDS)
        return status_page(seen, now=now, is_live=True), True
    except DaemonNotRunning as absent:
        try:
            page = status_page(read_status(session.places.state, absent), now=now, is_live=False)
        except SleepdError as error:
            page = [line(error.message, "red"), line(f"→ {error.hint}", "bold")]
        return page, False
    except SleepdError as error:
        return [line(error.message, "red"), line(f"→ {error.hint}", "bold")], False


def _follow(socket_path: str, wake: Callable[[], None]) -> None:
    # A stream that breaks is opened anew after the next answer; till then the timer alone draws.
    with suppress(SleepdError), Client(socket_path, timeout=None) as client:
        for _ in client.subscribe():
            wake()
    wake()


def frame(text: str, *, rows: int) -> str:
    """What draws ``text`` over the frame before, in one piece: nothing is blanked first, so nothing flickers.

    Args:
        text: lines, each with its end.
        rows: of the terminal; what does not fit is left out from below, and counted.
    """
    lines = text.splitlines()
    if len(lines) > rows:
        lines = [*lines[: max(rows - 1, 0)], f"… {len(lines) - rows + 1} more lines"]
    return "\x1b[H" + "\r\n".join(f"{each}\x1b[K" for each in lines) + "\x1b[J"


def _rows(out: TextIO) -> int:
    try:
        return max(os.get_terminal_size(out.fileno()).lines, 1)
    except OSError:
        return 24


@contextmanager
def _wakeable() -> Iterator[tuple[Callable[[], None], Callable[[float], None]]]:
    """A function that wakes, and one that waits for it for at most so many seconds."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)

    def wake() -> None:
        with suppress(OSError):  # full: it is awake; closed: nobody waits any more
            os.write(writing, b"x")

    def wait(seconds: float) -> None:
        if select.select([reading], [], [], seconds)[0]:
            os.read(reading, 65536)

    try:
        yield wake, wait
    finally:
        # The writing end stays open to the end of the process: the follower may still write, and a number that was
        # closed is soon another file's.
        os.close(reading)


@contextmanager
def _own_screen(out: TextIO, wake: Callable[[], None]) -> Iterator[None]:
    """A screen of our own until the end of the block; the old one is back after it, and while we are stopped."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise _Terminated(number)

    def stop(_number: int, _frame: FrameType | None) -> None:
        os.write(out.fileno(), _LEAVE.encode())
        os.kill(os.getpid(), signal.SIGSTOP)
        os.write(out.fileno(), _ENTER.encode())
        wake()

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.SIGTERM: end,
        signal.SIGHUP: end,
        signal.SIGTSTP: stop,
        signal.SIGWINCH: lambda _number, _frame: wake(),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        out.write(_ENTER)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with suppress(OSError):  # the terminal is gone
            out.write(_LEAVE)
            out.flush()
