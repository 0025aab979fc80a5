"""The operator's own program puts the adapter into the engine; the proof is ours."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Final

from sleepd.errors import EngineFailed
from sleepd.host import SYSTEMD_VARIABLES
from sleepd.protocol.deployment.serve_messages import Generation

from .engine import Bench, await_ready

_SHOWN: Final = 300
"""Characters of the program's last line that an error quotes."""


class CommandEngine:
    """An engine that the operator's program serves; see ``engine.Engine``."""

    can_start = True
    can_put_back = True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._wanted: Generation | None = None

    def prepare(self, generation: Generation | None) -> Path | None:
        """As ``Engine.prepare``."""
        self._wanted = generation
        return None if generation is None else Path(generation.directory)

    def wait_until_idle(self, seconds: float) -> bool:  # noqa: ARG002 - only the program knows
        """As ``Engine.wait_until_idle``."""
        return True

    def swap(self, prepared: Path | None) -> None:
        """As ``Engine.swap``."""
        settings = self._bench.settings
        environment = {name: value for name, value in os.environ.items() if name not in SYSTEMD_VARIABLES}
        environment |= {
            "SLEEPD_CYCLE": str(self._wanted.cycle if self._wanted else 0),
            "SLEEPD_ADAPTER": str(prepared or ""),
            "SLEEPD_MODEL": settings.model,
            "SLEEPD_URL": settings.url,
        }
        try:
            done = subprocess.run(
                shlex.split(settings.command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=settings.ready_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            text = f"serve.command did not end within {settings.ready_seconds:g} s"
            raise EngineFailed(text, hint="raise serve.ready_seconds, or let the program end") from None
        except OSError as error:
            text = f"serve.command could not be started: {error.strerror}"
            raise EngineFailed(text, hint="sleepctl config show serve") from error
        if done.returncode != 0:
            last = done.stdout.decode("utf-8", "replace").strip().split("\n")[-1][:_SHOWN]
            text = f"serve.command ended with {done.returncode}: {last or 'no message'}"
            raise EngineFailed(text, hint="run it by hand with the variables that config/README.md names")
        await_ready(self._bench, "/v1/models")

    def free(self) -> None:
        """As ``Engine.free``."""
        raise EngineFailed("serve.command cannot free the GPU", hint="set serve.free_before_training = false")

    def wake(self) -> None:
        """It was never freed."""
