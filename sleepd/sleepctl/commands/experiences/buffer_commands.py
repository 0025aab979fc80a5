"""``buffer`` and ``import``: what was understood of the agent's files, and a copy of another program's export."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from sleepd.appended_file import AppendedFile
from sleepd.errors import BufferUnreadable, BufferUnwritable, NothingToDo, UsageError
from sleepd.files import FILE_MODE
from sleepd.protocol.control import Buffer
from sleepd.protocol.status import SCHEMA, BufferDetail
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.pages.decision_page import buffer_page, line
from sleepd.sleepctl.pages.wording import count
from sleepd.sleepctl.session import Session

from .quarantine_commands import detail_page

SAMPLE: Final = 3
_SHOWN: Final = 5
"""Reasons why records were left out."""


def buffer(session: Session) -> ExitCode:
    """The buffer in figures, and its first experiences where they are asked for."""
    detail: BufferDetail = session.ask(Buffer(sample=SAMPLE if session.arguments.sample else 0), BufferDetail)
    page = buffer_page(detail, session.clock.now())
    for one in detail.sample:
        page += [line(""), *detail_page(one, session.clock.now())]
    session.console.show(detail, page)
    return ExitCode.OK


def import_records(session: Session) -> ExitCode:
    """Copy what can be learned of other programs' files into our own JSON lines; FAILED where nothing can.

    Raises:
        BufferUnreadable: a file cannot be read.
        BufferUnwritable: the output cannot be written.
        NothingToDo: nothing in them can be learned.
        UsageError: the output is one of the files.
    """
    given = session.arguments
    left_out = _LeftOut()
    lines = _understood(given.files, given.format, left_out)
    for sentence in left_out.sentences():
        session.console.note(sentence)
    if not lines:
        raise NothingToDo("nothing in these files can be learned", hint="config/README.md lists the formats")
    if given.output:
        _append(Path(given.output), given.files, b"".join(lines.values()))
        data = {"schema": SCHEMA, "output": given.output, "written": len(lines), "left_out": left_out.total}
        session.console.show(data, [line(f"{given.output}: {count(len(lines), 'experience')} written")])
    else:
        sys.stdout.write(b"".join(lines.values()).decode())
    return ExitCode.OK


class _LeftOut:
    """Why records are left out, each reason once with its first place."""

    def __init__(self) -> None:
        self._reasons = Counter[tuple[str, str]]()
        self._places: dict[tuple[str, str], str] = {}

    @property
    def total(self) -> int:
        """How many records."""
        return self._reasons.total()

    def add(self, file: str, place: str, reason: str) -> None:
        """One more."""
        self._reasons[file, reason] += 1
        self._places.setdefault((file, reason), place)

    def sentences(self) -> Iterator[str]:
        """The most frequent ones."""
        for (file, reason), times in self._reasons.most_common(_SHOWN):
            place = self._places[file, reason]
            before, after = f"{file}: {place}: " if place else f"{file}: ", f" ({times} times)" if times > 1 else ""
            yield f"left out: {before}{reason}{after}"
        if len(self._reasons) > _SHOWN:
            more = count(len(self._reasons) - _SHOWN, "more reason")
            yield f"and {more}; {count(self.total, 'record')} left out in all"


def _understood(files: Iterable[str], format_: str, left_out: _LeftOut) -> dict[int, bytes]:
    """A line for each experience in files, by its key. As the daemon does, a repeated one counts once, with its last
    salience.

    Raises:
        BufferUnreadable: a file cannot be read.
    """
    from sleepd.buffer.learnables import ReadSettings
    from sleepd.buffer.own_record import own_record
    from sleepd.buffer.reading.direct_reading import read_directly

    lines, groups = dict[int, bytes](), dict[int, int]()
    for name in files:
        try:
            os.stat(name)
            for piece in read_directly([os.path.abspath(name)], ReadSettings(format=format_), largest_bytes=None):
                found = piece.found
                if isinstance(found, str):
                    left_out.add(name, piece.position, found)
                elif groups.setdefault(found.key, found.group) != found.group:
                    left_out.add(name, piece.position, f"id: {found.id!r} has another text above")
                elif found.key not in lines or found.is_salience_given:
                    lines[found.key] = msgspec.json.encode(own_record(found)) + b"\n"
        except OSError as error:
            is_forbidden = isinstance(error, PermissionError)
            step = "let this user read it" if is_forbidden else "name the file that was exported"
            raise BufferUnreadable(f"{name}: {error.strerror or error}", hint=step) from error
    return lines


def _append(path: Path, files: Iterable[str], data: bytes) -> None:
    """Append whole lines, or nothing.

    Raises:
        UsageError: it is one of the files that were read.
        BufferUnwritable: it cannot be written, or holds something else than JSON lines.
    """
    if path.exists() and any(os.path.samefile(path, name) for name in files):
        raise UsageError(f"{path}: expected another file than those that are read", hint="name one: --output FILE")
    file = AppendedFile(path.absolute(), mode=FILE_MODE, max_bytes=0, backups=1, is_durable=True)
    try:
        file.append(data.removesuffix(b"\n"))
    except OSError as error:
        raise BufferUnwritable(
            f"{path}: nothing was written: {error.strerror or error}",
            hint="name a file of JSON lines, or a new one, in a directory that this user may write: --output FILE",
        ) from error
