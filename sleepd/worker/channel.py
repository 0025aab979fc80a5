"""The worker's end of the wire: messages, the heartbeat while loading, and the request to stop."""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType

import msgspec

from sleepd.protocol.job import Notice, Progress, encode

from .failure import DaemonGone, Stopped
from .process.process_activity import Movement

BEAT_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Channel:
    """The socket to the daemon. Every message is also the moment at which a request to stop is obeyed."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._stop_requested = False
        self._is_loading = False
        self._last = Progress(phase="loading")
        self._last_at = 0.0
        self._allowed_until = 0.0
        self.notices: list[Notice] = []

    def send(self, message: msgspec.Struct) -> None:
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
        """Report the progress; the heartbeat.

        Raises:
            Stopped: SIGTERM came since the last call.
            DaemonGone: the other end is closed.
        """
        self.check()
        self._send_progress(message)

    def _send_progress(self, message: Progress) -> None:
        self._last, self._last_at = message, time.monotonic()
        self.send(message)

    def beat(self) -> None:
        """A sign of life from amidst a long piece of work: the last progress again, every two seconds at most.

        Raises:
            DaemonGone: the other end is closed.
        """
        if time.monotonic() - self._last_at >= BEAT_SECONDS:
            self._send_progress(self._last)

    def doing(self, what: str, *, seconds: float = 0.0) -> None:
        """What the loading phase does from now on, in words that end "while it …".

        Args:
            what: such as ``loaded the base's weights``.
            seconds: how long it may be about it without a byte read or written, beyond ``worker.silence_seconds``.
        """
        self._allowed_until = time.monotonic() + seconds
        self.progress(msgspec.structs.replace(self._last, phase="loading", doing=what))

    def check(self) -> None:
        """Obey a request to stop, between two pieces of work.

        Raises:
            Stopped: SIGTERM came.
        """
        if self._stop_requested:
            raise Stopped

    def notice(self, event: str, text: str, *, warning: bool = False) -> None:
        """Report something worth a log line, and keep it for the report. A repeated notice is sent once."""
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
        # Never in the middle of a message: half of one would spoil the next.
        if self._is_loading and not self._lock.locked():
            raise Stopped

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Beat from a thread while the body imports, converts or reads weights, which block in C for seconds.

        It beats as long as bytes are read or written, or the body was given time (``doing``): what hangs is silent.
        Never around training or measuring: there the beat must come from the step itself, or it proves nothing.
        """
        done = threading.Event()

        def beat() -> None:
            movement = Movement()
            # The main thread meets the closed socket itself, at its next message.
            with contextlib.suppress(DaemonGone):
                while not done.wait(BEAT_SECONDS):
                    if movement.has_moved() or time.monotonic() < self._allowed_until:
                        self._send_progress(self._last)

        thread = threading.Thread(target=beat, name="loading-beat", daemon=True)
        self._is_loading = True
        self.progress(Progress(phase="loading"))
        thread.start()
        try:
            yield
        finally:
            self._is_loading = False
            done.set()
            thread.join()
        self.check()
