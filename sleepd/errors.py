"""What can go wrong, named by whose fault it is.

Every error carries a ``message`` (what was expected, what came) and a ``hint`` (the next step, preferably a command to
type). ``exit_code`` is what ``sleepctl`` returns for it; ``kind`` is its name on the control socket, from which the
client makes the same error again (see :func:`from_wire`).
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What ``msgspec`` raises for bytes that are not the expected document: wrong syntax, type or text, or too deep."""


class SleepdError(Exception):
    """Base of all errors of this package. Never raised itself."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str) -> None:
        if type(self) is SleepdError:
            raise TypeError("raise a subclass of SleepdError that names whose fault it is")
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def kind(self) -> str:
        """The class name, as it travels on the control socket."""
        return type(self).__name__


class ConfigError(SleepdError):
    """The operator's configuration: a file, a key, a value, or a combination of them."""

    exit_code = 9


class UsageError(SleepdError):
    """The caller's arguments make no sense."""

    exit_code = 2


class BufferUnreadable(SleepdError):
    """The experience buffer exists but cannot be read or is not one of the three known forms."""


class BufferUnwritable(SleepdError):
    """An agent's experience could not be appended to its buffer."""


class CheckpointInvalid(SleepdError):
    """A checkpoint on disk is incomplete, damaged or different from its manifest."""


class BundleInvalid(SleepdError):
    """A bundle from another machine is damaged, is no bundle, or was signed by nobody whom the operator trusts."""


class LedgerUnusable(SleepdError):
    """The ledger (state.db) cannot be opened, read or written, is damaged, or was written by a newer version."""

    def __init__(self, message: str, *, hint: str, is_damage: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_damage = is_damage
        """Whether the file is no ledger at all, so that it may be moved aside and rebuilt."""


class StateDirectoryUnusable(SleepdError):
    """The state directory cannot be created or written."""


class StateLocked(SleepdError):
    """Another process runs on this state directory."""

    exit_code = 7


class SocketTaken(SleepdError):
    """Another process answers on the control socket."""

    exit_code = 7


class IllegalTransition(SleepdError):
    """A cycle was given an event its state does not allow. Our own fault: a bug."""


class ProtocolError(SleepdError):
    """A message on a wire could not be understood."""


class WorkerFailed(SleepdError):
    """The worker process ended without a report: it crashed, hung, was killed or reported why it gave up."""


class LineBroken(WorkerFailed):
    """The machine on which the worker runs is gone, or the way to it."""


class RayFailed(WorkerFailed):
    """The Ray cluster does not answer, does not take a job, or has lost it."""


class WorkerDied(WorkerFailed):
    """It ended without a message: it was killed, crashed or hung. A resumed run may continue what it had done."""


class ConversionFailed(SleepdError):
    """An adapter could not be written in the form that an engine loads."""


class ScreeningFailed(SleepdError):
    """The process that screens experiences did not come to its end; what it has not screened is not trained."""


class RemoteFailed(SleepdError):
    """rclone could not list, read or write the remote through which bundles travel."""


class EngineUnreachable(SleepdError):
    """Nobody answers where the engine that runs the adapter should be."""

    exit_code = 3


class EngineFailed(SleepdError):
    """The engine that runs the adapter answered with an error, too late, too much, or with something else."""


class DaemonNotRunning(SleepdError):
    """Nobody answers on the control socket."""

    exit_code = 3


class VersionMismatch(SleepdError):
    """The two ends of a wire speak different versions."""


class NotFound(SleepdError):
    """The named cycle, file or strategy does not exist."""

    exit_code = 4


class NothingToDo(SleepdError):
    """The request was understood and there is nothing to be done for it."""

    exit_code = 5


class Busy(SleepdError):
    """Something is under way that this request cannot run beside."""

    exit_code = 7


class PermissionDenied(SleepdError):
    """The peer may not do this."""

    exit_code = 8


class RequestFailed(SleepdError):
    """The daemon failed while it answered; the journal has the traceback."""


def from_wire(kind: str, message: str, hint: str) -> SleepdError:
    """The error that the far side raised, by its name; an unknown name becomes :class:`RequestFailed`."""
    known = {cls.__name__: cls for cls in all_errors()}
    return known.get(kind, RequestFailed)(message, hint=hint)


def all_errors() -> list[type[SleepdError]]:
    """Every class that may be raised: the subclasses of :class:`SleepdError`, and theirs."""
    found: list[type[SleepdError]] = list(SleepdError.__subclasses__())
    for each in found:  # grows while it is walked
        found += each.__subclasses__()
    return found
