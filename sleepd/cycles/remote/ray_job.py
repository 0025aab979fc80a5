"""A cycle's worker as a job on a Ray cluster: what ``remote_host`` is behind ssh, with the job's log for the way back.

The job's working directory holds what home would send: the message that it begins with in ``offer.json``, and the files
by their names. Base, device, caches and paths are those of the node's own configuration, or of ``SLEEPD_`` variables in
the runtime environment. SIGTERM, which ``ray job stop`` sends, asks the worker to stop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from sleepd.config.checks import discover
from sleepd.config.layers import load
from sleepd.config.schema import Config
from sleepd.cycles.running.worker_process import worker_command
from sleepd.errors import SleepdError
from sleepd.files import read_document
from sleepd.log import configure
from sleepd.protocol.job import MAX_MESSAGE_BYTES, encode
from sleepd.protocol.remote_job import HostMessage, Offer, ResultsReceived, Stop, Wanted, decode_home, decode_host

from .line import HostLine
from .ray_log import LogWriter
from .remote_host import Host

OFFER_FILE: Final = "offer.json"
_SIGN_SECONDS: Final = 1.0
_PIECE: Final = 2**16


async def _work(config: Config, place: Path, log: LogWriter) -> None:
    """Play home towards the host in this process, from the files in ``place``."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_MESSAGE_BYTES)
    home = HostLine(reader, writer, decode_host)
    host = HostLine(*await asyncio.open_connection(sock=theirs, limit=MAX_MESSAGE_BYTES), decode_home)
    first = decode_home(read_document(place / OFFER_FILE, MAX_MESSAGE_BYTES))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: home.post(Stop()))
    serving = asyncio.create_task(Host(config, host, worker_command(config.worker)).serve())
    home.post(first)
    answer = await home.receive()
    if isinstance(answer, Wanted) and isinstance(first, Offer):
        entries = {entry.name: entry for entry in first.files}
        await home.send_files([(entries[name], place / name) for name in answer.names])
    else:
        log.write(encode(answer))
    signs = asyncio.create_task(_give_signs(home))
    copying = asyncio.create_task(_copy(reader, log))
    try:
        await serving
    finally:
        host.close()
        signs.cancel()
        await copying
        home.close()
    log.end()


async def _give_signs(home: HostLine[HostMessage]) -> None:
    """That home is there, and that it has whatever is in the log: the log keeps it."""
    with contextlib.suppress(SleepdError):  # the host has ended
        while True:
            home.post(ResultsReceived())
            await asyncio.sleep(_SIGN_SECONDS)


async def _copy(reader: asyncio.StreamReader, log: LogWriter) -> None:
    while piece := await reader.read(_PIECE):
        log.write(piece)


def main() -> int:
    """Do the job that lies in the working directory."""
    parser = argparse.ArgumentParser(prog="python -m sleepd.cycles.remote.ray_job", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", type=Path, help="the node's own configuration; else $SLEEPD_CONFIG, the user's, the system's"
    )
    given = parser.parse_args()
    configure("warning")
    try:
        config = load(given.config or discover(os.environ), environment=os.environ).config
        asyncio.run(_work(config, Path.cwd(), LogWriter(sys.stdout)))
    except (SleepdError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
