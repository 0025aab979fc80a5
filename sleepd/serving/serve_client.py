"""The daemon's end of the connection to the serve process.

Where systemd listens on ``serve.sock`` beside the control socket, sage-sleep-serve is started by the connection: it has
a sandbox of its own, with the network that the daemon lacks. Elsewhere the process is a child over a socket pair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

from sleepd.errors import EngineFailed, ProtocolError
from sleepd.host import SYSTEMD_VARIABLES
from sleepd.protocol.deployment.serve_messages import (
    MAX_LINE_BYTES,
    ServeOutcome,
    ServeRequest,
    ServeStep,
    decode_message,
    encode,
)

SOCKET_NAME: Final = "serve.sock"
SILENCE_SECONDS: Final = 4 * 3600.0
"""A process that sends nothing for so long is given up: merging a large model takes less."""
END_SECONDS: Final = 5.0
"""Between the end of its output and its own."""
Ask: TypeAlias = Callable[[ServeRequest, Callable[[ServeStep], object]], Awaitable[ServeOutcome]]


class ServeClient:
    """Asks a serve process.

    Args:
        place: where systemd's socket may be.
        python: the interpreter of a child.
    """

    def __init__(self, place: Path, *, python: str = sys.executable) -> None:
        self._socket = place
        self._python = python

    async def ask(self, request: ServeRequest, listener: Callable[[ServeStep], object]) -> ServeOutcome:
        """Have a request carried out; ``listener`` is called with every step.

        Raises:
            EngineFailed: the process could not be started, died or fell silent.
            ProtocolError: it does not speak as it should.
        """
        try:
            async with self._connection() as (reader, writer):
                writer.write(encode(request))
                await writer.drain()
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        line = await reader.readline()
                    message = decode_message(line) if line.endswith(b"\n") else None
                    if message is None:
                        raise EngineFailed("the serve process ended without an answer", hint=self._log_hint)
                    if isinstance(message, ServeOutcome):
                        return message
                    listener(message)
        except TimeoutError:
            text = f"the serve process sent nothing for {SILENCE_SECONDS / 3600:g} h"
            raise EngineFailed(text, hint=self._log_hint) from None
        except ValueError as error:  # a line without end
            raise ProtocolError(f"not understood: the serve process: {error}", hint=self._log_hint) from error
        except OSError as error:
            text = f"the serve process could not be asked: {error.strerror or error}"
            raise EngineFailed(text, hint=self._log_hint) from error

    @property
    def _log_hint(self) -> str:
        return "journalctl -u sage-sleep-serve" if self._socket.exists() else "sleepctl logs has what it printed last"

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        if self._socket.exists():
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=MAX_LINE_BYTES)
            try:
                yield reader, writer
            finally:
                writer.close()
            return
        ours, theirs = socket.socketpair()
        with theirs:
            process = await self._start(theirs)
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        try:
            yield reader, writer
        finally:
            writer.close()
            await _reap(process)

    async def _start(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(self._python, "-P", "-m", "sleepd.serving.serve_process", "--fd", str(theirs.fileno())),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={name: value for name, value in os.environ.items() if name not in SYSTEMD_VARIABLES},
        )


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Wait for its end; one that goes on without us is killed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
