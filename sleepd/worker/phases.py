"""The phases of a cycle: the wall time of each, and the heartbeat in all but training, which has its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from sleepd.protocol.job import Phase, Progress

from .channel import Channel
from .evaluation.probe_generation import DECODING_WORK
from .pace import FORWARD, Pace


class Phases:
    """Which phase it is, how long each took, and how far the whole is."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.pace = Pace()
        self.seconds: dict[str, float] = {}
        """Wall time by phase, of those that are over."""
        self.device = ""
        """As it is described to the owner."""

    @contextlib.contextmanager
    def enter(self, phase: Phase) -> Iterator[None]:
        """The body is that phase."""
        self._current: Phase = phase
        self._started = time.monotonic()
        self.tell()
        yield
        self.seconds = self.spent()

    def spent(self) -> dict[str, float]:
        """Wall time by phase up to now."""
        seconds = self.seconds.get(self._current, 0.0) + time.monotonic() - self._started
        return {**self.seconds, self._current: round(seconds, 3)}

    def measured(self, tokens: int) -> None:
        """So many tokens went through the model."""
        self.pace.did(FORWARD * tokens)
        self.tell()

    def generated(self, tokens: int) -> None:
        """One step of generation computed so many tokens."""
        self.pace.did(DECODING_WORK + tokens)
        self.tell()

    def tell(self) -> None:
        """The heartbeat.

        Raises:
            Stopped: SIGTERM came.
            DaemonGone: the daemon ended.
        """
        self._channel.progress(Progress(phase=self._current, device=self.device, eta_seconds=self.pace.eta_seconds()))
