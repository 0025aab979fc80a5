"""What both machines must have equal, and how a difference is said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from sleepd.config.schema import Config
from sleepd.errors import WorkerFailed
from sleepd.host import worker_python
from sleepd.protocol.remote_job import SAME_VERSION, MachineIdentity
from sleepd.worker_program import NoAnswer, ask_worker

_SECONDS: Final = 3600.0
"""The weights of a large base are hashed once, from a slow disk too."""


async def own_identity(config: Config) -> MachineIdentity:
    """What this machine has.

    Raises:
        WorkerFailed: the worker's interpreter gives no answer.
    """
    python, model = worker_python(config.worker.python), config.model
    arguments = ["sleepd.worker.programs.identify", "--base", model.base, "--cache", model.cache_directory]
    arguments += ["--quantization", model.quantization, "--models", str(Path(config.state.directory, "models"))]
    try:
        return await asyncio.to_thread(ask_worker, python, arguments, MachineIdentity, seconds=_SECONDS)
    except NoAnswer as error:
        raise WorkerFailed(
            f"{python} does not say which base and which code it has: {error}",
            hint="set worker.python to an interpreter that has the same sage-sleepd",
        ) from error


def difference(home: MachineIdentity, host: MachineIdentity) -> tuple[str, str]:
    """What differs, and the next step; empty: nothing does."""
    if home.version != host.version:
        return f"sage-sleepd {host.version} is there, {home.version} here", SAME_VERSION
    if home.code != host.code:
        return (
            f"the code of sage-sleepd {home.version} there ({host.code}) is not that here ({home.code})",
            SAME_VERSION,
        )
    for identity, where in ((home, "here"), (host, "there")):
        if identity.base_problem:
            return f"the base cannot be used {where}: {identity.base_problem}", identity.base_hint
    if home.base != host.base:
        hint = "model.base and model.quantization must name the same files on both machines: compare their sha256"
        return f"another base is there ({host.base[:12]}…) than here ({home.base[:12]}…)", hint
    return "", ""
