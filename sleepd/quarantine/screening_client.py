"""Has experiences screened in a process of its own (``screening_process``), and passes on what it finds.

An experience at which the process ends is excluded alone, and another process goes on with the rest: at once where it
took too much processor time, else where the same happens a second time, for the kernel may have had other reasons.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from array import array
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from itertools import chain
from typing import Final, NamedTuple

import msgspec

from sleepd.buffer.columns import IntArray
from sleepd.buffer.learnables import READ_BY_DEFAULT, ReadSettings
from sleepd.buffer.reading.experience_buffer import Part
from sleepd.buffer.reading.reader_process import ReadRequest
from sleepd.buffer.reading.screening_starts import Start
from sleepd.errors import ScreeningFailed
from sleepd.policy.selecting.selection import HashSet

from .near_duplicates import Screened
from .screening_process import Frame, Terms, encode_frame, unscreenable

FRAME_SECONDS: Final = 300.0
"""Between two frames, and for the process to take in what it is given."""
TEXT_SECONDS: Final = 10
"""Processor time for one experience. The longest of ordinary text (200,000 characters) takes half a second."""
END_SECONDS: Final = 5.0
"""Between the end of its output and its own."""
AT_ONCE: Final = 64
"""Files that one process reads: each takes a descriptor."""
BATCH: Final = 200
"""Findings that are passed on together: a second's work for a small machine."""
MAX_FRAME_BYTES: Final = 2**20
_TRIES_AGAIN: Final = "see sleepctl logs; the daemon tries again"
MOST_ASKING: Final = 64
"""For so few new ones the process asks for the earlier ones that they may resemble, and is not given all of them. It is
less than ``BATCH``: what the process finds is recorded once it asks no more."""


class Earlier(NamedTuple):
    """What was screened before."""

    signatures: Callable[[], Iterable[Sequence[tuple[int, bytes]]]]
    """Of all, a page at a time, by ascending key; asked for again where a process is replaced."""
    sharing: Callable[[list[bytes]], list[tuple[int, bytes]]]
    """Of those that share one of these bands; see ``bands.Bands``."""


_decoder = msgspec.msgpack.Decoder(Frame)


class _Ended(Exception):
    """The process ended before its work did.

    Args:
        error: what is reported where no single text is the cause.
        begun: the experience that it was at; None: it was at none.
        why: what ended it, as the reason why the experience is excluded.
        is_over: it took too much processor time.
    """

    def __init__(self, error: ScreeningFailed, begun: Screened | None, why: str, *, is_over: bool = False) -> None:
        super().__init__(why)
        self.error = error
        self.begun = begun
        self.why = why
        self.is_over = is_over


async def screened(
    parts: Sequence[Part],
    earlier: Earlier,
    *,
    settings: ReadSettings = READ_BY_DEFAULT,
    python: str = sys.executable,
) -> AsyncGenerator[list[Screened], None]:
    """What is found in the wanted experiences, some at a time; those that are no longer there are left out.

    Args:
        parts: the files of the buffer, with what is wanted of each.
        earlier: what was screened before.
        settings: how the buffer is read.
        python: the interpreter of the process.

    Raises:
        ScreeningFailed: the process could not be started, or died or hung at no text.
        BufferUnreadable: the buffer cannot be opened.
    """
    for start in range(0, len(parts), AT_ONCE):
        some = parts[start : start + AT_ONCE]
        wanted = array("Q", chain.from_iterable(part.keys for part in some))
        async for batch in _screened_in(some, wanted, earlier, settings, python):
            yield batch


async def _screened_in(
    parts: Sequence[Part], wanted: IntArray, earlier: Earlier, settings: ReadSettings, python: str
) -> AsyncGenerator[list[Screened], None]:
    """What is found in some files. Arrays, as there may be hundreds of thousands: a set takes ten times as much."""
    suspect: int | None = None
    is_over = not wanted
    while not is_over:
        batch, done = list[Screened](), array("Q")
        try:
            async with contextlib.aclosing(
                _one_process(parts, ReadRequest(settings=settings, wanted=wanted.tobytes()), earlier, python)
            ) as each_found:
                async for found in each_found:
                    batch.append(found)
                    if len(batch) == BATCH:
                        yield batch
                        done.extend(each.key for each in batch)
                        batch = []
            is_over = True
        except _Ended as end:
            if end.begun is None:
                raise end.error from None
            if end.is_over or suspect == end.begun.key:
                batch.append(unscreenable(end.begun, end.why))
            suspect = end.begun.key
        if batch:
            yield batch
        if not is_over:
            done.extend(each.key for each in batch)
            found_ones = HashSet(done)
            wanted = array("Q", (key for key in wanted if key not in found_ones))


async def _one_process(
    parts: Sequence[Part], request: ReadRequest, earlier: Earlier, python: str
) -> AsyncGenerator[Screened, None]:
    """What one process finds.

    Raises:
        _Ended: it died or hung.
    """
    opened = await _opened(parts)
    if not opened:
        return
    process = await _start(opened, python)
    assert process.stderr is not None
    complaint = asyncio.ensure_future(process.stderr.read())
    begun: Screened | None = None
    try:
        terms = Terms([start for _, start in opened], asks=is_asking(request))
        await _give(process, (request, terms))
        await _give(process, () if terms.asks else earlier.signatures(), is_all=not terms.asks)
        while (frame := await _next_frame(process)) != Frame():
            if frame.asks:
                await _give(process, [earlier.sharing(frame.asks)])
                continue
            begun = frame.begun
            if frame.found is not None:
                yield frame.found
    except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
        raise await _death(process, complaint, begun) from None
    except TimeoutError:
        why = f"the screening process sent nothing for {FRAME_SECONDS:g} seconds"
        raise _Ended(ScreeningFailed(why, hint=_TRIES_AGAIN), begun, why) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.wait([asyncio.ensure_future(process.wait()), complaint])


async def _start(opened: Sequence[tuple[int, Start]], python: str) -> asyncio.subprocess.Process:
    """The process, with the buffer's files open in it, and no longer here."""
    descriptors = [descriptor for descriptor, _ in opened]
    try:
        return await asyncio.create_subprocess_exec(
            *(python, "-P", "-m", "sleepd.quarantine.screening_process", str(TEXT_SECONDS), *map(str, descriptors)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=descriptors,
        )
    except OSError as error:
        hint = "was Python upgraded or removed? systemctl restart sage-sleepd"
        raise ScreeningFailed(f"{python} could not be started: {error.strerror}", hint=hint) from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def _opened(parts: Sequence[Part]) -> list[tuple[int, Start]]:
    """Descriptors of the files that are there, and where each is read from on.

    Raises:
        BufferUnreadable: one cannot be opened, and there is no other.
    """
    opened: list[tuple[int, Start]] = []
    for part in parts:
        try:
            descriptor = await part.file.open()
        except OSError as error:
            if len(parts) == 1:
                raise part.file.unreadable(error) from error
            continue  # what stands in it stays unscreened, and the poll names it
        if descriptor is not None:
            opened.append((descriptor, part.start))
    return opened


def is_asking(request: ReadRequest) -> bool:
    """Whether the process asks for the earlier ones."""
    return len(request.wanted or b"") <= MOST_ASKING * array("Q").itemsize


async def _give(process: asyncio.subprocess.Process, messages: Iterable[object], *, is_all: bool = False) -> None:
    assert process.stdin is not None
    for message in messages:
        process.stdin.write(encode_frame(message))
        async with asyncio.timeout(FRAME_SECONDS):
            await process.stdin.drain()
    if is_all:
        process.stdin.close()


async def _next_frame(process: asyncio.subprocess.Process) -> Frame:
    assert process.stdout is not None
    async with asyncio.timeout(FRAME_SECONDS):
        length = int.from_bytes(await process.stdout.readexactly(4), "big")
        if length > MAX_FRAME_BYTES:
            raise msgspec.ValidationError(f"a frame of {length} bytes")
        return _decoder.decode(await process.stdout.readexactly(length))


async def _death(
    process: asyncio.subprocess.Process, complaint: asyncio.Future[bytes], begun: Screened | None
) -> _Ended:
    # Waited for first: to kill a process that has just ended can lose its exit status.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # it has closed its end and lives on
    last_line = (await complaint).decode("utf-8", "replace").strip().split("\n")[-1][:200]
    code = await process.wait()
    if code == -signal.SIGXCPU:
        why = f"took longer than {TEXT_SECONDS} s of processor time"
        error = ScreeningFailed(f"the screening process {why}", hint=_TRIES_AGAIN)
        return _Ended(error, begun, why, is_over=True)
    hint = "is detect-secrets installed beside sleepd? a large buffer needs memory for a moment; the daemon tries again"
    error = ScreeningFailed(f"the screening process ended with {code}: {last_line or 'no message'}", hint=hint)
    return _Ended(
        error, begun, f"the screening process ended twice at this text, with {code}: {last_line or 'no message'}"
    )
