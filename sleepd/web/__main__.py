"""``python -m sleepd.web``: serves the page, on a socket of systemd's or on one of its own, and ends when idle."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn

from sleepd.clock import SystemClock
from sleepd.errors import ConfigError, SleepdError, UsageError

from .app import build
from .connections import Connection
from .daemon_access import DaemonAccess
from .guard import Guard
from .login import Login, read_token
from .site import Site
from .subscription import Subscription
from .web_places import ADDRESS

SOCKET = "/run/sage-sleepd/sleepd.sock"
FIRST_DESCRIPTOR = 3
"""Of the sockets that systemd hands over (sd_listen_fds(3))."""
IDLE_CHECK_SECONDS = 5.0
MAX_REQUESTS = 64
"""At the same time; further ones get 503."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until idle or told to stop; returns the exit code."""
    options = parser().parse_args(argv)
    try:
        listening = inherited_socket(os.environ) or open_socket(options.address)
        login = Login(
            read_token(Path(options.token_file)),
            is_open=options.read_without_token,
            user_header=options.user_header,
        )
    except SleepdError as error:
        sys.stderr.write(f"sleepd.web: {error.message}\nhint: {error.hint}\n")
        return error.exit_code
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(listening, options, login))
    return 0


def parser() -> argparse.ArgumentParser:
    """The grammar."""
    made = argparse.ArgumentParser(prog="python -m sleepd.web", description="Serves the page of sage-sleepd.")
    made.add_argument("--socket", default=SOCKET, help="the daemon's control socket (default: %(default)s)")
    made.add_argument("--address", default=ADDRESS, metavar="IP:PORT", help="where to listen (default: %(default)s)")
    made.add_argument("--token-file", required=True, metavar="PATH", help="holds the token; made where there is none")
    made.add_argument("--host", action="append", default=[], metavar="NAME", help="another name of this page")
    made.add_argument("--read-without-token", action="store_true", help="only actions need the token")
    made.add_argument("--user-header", default="", metavar="NAME", help="believe a reverse proxy that sets this header")
    made.add_argument("--idle-seconds", type=float, default=0.0, help="end after so long without a request (0: never)")
    return made


async def serve(listening: socket.socket, options: argparse.Namespace, login: Login) -> None:
    """Serve on a socket that listens, until told to stop, or until nobody has asked for ``idle_seconds``."""
    site = Site(DaemonAccess(options.socket), login, Subscription(options.socket), SystemClock())
    guard = Guard(build(site), frozenset(options.host))
    config = uvicorn.Config(
        guard,
        http=Connection,
        ws="none",
        loop="asyncio",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_REQUESTS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=16 * 1024,
    )
    server = uvicorn.Server(config)
    watch = asyncio.create_task(end_when_idle(server, guard, options.idle_seconds))
    try:
        await server.serve(sockets=[listening])
    finally:
        watch.cancel()


async def end_when_idle(server: uvicorn.Server, guard: Guard, idle_seconds: float) -> None:
    """Ask the server to end when nobody asks; systemd keeps the socket and starts it again."""
    while idle_seconds > 0:
        await asyncio.sleep(min(IDLE_CHECK_SECONDS, idle_seconds))
        if not guard.open_requests and time.monotonic() - guard.last_request >= idle_seconds:
            server.should_exit = True
            return


def inherited_socket(environment: Mapping[str, str]) -> socket.socket | None:
    """The socket that systemd listens on for us; None: it hands none over.

    Raises:
        ConfigError: it hands over several.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return None
    if environment.get("LISTEN_FDS") != "1":
        raise ConfigError(
            f"expected one socket of systemd, found {environment.get('LISTEN_FDS')}",
            hint="name one ListenStream= in sage-sleep-web.socket",
        )
    inherited = socket.socket(fileno=FIRST_DESCRIPTOR)
    inherited.setblocking(False)
    return inherited


def open_socket(address: str) -> socket.socket:
    """Listen on ``IP:PORT``.

    Raises:
        UsageError: it is no address, or it cannot be listened on.
    """
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), int(port)))
        listening.listen(128)
    except (OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"{address}: cannot listen there: {reason}", hint="name a free one: --address 127.0.0.1:7534"
        ) from error
    return listening


if __name__ == "__main__":
    sys.exit(main())
