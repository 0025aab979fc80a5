"""What every engine's module offers, and what it is given to work with."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import msgspec

from sleepd.config.serve_config import ServeConfig
from sleepd.errors import EngineFailed, EngineUnreachable
from sleepd.protocol.deployment.serve_messages import Generation
from sleepd.serving.http import HttpServer

KEPT_ADAPTERS: Final = 4
"""Prepared adapters that stay, the newest: the served one, the one before, and two to come back to."""
PAUSE_SECONDS: Final = 0.2
"""Between two questions whether the engine is idle, or ready."""


class Merge(Protocol):
    """Writes base and adapter as one model; see ``model_merging.write_merged``."""

    def __call__(self, adapter: Path | None, target: Path, *, form: str, expected: str, most_bytes: int) -> None:
        """Write it into ``target``, a new file or directory of at most so many bytes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What an engine's module works with.

    Attributes:
        settings: the section ``[serve]``.
        directory: where files for the engine are written.
        server: the engine.
        to_gguf: makes the GGUF file of a checkpoint in a directory, or finds it there.
        merge: writes a checkpoint, or (None) nothing, merged into the base.
        pattern: a generation of the base that is in use; None: there is none yet.
        sleep: waits for so many seconds.
    """

    settings: ServeConfig
    directory: Path
    server: HttpServer
    to_gguf: Callable[[Path, Path], Path]
    merge: Merge
    pattern: Generation | None = None
    sleep: Callable[[float], object] = field(default=time.sleep)

    @property
    def adapters(self) -> Path:
        """Where prepared adapters stand."""
        return self.directory / "adapters"


class Slot(msgspec.Struct, frozen=True):
    """One of llama-server's, as ``/slots`` shows it."""

    is_processing: bool = False


class Engine(Protocol):
    """One kind of engine. The base itself is the generation None."""

    can_start: bool
    """Whether a swap starts an engine that does not answer."""
    can_put_back: bool
    """Whether it can be given something else than ``current`` names."""

    def prepare(self, generation: Generation | None) -> Path | None:
        """What ``swap`` takes for it; made once and found again. The engine is not touched.

        Raises:
            SleepdError: it cannot be made.
            OSError: the disk did not take it.
        """
        ...

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait at most so long until no request is under way; whether there is none."""
        ...

    def swap(self, prepared: Path | None) -> None:
        """Have the engine run it, and wait until it is ready.

        Raises:
            SleepdError: it does not run it.
            OSError: the disk did not take what is written for the engine.
        """
        ...

    def free(self) -> None:
        """Have the engine give the GPU back until it is asked again.

        Raises:
            SleepdError: it cannot.
        """
        ...

    def wake(self) -> None:
        """Undo ``free``; without effect on an engine that is awake.

        Raises:
            SleepdError: it cannot.
        """
        ...


def adapter_name(generation: Generation) -> str:
    """The name of a prepared adapter: an engine never sees other bytes under a name that it knows."""
    return f"cycle_{generation.cycle:03d}-{generation.sha256[:12]}"


def until(holds: Callable[[], bool], seconds: float, sleep: Callable[[float], object]) -> bool:
    """Wait at most so long until ``holds``; whether it does. An engine that does not answer holds nothing."""
    left = seconds
    while True:
        with contextlib.suppress(EngineUnreachable, EngineFailed):
            if holds():
                return True
        if left <= 0:
            return False
        sleep(PAUSE_SECONDS)
        left -= PAUSE_SECONDS


def until_idle(is_idle: Callable[[], bool], bench: Bench, seconds: float) -> bool:
    """As ``until``; an engine that does not tell is not waited for."""
    left = seconds
    try:
        while not is_idle():
            if left <= 0:
                return False
            bench.sleep(PAUSE_SECONDS)
            left -= PAUSE_SECONDS
    except (EngineUnreachable, EngineFailed):
        return False
    return True


def await_ready(bench: Bench, path: str) -> None:
    """Wait until the engine answers ``path`` with success.

    Raises:
        EngineUnreachable: it did not in time.
    """
    seconds = bench.settings.ready_seconds
    if not until(lambda: bench.server.request("GET", path).status == 200, seconds, bench.sleep):
        raise EngineUnreachable(
            f"the engine at {bench.server.url} is not ready {seconds:g} s after the swap",
            hint="its own log says why",
        )


def remove_old(directory: Path, used: Path | None) -> None:
    """Remove prepared adapters beyond the newest ``KEPT_ADAPTERS``; ``used`` stays and counts as the newest."""
    if not directory.is_dir():
        return
    if used is not None:
        os.utime(used)
    prepared = (each for each in directory.iterdir() if each.name.startswith("cycle_"))
    newest_first = sorted(prepared, key=lambda each: each.lstat().st_mtime_ns, reverse=True)
    for each in newest_first[KEPT_ADAPTERS:]:
        if each == used:
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)
