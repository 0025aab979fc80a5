"""How the worker gives up: exceptions that become the last message on the wire."""

from __future__ import annotations

from sleepd.protocol.evidence import Probation
from sleepd.protocol.job import Failure, FailureKind

NOT_FINITE_HINT = "is the base sound? if it is, a lower learning_rate helps"


class GiveUp(Exception):
    """The cycle cannot go on; whose fault it is, what was expected, what came, and the next step."""

    def __init__(self, kind: FailureKind, message: str, hint: str = "", *, probation: Probation | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.probation = probation
        """With ``champion_worse``: what was measured."""

    def to_failure(self) -> Failure:
        """The message that tells the daemon."""
        return Failure(kind=self.kind, message=self.message, hint=self.hint, probation=self.probation)


class RankLost(GiveUp):
    """A process that computed a share of the gradients died or hangs. The weights are those of the last whole step."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__("died", message, hint)


class Stopped(BaseException):
    """SIGTERM asked for an end. No ``Exception``, so that no library's ``except Exception`` swallows it."""


class DaemonGone(BaseException):
    """Nobody reads the socket any more: there is nobody to tell, and nothing to do but leave."""
