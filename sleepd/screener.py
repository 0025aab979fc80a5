"""Has experiences screened in a process of its own (``screening``), and passes on what it finds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from array import array
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final

import msgspec

from .buffer_file import BufferFile
from .errors import ScreeningFailed
from .quarantine import Screened
from .screening import encode_frame

FRAME_SECONDS: Final = 300.0
"""Between two frames, the first of which waits for the whole buffer to be read."""
_decoder = msgspec.msgpack.Decoder(list[Screened])


async def screened(
    file: BufferFile,
    wanted: array[int],
    signatures: Iterable[Sequence[tuple[int, bytes]]],
    *,
    python: str = sys.executable,
) -> AsyncGenerator[list[Screened], None]:
    """What is found in the wanted experiences, some at a time; those that are no longer there are left out.

    Args:
        file: the buffer.
        wanted: keys (``array('Q')``).
        signatures: of what was screened before, a page at a time.
        python: the interpreter of the process.

    Raises:
        ScreeningFailed: the process could not be started, died or hung.
        BufferUnreadable: the buffer cannot be opened.
    """
    process = await _start(file, python)
    if process is None:
        return
    assert process.stderr is not None
    complaint = asyncio.ensure_future(process.stderr.read())
    try:
        await _ask(process, wanted, signatures)
        while found := await _next_frame(process):
            yield found
    except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
        raise await _death(process, complaint) from None
    except TimeoutError:
        raise ScreeningFailed(
            f"the screening process said nothing for {FRAME_SECONDS:g} seconds", hint="sleepctl logs; it is tried again"
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.wait([asyncio.ensure_future(process.wait()), complaint])


async def _start(file: BufferFile, python: str) -> asyncio.subprocess.Process | None:
    """The process, with the buffer open in it; None: there is no buffer."""
    try:
        descriptor = await file.open()
    except OSError as error:
        raise file.unreadable(error) from error
    if descriptor is None:
        return None
    try:
        return await asyncio.create_subprocess_exec(
            *(python, "-P", "-m", "sleepd.screening", str(descriptor)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(descriptor,),
        )
    except OSError as error:
        hint = "was Python upgraded or removed? systemctl restart sage-sleepd"
        raise ScreeningFailed(f"{python} could not be started: {error.strerror}", hint=hint) from error
    finally:
        os.close(descriptor)


async def _ask(
    process: asyncio.subprocess.Process, wanted: array[int], signatures: Iterable[Sequence[tuple[int, bytes]]]
) -> None:
    assert process.stdin is not None
    process.stdin.write(encode_frame(wanted.tobytes()))
    for page in signatures:
        process.stdin.write(encode_frame(page))
        await process.stdin.drain()
    process.stdin.close()


async def _next_frame(process: asyncio.subprocess.Process) -> list[Screened]:
    assert process.stdout is not None
    async with asyncio.timeout(FRAME_SECONDS):
        length = int.from_bytes(await process.stdout.readexactly(4), "big")
        return _decoder.decode(await process.stdout.readexactly(length))


async def _death(process: asyncio.subprocess.Process, complaint: asyncio.Future[bytes]) -> ScreeningFailed:
    with contextlib.suppress(ProcessLookupError):
        process.kill()  # it may have closed its end and live on
    said = (await complaint).decode("utf-8", "replace").strip().split("\n")[-1][:200]
    return ScreeningFailed(
        f"the screening process ended with {await process.wait()}: {said or 'no word'}",
        hint="is detect-secrets installed beside sleepd? a large buffer needs memory for a moment; it is tried again",
    )
