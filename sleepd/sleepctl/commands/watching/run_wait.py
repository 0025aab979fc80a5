"""``run --wait``: one connection waits for the cycle's end, another brings its progress to stderr meanwhile.

The answer to the waited run is the truth about the cycle; the announcements only draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import msgspec

from sleepd.client import Client
from sleepd.errors import SleepdError
from sleepd.protocol.control import Announcement, Run
from sleepd.protocol.job import Progress
from sleepd.protocol.status import RunResult
from sleepd.sleepctl.console import Console
from sleepd.sleepctl.pages.status_page import progress_lines
from sleepd.sleepctl.pages.terminal import shorten, width_of


class ProgressLine:
    """Progress on stderr: one line drawn again and again on a terminal, one line a phase elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._is_drawn = False

    def draw(self, progress: Progress) -> None:
        """Show where the worker stands."""
        text = "  ".join("".join(span.text for span in line).strip() for line in progress_lines(progress))
        if self._console.can_redraw:
            # One column stays free: a full last column makes some terminals wrap, and then nothing overwrites it.
            line = shorten(text, width_of(self._console.err) - 1)
            self._console.err.write(f"\r{line}\x1b[K")
            self._console.err.flush()
            self._is_drawn = True
        elif progress.phase != self._phase:
            self._console.note(f"{progress.phase}{f' on {progress.device}' if progress.device else ''}")
        self._phase = progress.phase

    def erase(self) -> None:
        """Leave the terminal's line as it was found."""
        if self._is_drawn:
            self._console.err.write("\r\x1b[K")
            self._console.err.flush()
            self._is_drawn = False


def run_and_wait(socket_path: str, request: Run, console: Console) -> RunResult:
    """Start a cycle and return at its end. KeyboardInterrupt passes through; the daemon goes on with the cycle."""
    progress_line = ProgressLine(console)
    with Client(socket_path, timeout=None) as cycle, Client(socket_path, timeout=None) as watch:
        follower = Thread(target=_follow, args=(watch.subscribe(), progress_line, console), daemon=True)
        follower.start()
        try:
            return cycle.call(request, RunResult)
        finally:
            watch.hang_up()
            follower.join()
            progress_line.erase()


def _follow(announcements: Iterator[Announcement], progress_line: ProgressLine, console: Console) -> None:
    try:
        for announcement in announcements:
            if announcement.event == "progress":
                progress_line.draw(msgspec.convert(announcement.fields, Progress))
    except (SleepdError, msgspec.ValidationError) as error:
        # The cycle is not at stake, only the view of it.
        console.note(f"note: progress can no longer be shown: {error}")
