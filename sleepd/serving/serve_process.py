"""The short-lived process that speaks to the engine: the daemon has no network, and what an engine sends is hostile.

It serves one request and ends (to watch the engine is one, too): ``python -m sleepd.serving.serve_process --fd N`` on
a connected socket, or, started by sage-sleep-serve.socket, on the first connection that it accepts. With
``--config FILE`` it serves only the engine that this file names: whoever gets hold of the daemon's user cannot have it
speak to anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import select
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from sleepd.config.layers import load
from sleepd.config.serve_config import ServeConfig
from sleepd.errors import ConfigError, ProtocolError, SleepdError
from sleepd.files import make_directory, open_lock
from sleepd.protocol.deployment.serve_messages import (
    MAX_LINE_BYTES,
    ServeOutcome,
    ServeRequest,
    ServeStep,
    decode_request,
    encode,
)

from .endpoint import Endpoint
from .engine_instance import ListeningEngine, watch
from .engines.engine import Bench
from .engines.kinds import engine_of
from .ensure import Round
from .gguf_conversion import prepared_gguf
from .http import HttpLimits, HttpServer
from .key_file import read_key
from .model_merging import write_merged
from .proof import Prover

CREDENTIAL: Final = "sage-sleepd-engine-key"
WATCH_SECONDS: Final = 3600.0
"""So long one request to watch lasts, at most."""
_FIRST_PASSED: Final = 3
"""The first descriptor that systemd passes on (sd_listen_fds(3))."""


def main(arguments: list[str] | None = None) -> int:
    """Serve one request."""
    parser = argparse.ArgumentParser(prog="python -m sleepd.serving.serve_process", description=__doc__)
    parser.add_argument("--fd", type=int, help="a connected socket; without it, systemd passes a listening one")
    parser.add_argument("--config", type=Path, help="serve only the engine that this file names")
    options = parser.parse_args(arguments)
    with _connection(options.fd) as connection:
        line = connection.makefile("rb").readline(MAX_LINE_BYTES)
        try:
            outcome = serve(
                line,
                options.config,
                report=lambda step: connection.sendall(encode(step)),
                wait=lambda seconds: _has_hung_up(connection, seconds),
            )
        except SleepdError as error:
            outcome = ServeOutcome(result="not_served", text=error.message, hint=error.hint)
        except OSError as error:
            text = f"the serve process failed: {error.strerror or error}"
            outcome = ServeOutcome(result="not_served", text=text, hint="make space (df -h), or check serve.directory")
        with contextlib.suppress(ConnectionError):  # nobody listens any more
            connection.sendall(encode(outcome))
    return 0


def _has_hung_up(connection: socket.socket, seconds: float) -> bool:
    """Wait so long; whether the daemon hung up meanwhile: it sends nothing after its request."""
    return bool(select.select([connection], [], [], seconds)[0])


def serve(
    line: bytes, config: Path | None, *, report: Callable[[ServeStep], object], wait: Callable[[float], bool]
) -> ServeOutcome:
    """Carry out one request.

    Args:
        line: the request.
        config: the file that names the only engine to speak to; None: the request's.
        report: called before each step; it raises where nobody listens any more.
        wait: waits so many seconds at most; True: nobody listens any more.

    Raises:
        SleepdError: it cannot be begun.
        OSError: the disk failed, or nobody listens any more.
    """
    request = decode_request(line)
    settings = _settings(request, config)
    if request.action == "watch":
        look = ListeningEngine(settings.url).instance
        instance = look() if request.instance is None else request.instance
        return ServeOutcome(result="watched", instance=watch(instance, WATCH_SECONDS, look=look, wait=wait))
    directory = settings.directory_in(Path(request.state_directory))
    make_directory(directory)
    lock = open_lock(directory / "serving.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # an earlier process may still be at its end
        return _round(request, settings, directory, report).run()
    finally:
        os.close(lock)


def _round(
    request: ServeRequest, settings: ServeConfig, directory: Path, report: Callable[[ServeStep], object]
) -> Round:
    limits, key = HttpLimits(seconds=settings.answer_seconds), engine_key(settings.key_file)

    def to_gguf(adapter: Path, output: Path) -> Path:
        return prepared_gguf(
            adapter,
            output,
            python=request.python,
            base=request.base,
            quantization=settings.quantization,
            cache_directory=request.cache_directory,
        )

    merge = partial(
        write_merged,
        python=request.python,
        base=request.base,
        cache_directory=request.cache_directory,
        models=Path(request.state_directory) / "models",
    )
    known = [each for each in (request.wanted, *request.others) if each is not None]
    bench = Bench(
        settings=settings,
        directory=directory,
        server=HttpServer(settings.url.rstrip("/").removesuffix("/v1"), key, limits),
        to_gguf=to_gguf,
        merge=merge,
        pattern=known[0] if known else None,
    )
    endpoint = Endpoint(settings.url, settings.model, key, limits)
    look = ListeningEngine(settings.url).instance
    prover = Prover(endpoint, f"{settings.url} {settings.model}", directory, look)
    if request.is_asked_for:
        prover.forget_nearest()
    return Round(request, bench, engine_of(bench), prover, report)


def _settings(request: ServeRequest, config: Path | None) -> ServeConfig:
    try:
        settings = msgspec.convert(request.settings, ServeConfig)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"not understood: [serve] of the daemon: {error}", hint="restart sage-sleepd") from error
    if config is not None and load(config, environment=os.environ).config.serve != settings:
        text = f"the daemon's section [serve] is not that of {config}"
        raise ConfigError(text, hint="sleepctl reload")
    return settings


def engine_key(file: str) -> str:
    """The engine's key: of the file, else systemd's credential, else none.

    Raises:
        ConfigError: the file cannot be read, or others may read it.
    """
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), CREDENTIAL)
    return read_key(file or (str(credential) if credential.exists() else ""))


def _connection(descriptor: int | None) -> socket.socket:
    if descriptor is not None:
        return socket.socket(fileno=descriptor)
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise SystemExit("expected --fd, or a socket from systemd: this is started by sage-sleepd")
    with socket.socket(fileno=_FIRST_PASSED) as listening:
        return listening.accept()[0]


if __name__ == "__main__":
    sys.exit(main())
