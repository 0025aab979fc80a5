"""What the daemon last wrote, for when it is not running."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from sleepd.errors import DECODE_ERRORS, DaemonNotRunning
from sleepd.files import read_document
from sleepd.protocol.answers import WrittenCycles
from sleepd.protocol.status import SCHEMA, Status

_T = TypeVar("_T", Status, WrittenCycles)


class _Schema(msgspec.Struct):
    schema: int = 0


def read_status(state_directory: Path, absent: DaemonNotRunning) -> Status:
    """``status.json``; see :func:`_read`."""
    return _read(state_directory / "status.json", Status, absent)


def read_history(state_directory: Path, absent: DaemonNotRunning) -> WrittenCycles:
    """``history.json``; see :func:`_read`."""
    return _read(state_directory / "history.json", WrittenCycles, absent)


def _read(path: Path, kind: type[_T], absent: DaemonNotRunning) -> _T:
    """The file's content.

    Raises:
        DaemonNotRunning: ``absent``, with the reason why the file does not help either.
    """
    try:
        text = read_document(path)  # no link, no pipe: root may be reading what the service's user wrote
        schema = msgspec.json.decode(text, type=_Schema).schema
        if schema == SCHEMA:
            return msgspec.json.decode(text, type=kind)
        problem = f"{path} has schema {schema}, this sleepctl reads {SCHEMA}"
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    except DECODE_ERRORS as error:
        problem = f"{path} is not understood: {error}"
    raise DaemonNotRunning(f"{absent.message}; {problem}", hint=absent.hint)
