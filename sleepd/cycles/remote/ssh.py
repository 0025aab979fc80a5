"""The way to the host: ssh with its own configuration, a bridge to a Ray cluster, or systemd's socket before either.

Where systemd listens on ``worker-host.sock`` beside the control socket, ``sage-sleep-ssh@.service`` runs ssh for each
connection: it has the network that the daemon and its children lack, and takes the host from its own configuration.
Elsewhere ssh is a child. Started as a program, this module is that unit: it becomes ssh, or the bridge to Ray.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from sleepd.config.layers import load
from sleepd.config.schema import Config
from sleepd.errors import LineBroken
from sleepd.protocol.job import MAX_MESSAGE_BYTES
from sleepd.protocol.remote_job import HostMessage, decode_host

from .line import HostLine

SOCKET_NAME: Final = "worker-host.sock"
HOST_COMMAND: Final = "sleepctl worker-host serve"
"""What is asked for; a forced command on the host stands in its place."""
_END_SECONDS: Final = {"ssh": 5.0, "ray": 30.0}
"""For the child to end by itself; the bridge to Ray deletes its job first."""
_OPTIONS: Final = (
    *("BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=20", "ServerAliveInterval=15"),
    *("ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "ControlMaster=no", "ControlPath=none"),
    *("PermitLocalCommand=no", "RequestTTY=no", "EscapeChar=none", "LogLevel=ERROR"),
)
"""What the configuration of ssh cannot change: an option that is given here goes before the file's."""


def ssh_command(config: Config) -> tuple[str, ...]:
    """Ssh to the configured host."""
    file = config.worker.ssh_config or str(Path(config.state.directory, "ssh_config"))
    options = (word for option in _OPTIONS for word in ("-o", option))
    return ("ssh", "-F", file, *options, "--", config.worker.host, HOST_COMMAND)


def line_command(config: Config) -> tuple[str, ...]:
    """What has the line to the host on its standard input and output."""
    if config.worker.engine == "ray":
        settings = msgspec.json.encode(config).decode()
        return (sys.executable, "-P", "-m", "sleepd.cycles.remote.ray_bridge", "--settings", settings)
    return ssh_command(config)


@contextlib.asynccontextmanager
async def open_line(config: Config, *, is_direct: bool = False) -> AsyncIterator[HostLine[HostMessage]]:
    """A line to the host, closed behind the body; ``is_direct``: by ssh from here, whatever socket there is.

    Raises:
        LineBroken: there is none, with what ssh says; the body's own where ssh has ended says so too.
    """
    socket = Path(config.control.socket).with_name(SOCKET_NAME)
    if socket.exists() and not is_direct:
        try:
            reader, writer = await asyncio.open_unix_connection(socket, limit=MAX_MESSAGE_BYTES)
        except OSError as error:
            raise LineBroken(f"{socket}: {error.strerror}", hint="systemctl status sage-sleep-ssh.socket") from error
        with contextlib.closing(HostLine(reader, writer, decode_host)) as line:
            yield line
        return
    async with _child(line_command(config), config.worker.engine) as line:
        yield line


@contextlib.asynccontextmanager
async def _child(command: tuple[str, ...], engine: str) -> AsyncIterator[HostLine[HostMessage]]:
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, limit=MAX_MESSAGE_BYTES
        )
    except OSError as error:
        raise LineBroken(f"ssh cannot be started: {error.strerror}", hint="apt install openssh-client") from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said = asyncio.create_task(_last_line(process.stderr))
    try:
        with contextlib.closing(HostLine(process.stdout, process.stdin, decode_host)) as line:
            yield line
    except LineBroken as error:
        await _end(process, _END_SECONDS[engine])
        words = await said
        raise LineBroken(f"{error.message}; {engine}: {words}" if words else error.message, hint=error.hint) from error
    finally:
        await _end(process, _END_SECONDS[engine])
        await said


async def _last_line(stream: asyncio.StreamReader) -> str:
    """The last line that ssh prints, which names the reason; the rest is read and forgotten."""
    rest = b""
    while piece := await stream.read(4096):
        rest = (rest + piece)[-4096:]
    lines = rest.decode("utf-8", "replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


async def _end(process: asyncio.subprocess.Process, seconds: float) -> None:
    """Wait for its end; one that goes on is killed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def main() -> None:
    """Become ssh or the bridge, on the standard input and output that systemd's socket is."""
    parser = argparse.ArgumentParser(prog="python -m sleepd.cycles.remote.ssh", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="names the host; nothing else can be reached")
    command = line_command(load(parser.parse_args().config, environment=os.environ).config)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
