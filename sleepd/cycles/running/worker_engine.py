"""Where a cycle's worker runs: the one choice between the engines.

An engine is a command that the daemon starts as its worker (``worker_process``): ``--fd N STAGING`` is added, the job
lies in ``STAGING``, messages go over ``N``, SIGTERM asks it to stop. Whatever fulfils this runs cycles.
"""

from __future__ import annotations

import sys

import msgspec

from sleepd.config.schema import Config

from .worker_process import WorkerPolicy, worker_command


def engine_command(config: Config) -> tuple[str, ...]:
    """What starts a worker, here or on another machine."""
    if config.worker.engine == "local":
        return worker_command(config.worker)
    settings = msgspec.json.encode(config).decode()
    return (sys.executable, "-P", "-m", "sleepd.cycles.remote.remote_home", "--settings", settings)


def engine_policy(config: Config, command: tuple[str, ...] | None = None) -> WorkerPolicy:
    """How a worker is started and how long it may be silent; ``command`` in place of the engine's."""
    return WorkerPolicy(
        command=command or engine_command(config),
        silence_seconds=config.worker.silence_seconds,
        stop_seconds=config.worker.stop_seconds,
    )
