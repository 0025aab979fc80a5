"""The short-lived process that reads a large buffer, so that the daemon neither blocks nor grows.

Its command is ``python -m sleepd.buffer.reading.reader_process FD …``. Each file is an inherited descriptor, opened by
the daemon. Standard input is a :class:`ReadBatch` with a request for each, standard output a list of a
:class:`Reading` for each, both as MessagePack.

A half-written buffer is an answer too, not a failure.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from sleepd.buffer.columns import MOST_EXPERIENCES, BufferColumns, IntArray
from sleepd.buffer.digest import Digest, Skipped, digest_lines, digest_whole, pick
from sleepd.buffer.experience import Experience
from sleepd.buffer.learnables import READ_BY_DEFAULT, HalfWritten, Learnable, Learnables, ReadSettings
from sleepd.buffer.parsing import NULS_LEFT_BY, TORN, form_of, nuls_before, numbered, records
from sleepd.buffer.reply_digest import answer_of
from sleepd.buffer.said_before import SaidBefore

from .line_cutter import HEAD_BYTES, FirstBytes, LineCutter, Source
from .screening_starts import FROM_THE_BEGINNING, Start

OOM_SCORE = 900
"""Of 1000: the kernel takes this process before the daemon, as it does the worker."""
_PR_SET_PDEATHSIG = 1
"""The request of prctl(2) for a signal at the death of the parent."""
_INDEX_FROM_BYTES = 16 * 1024
"""An index costs more than scanning the keys for the few lines that an agent appends at a time."""


_Message = TypeVar("_Message", "ReadBatch", "Reading")


class Reading(msgspec.Struct, kw_only=True):
    """What came of reading: figures, or texts, or why it is half-written."""

    form: str = "empty"
    columns: BufferColumns = msgspec.field(default_factory=BufferColumns)
    left_out: int = 0
    """Older ones beyond the most that are used."""
    skipped: list[Skipped] = []
    skipped_total: int = 0
    consumed: int = 0
    """JSON lines: bytes from the file's beginning to the end of the last complete line."""
    lines: int = 0
    """JSON lines: how many line ends there are up to there."""
    unfinished: int = 0
    """JSON lines: bytes of a torn last line."""
    said: IntArray = msgspec.field(default_factory=lambda: array("Q"))
    """JSON lines: what a log of requests has held so far; see ``SaidBefore``."""
    rated: IntArray = msgspec.field(default_factory=lambda: array("Q"))
    """See ``Digest.rated``."""
    texts: list[Experience] = []
    answers: IntArray = msgspec.field(default_factory=lambda: array("Q"))
    """Of the replies of which they were asked for."""
    half_written: str = ""


class ReadRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked for: the figures, or some texts."""

    settings: ReadSettings = READ_BY_DEFAULT
    before: Reading | None = None
    """Of JSON lines: the earlier figures, to be continued; None: from the beginning."""
    wanted: bytes | None = None
    """The keys of the wanted texts (``array('Q')``); None: the figures are asked for."""
    characters: int | None = None
    """Of all texts together; None: however many they are."""
    answers_of: bytes = b""
    """The keys of the replies whose ``answer_of`` is wanted, beside the texts."""


class ReadBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Requests for several files. The ratings, which may be many, stand there once for all files that have them."""

    requests: list[ReadRequest]
    """Without ratings."""
    ratings: list[dict[str, float]]
    rated_by: list[int]
    """Of each request: the place of its ratings."""


def batch_of(requests: Iterable[ReadRequest]) -> ReadBatch:
    """For the process: its requests, each distinct object of ratings once."""
    ratings, plain, rated_by = dict[int, tuple[int, dict[str, float]]](), list[ReadRequest](), list[int]()
    for request in requests:
        rated = request.settings.ratings
        rated_by.append(ratings.setdefault(id(rated), (len(ratings), rated))[0])
        plain.append(replace(request, settings=replace(request.settings, ratings={})))
    return ReadBatch(requests=plain, ratings=[rated for _, rated in ratings.values()], rated_by=rated_by)


def requests_of(batch: ReadBatch) -> Iterator[ReadRequest]:
    """The opposite of ``batch_of``."""
    for request, place in zip(batch.requests, batch.rated_by, strict=True):
        yield replace(request, settings=replace(request.settings, ratings=batch.ratings[place]))


def packed(messages: Sequence[ReadBatch | Reading]) -> bytes:
    """As MessagePack; an array is its type code and its bytes."""

    def plain(value: Any) -> Any:
        if isinstance(value, array):
            return value.typecode, value.tobytes()
        raise TypeError(f"{type(value).__name__} is no part of a message")

    return msgspec.msgpack.encode(messages, enc_hook=plain)


def unpacked(data: bytes, kind: type[_Message]) -> list[_Message]:
    """What was packed.

    Raises:
        msgspec.MsgspecError: it is no list of these.
    """

    def whole(wanted: type, value: Any) -> Any:
        if wanted is not array:
            raise TypeError(f"{wanted} is no part of a message")
        typecode, content = value
        return array(typecode, content)

    return msgspec.msgpack.decode(data, type=list[kind], dec_hook=whole)  # type: ignore[valid-type]


def read_digest(file: Source, before: Reading | None, settings: ReadSettings = READ_BY_DEFAULT) -> Reading:
    """The figures of a buffer; with ``before`` those of its lines so far, continued by what was appended since."""
    nuls = 0 if before else leading_nuls(file)
    file.seek(before.consumed if before else nuls)
    head = file.read(HEAD_BYTES)
    try:
        form = "lines" if before else form_of(head)
        if form == "lines":
            return _read_lines(head, file, before or _after_nuls(nuls), settings)
        if nuls:
            return Reading(half_written=f"begins with {nuls} NUL bytes, {NULS_LEFT_BY}")
        if form == "empty" and file.read(1):
            return Reading(half_written=f"begins with {HEAD_BYTES} bytes of white space")
        del head  # not held beside the whole
        file.seek(0)
        return _reading(digest_whole(file.read(), settings))
    except HalfWritten as error:
        return Reading(half_written=str(error))


def leading_nuls(file: Source) -> int:
    """How many NUL bytes the file begins with; what was never written of it (a hole) is passed over unread."""
    count = 0
    file.seek(0)
    while chunk := file.read(HEAD_BYTES):
        rest = chunk.lstrip(b"\0")
        count += len(chunk) - len(rest)
        if rest:
            break
        with suppress(OSError):  # ENXIO: nothing but a hole follows; UnsupportedOperation: no file on a disk
            count = os.lseek(file.fileno(), count, os.SEEK_DATA)
            file.seek(count)
    return count


def _after_nuls(nuls: int) -> Reading:
    """Where lines begin that stand behind so many NUL bytes; none: where every file begins."""
    if not nuls:
        return Reading()
    skipped = Skipped(position="line 1", reason=nuls_before(nuls))
    return Reading(consumed=nuls, skipped=[skipped], skipped_total=1)


def _read_lines(head: bytes, file: Source, before: Reading, settings: ReadSettings) -> Reading:
    # What is known already goes in first, so that an id is compared with all lines, whenever they were appended.
    digest = Digest("lines", before.columns)
    digest.skipped, digest.skipped_total = list(before.skipped), before.skipped_total
    digest.rated.update(before.rated)
    if len(head) >= _INDEX_FROM_BYTES:
        digest.indexed()
    cutter, said = LineCutter(), SaidBefore(before.said)
    digest_lines(cutter.complete_lines(head, file), digest, first=before.lines + 1, settings=settings, said=said)
    reading = _reading(digest, before.left_out)
    reading.said = said.entries()
    reading.consumed = before.consumed + cutter.consumed
    reading.lines = before.lines + cutter.line_ends
    reading.unfinished = cutter.unfinished
    return reading


def read_texts(file: Source, request: ReadRequest) -> Reading:
    """The texts of the wanted experiences, as many characters of all together as are asked for; and some hashes."""
    wanted, answers_of = set(array("Q", request.wanted or b"")), set(array("Q", request.answers_of))
    answers = array("Q")

    def noted(found: Iterator[tuple[str, Learnable | str]]) -> Iterator[tuple[str, Learnable | str]]:
        for position, each in found:
            if not isinstance(each, str) and each.key in answers_of:
                answers.append(answer_of(each.experience()))
            yield position, each

    try:
        form, found = read_learnables(file, request.settings)
        texts = pick(noted(found), wanted, request.characters)
        return Reading(form=form, texts=texts, answers=answers)
    except HalfWritten as error:
        return Reading(half_written=str(error))


def read_learnables(
    file: Source, settings: ReadSettings = READ_BY_DEFAULT, start: Start = FROM_THE_BEGINNING
) -> tuple[str, Iterator[tuple[str, Learnable | str]]]:
    """``lines`` or ``whole``, and what can be learned of a buffer from ``start`` on; see ``Learnables.read``.

    Raises:
        HalfWritten: an array or object does not parse as a whole; the iterator raises it too.
    """
    file.seek(start.offset or leading_nuls(file))
    head = file.read(HEAD_BYTES)
    if start.offset:
        learnables = Learnables(settings, has_found=bool(start.found), said=SaidBefore(array("Q", start.said)))
        return "lines", learnables.read(numbered(LineCutter().complete_lines(head, file), 1))
    form, learnables = form_of(head), Learnables(settings)
    if form == "lines":
        cutter = LineCutter()
        return form, _with_torn_line(learnables.read(numbered(cutter.complete_lines(head, file), 1)), cutter)
    del head  # not held beside the whole
    file.seek(0)
    return "whole", learnables.read(records(file.read(), form))


def _with_torn_line(
    found: Iterator[tuple[str, Learnable | str]], cutter: LineCutter
) -> Iterator[tuple[str, Learnable | str]]:
    yield from found
    if cutter.unfinished:
        yield f"line {cutter.line_ends + 1}", TORN


def answer(file: Source, request: ReadRequest) -> Reading:
    """What is asked for."""
    if request.wanted is None:
        return read_digest(file, request.before, request.settings)
    return read_texts(file, request)


def _reading(digest: Digest, left_out: int = 0) -> Reading:
    columns = digest.columns()
    left_out += columns.keep_newest(MOST_EXPERIENCES)
    return Reading(
        form=digest.form,
        columns=columns,
        left_out=left_out,
        skipped=digest.skipped,
        skipped_total=digest.skipped_total,
        rated=array("Q", sorted(digest.rated)),
    )


def bound_process() -> None:
    """At most half of the machine's memory, no core dump, first to go where memory runs out, dead with its parent.

    Here too much memory ends in a sentence for the operator, in the kernel in some program's end. A core holds the
    texts. A daemon that was killed outside of systemd would leave a process that reads on for nobody.

    Raises:
        OSError: the kernel refused the signal at the parent's death.
    """
    import ctypes  # not at the top: the daemon imports this module and needs none of it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_AS, (memory // 2, memory // 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE))  # a container may forbid it


def main() -> None:
    """Read standard input, answer on standard output."""
    bound_process()
    batch = unpacked(sys.stdin.buffer.read(), ReadBatch)[0]
    readings = []
    for descriptor, request in zip(map(int, sys.argv[1:]), requests_of(batch), strict=True):
        with open(descriptor, "rb") as whole:
            readings.append(answer(FirstBytes(whole, os.fstat(descriptor).st_size), request))
    sys.stdout.buffer.write(packed(readings))


if __name__ == "__main__":
    main()
