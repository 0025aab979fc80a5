"""A program that an engine's module starts: bounded in time, without systemd's variables, and quoted where it fails."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sleepd.config.serve_config import ServeConfig
from sleepd.errors import EngineFailed
from sleepd.host import SYSTEMD_VARIABLES
from sleepd.protocol.deployment.serve_messages import Generation

_SHOWN: Final = 300
"""Characters of the program's last line that an error quotes."""


def run_program(
    command: Sequence[str], name: str, seconds: float, *, hint: str, more: Mapping[str, str] | None = None
) -> None:
    """Run it to its end.

    Args:
        command: program and arguments.
        name: what an error calls it.
        seconds: it may take.
        hint: what an error advises.
        more: variables of its environment, beside our own.

    Raises:
        EngineFailed: it cannot be started, does not end in time, or ends with another status than 0.
    """
    environment = {name: value for name, value in os.environ.items() if name not in SYSTEMD_VARIABLES}
    try:
        done = subprocess.run(
            command,
            env=environment | dict(more or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        text = f"{name} did not end within {seconds:g} s"
        raise EngineFailed(text, hint="raise serve.ready_seconds, or let the program end") from None
    except OSError as error:
        raise EngineFailed(f"{name} could not be started: {error.strerror}", hint=hint) from error
    if done.returncode != 0:
        last = done.stdout.decode("utf-8", "replace").strip().split("\n")[-1][:_SHOWN]
        raise EngineFailed(f"{name} ended with {done.returncode}: {last or 'no message'}", hint=hint)


def run_command(settings: ServeConfig, generation: Generation | None, adapter: Path | None) -> None:
    """Run ``serve.command``, which puts ``adapter`` into the engine; raises as :func:`run_program`."""
    run_program(
        shlex.split(settings.command),
        "serve.command",
        settings.ready_seconds,
        hint="run it by hand with the variables that config/README.md names",
        more={
            "SLEEPD_CYCLE": str(generation.cycle if generation else 0),
            "SLEEPD_ADAPTER": str(adapter or ""),
            "SLEEPD_MODEL": settings.model,
            "SLEEPD_URL": settings.url,
        },
    )
