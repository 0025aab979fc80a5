"""``buffer`` and ``import``: what was understood of the agent's files, and a copy of another program's export."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from sleepd.errors import BufferUnreadable, NothingToDo, UsageError
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
        NothingToDo: nothing in them can be learned.
    """
    from sleepd.buffer.learnables import ReadSettings
    from sleepd.buffer.own_record import own_record
    from sleepd.buffer.reading.direct_reading import read_directly

    given = session.arguments
    settings = ReadSettings(format=given.format)
    lines: dict[int, bytes] = {}
    reasons = Counter[str]()
    for name in given.files:
        if not os.path.exists(name):
            raise BufferUnreadable(f"{name}: No such file or directory", hint="name the file that was exported")
        try:
            for piece in read_directly([os.path.abspath(name)], settings, largest_bytes=None):
                if isinstance(piece.found, str):
                    reasons[f"{name}: {piece.found}"] += 1
                else:
                    lines.setdefault(piece.found.key, msgspec.json.encode(own_record(piece.found)) + b"\n")
        except OSError as error:
            raise BufferUnreadable(f"{name}: {error.strerror or error}", hint="let this user read it") from error
    for reason, times in reasons.most_common(_SHOWN):
        session.console.note(f"left out: {reason}" + (f" ({times} times)" if times > 1 else ""))
    if not lines:
        raise NothingToDo("nothing in these files can be learned", hint="config/README.md lists the formats")
    if given.output:
        _append(Path(given.output), b"".join(lines.values()))
        data = {"schema": SCHEMA, "output": given.output, "written": len(lines), "left_out": sum(reasons.values())}
        session.console.show(data, [line(f"{given.output}: {count(len(lines), 'experience')} written")])
    else:
        sys.stdout.write(b"".join(lines.values()).decode())
    return ExitCode.OK


def _append(path: Path, data: bytes) -> None:
    """Append whole lines.

    Raises:
        UsageError: the file is there and holds something else than JSON lines.
    """
    before = path.read_bytes() if path.exists() else b""
    if before.lstrip()[:1] not in (b"", b"{"):
        raise UsageError(f"{path}: expected JSON lines to append to", hint="name another file: --output FILE")
    if before and not before.endswith(b"\n"):
        data = b"\n" + data
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    with open(descriptor, "ab") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
