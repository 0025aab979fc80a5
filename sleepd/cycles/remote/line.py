"""Messages and files over one pair of streams, whoever stands at the other end.

Rule 1: nothing is waited for longer than ``LINE_SECONDS``: the other side beats, or the line is dead.
Rule 2: a file that comes is written beside, as long as announced, compared by its sha256, synced, and then renamed.
Rule 3: no name that comes is used as a path before ``refuse_list`` has found it among the expected ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Generic, TypeVar

import msgspec

from sleepd.errors import LineBroken, ProtocolError
from sleepd.files import FILE_MODE, fsync_path, hashed, open_regular
from sleepd.protocol.job import MAX_MESSAGE_BYTES, encode
from sleepd.protocol.remote_job import SAME_VERSION, Beat, Contents, FileEntry

LINE_SECONDS: Final = 60.0
"""A side that sends nothing for so long is gone."""
BEAT_SECONDS: Final = 5.0
_PIECE: Final = 2**20

_Message = TypeVar("_Message")


class HostLine(Generic[_Message]):
    """One end.

    Args:
        reader: what the other side sends; its limit bounds a message.
        writer: what it gets.
        decode: reads one line.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decode: Callable[[bytes], _Message]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decode = decode
        self._is_sending_file = False

    def post(self, message: msgspec.Struct) -> None:
        """Send one message, without waiting for it to go.

        Raises:
            LineBroken: the line is closed, or takes nothing any more.
        """
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > MAX_MESSAGE_BYTES:
            raise _broken("it takes nothing")
        self._writer.write(encode(message))

    async def receive(self) -> _Message:
        """The next message that is no beat.

        Raises:
            LineBroken: the line ended, or was silent for too long.
            ProtocolError: what came is no message.
        """
        while True:
            try:
                async with asyncio.timeout(LINE_SECONDS):
                    text = await self._reader.readline()
            except ValueError as error:
                raise ProtocolError(f"a message without end came over the line: {error}", hint=SAME_VERSION) from error
            except (OSError, TimeoutError) as error:
                raise _broken(str(error) or f"nothing came for {LINE_SECONDS:g} s") from error
            if not text.endswith(b"\n"):
                raise _broken("it was closed")
            message = self._decode(text)
            if not isinstance(message, Beat):
                return message

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Send a sign of life every now and then while the body runs."""

        async def beat() -> None:
            with contextlib.suppress(LineBroken):  # the body finds out by itself
                while True:
                    if not self._is_sending_file:
                        self.post(Beat())
                    await asyncio.sleep(BEAT_SECONDS)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()

    async def send_files(self, files: Sequence[tuple[FileEntry, Path]]) -> None:
        """The contents of files, one after the other.

        Raises:
            LineBroken: as ``post``.
            OSError: a file cannot be read, or is no longer as long as announced.
        """
        if not files:
            return
        self._is_sending_file = True
        try:
            self.post(Contents())
            for entry, path in files:
                with open_regular(path) as file:
                    left = entry.bytes
                    while left:
                        piece = file.read(min(left, _PIECE))
                        if not piece:
                            raise OSError(f"{path} became shorter while it was sent")
                        await self._write(piece)
                        left -= len(piece)
        finally:
            self._is_sending_file = False

    async def _write(self, piece: bytes) -> None:
        try:
            self._writer.write(piece)
            async with asyncio.timeout(LINE_SECONDS):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise _broken(str(error) or f"it took nothing for {LINE_SECONDS:g} s") from error

    async def receive_files(self, files: Sequence[FileEntry], directory: Path) -> None:
        """Write what comes below ``directory``; the names have passed ``refuse_list``.

        Raises:
            LineBroken: the line ended in the midst of it; the files that came whole stay.
            ProtocolError: a file is not what was announced.
            OSError: the disk did not take it.
        """
        # Signs of life that were sent before the list had come lie in between.
        if files and not isinstance(message := await self.receive(), Contents):
            text = f"expected the contents of files, {type(message).__name__} came"
            raise ProtocolError(text, hint=SAME_VERSION)
        for entry in files:
            path = directory / entry.name
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            await self._receive_file(entry, part)
            part.rename(path)
            fsync_path(path.parent)

    async def _receive_file(self, entry: FileEntry, part: Path) -> None:
        digest, left = hashlib.sha256(), entry.bytes
        with _new_file(part) as file:
            while left:
                try:
                    async with asyncio.timeout(LINE_SECONDS):
                        piece = await self._reader.read(min(left, _PIECE))
                except (OSError, TimeoutError) as error:
                    raise _broken(str(error) or f"nothing came for {LINE_SECONDS:g} s") from error
                if not piece:
                    raise _broken(f"it was closed in {entry.name}")
                digest.update(piece)
                file.write(piece)
                left -= len(piece)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        if digest.hexdigest() != entry.sha256:
            raise ProtocolError(f"{entry.name} is not what was announced: its sha256 differs", hint=SAME_VERSION)

    def close(self) -> None:
        """No more is sent."""
        self._writer.close()


def entry_of(name: str, path: Path) -> FileEntry | None:
    """The entry of a file; None: it is not there.

    Raises:
        OSError: it cannot be read, or something else stands there.
    """
    try:
        digest, size = hashed(path)
    except FileNotFoundError:
        return None
    return FileEntry(name, size, digest)


def _new_file(path: Path) -> BinaryIO:
    """Open for writing, in place of whatever stands there: it may be a link."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return open(os.open(path, flags, FILE_MODE), "wb")


def _broken(why: str) -> LineBroken:
    return LineBroken(f"the line broke: {why}", hint="sleepctl worker-host check")
