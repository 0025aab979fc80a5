"""The heartbeat of a training: where it stands, sent after every pass through the model."""

from __future__ import annotations

import msgspec

from sleepd.protocol.job import Progress
from sleepd.worker.channel import Channel
from sleepd.worker.progress import FORWARD, TRAINED, Pace

from .outcome import Training


class TrainingHeartbeat:
    """Sends the progress of one training.

    Args:
        channel: to the daemon.
        pace: of the whole cycle, which says how long the rest takes.
        device: as it is described to the operator.
    """

    def __init__(self, channel: Channel, pace: Pace, device: str) -> None:
        self._channel = channel
        self._pace = pace
        self._shown = Progress(phase="training", device=device)

    def begin(self, done: Training, *, steps: int, epochs: int) -> None:
        """Of so many steps and epochs some are done already where a training goes on."""
        self._shown = msgspec.structs.replace(
            self._shown, step=done.steps, steps=steps, epoch=done.epochs, epochs=epochs
        )

    def stepped(self, done: Training, loss: float | None) -> None:
        """A step is done; ``loss`` is its mean, nats a supervised token.

        Raises:
            Stopped: SIGTERM came.
            DaemonGone: the daemon ended.
        """
        speed = done.tokens_per_second or None
        self._shown = msgspec.structs.replace(
            self._shown, step=done.steps, epoch=done.epochs, loss=loss, tokens_per_second=speed
        )
        self._send()

    def trained(self, tokens: int) -> None:
        """So many tokens went forward and backward. Raises as ``stepped``."""
        self._pace.did(TRAINED * tokens)
        self._send()

    def checked(self, tokens: int) -> None:
        """So many tokens went forward in a validation check. Raises as ``stepped``."""
        self._pace.did(FORWARD * tokens)
        self._send()

    def _send(self) -> None:
        self._channel.progress(msgspec.structs.replace(self._shown, eta_seconds=self._pace.eta_seconds()))
