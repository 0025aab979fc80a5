"""The worker's end of the wire: messages, the heartbeat while loading, and the request to stop."""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

from sleepd.job import Failure, Hello, Notice, Progress, Report, encode

from .failure import DaemonGone, Stopped

LOADING_BEAT_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Channel:
    """The socket to the daemon. Every message is also the moment at which a request to stop is obeyed."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._stop_requested = False
        self._is_loading = False
        self.notices: list[Notice] = []

    def send(self, message: Hello | Progress | Notice | Report | Failure) -> None:
        """Write one message.

        Raises:
            DaemonGone: the other end is closed.
        """
        with self._lock:
            try:
                self._end.sendall(encode(message))
            except (BrokenPipeError, ConnectionResetError) as error:
                raise DaemonGone from error

    def progress(self, message: Progress) -> None:
        """Say where the work stands; the heartbeat.

        Raises:
            Stopped: SIGTERM came since the last call.
            DaemonGone: the other end is closed.
        """
        self.check()
        self.send(message)

    def check(self) -> None:
        """Obey a request to stop, between two pieces of work.

        Raises:
            Stopped: SIGTERM came.
        """
        if self._stop_requested:
            raise Stopped

    def notice(self, event: str, text: str, *, warning: bool = False) -> None:
        """Say something worth a log line, and keep it for the report. Said twice, it is sent once."""
        notice = Notice(event=event, text=text, level="warning" if warning else "info")
        if notice in self.notices:
            return
        self.notices.append(notice)
        self.send(notice)

    def is_closed(self) -> bool:
        """Whether the daemon's end is gone."""
        poll = select.poll()
        poll.register(self._end, select.POLLRDHUP)
        return bool(poll.poll(0))

    def obey_sigterm(self) -> None:
        """Let SIGTERM end the work: between two steps, or at once while loading, where nothing can be lost."""
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _signum: int, _frame: FrameType | None) -> None:
        self._stop_requested = True
        if self._is_loading:
            raise Stopped

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Beat from a thread while the body imports, converts or reads weights, which block in C for seconds.

        Never around training or measuring: there the beat must come from the step itself, or it proves nothing.
        """
        done = threading.Event()

        def beat() -> None:
            # The main thread meets the closed socket itself, at its next message.
            with contextlib.suppress(DaemonGone):
                self.send(Progress(phase="loading"))
                while not done.wait(LOADING_BEAT_SECONDS):
                    self.send(Progress(phase="loading"))

        thread = threading.Thread(target=beat, name="loading-beat", daemon=True)
        self.check()
        self._is_loading = True
        thread.start()
        try:
            yield
        finally:
            self._is_loading = False
            done.set()
            thread.join()
        self.check()
