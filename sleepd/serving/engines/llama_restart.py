"""llama-server as a systemd unit of the operator's: the adapter stands in an environment file, and the unit restarts.

``sleepctl setup-serve`` writes, once and as root, a drop-in that takes that file into the unit, and lets the service's
user restart this one unit. ``POST /lora-adapters`` is never used: it leaves the cache of prompts as it was, so that
long prompts are answered by neither base nor adapter, and an unknown adapter is a success that turns everything off.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from sleepd.config.serve_config import ENVIRONMENT_FILE, LORA_VARIABLE
from sleepd.errors import EngineFailed
from sleepd.files import replace_file
from sleepd.host import SYSTEMD_VARIABLES
from sleepd.protocol.deployment.serve_messages import Generation
from sleepd.text.shell import command_line

from .engine import Bench, Slot, await_ready, until_idle

_READABLE: Final = 0o644
_SHOWN: Final = 300


class LlamaRestart:
    """``llama-server --lora FILE`` in a unit; see ``engine.Engine``."""

    can_start = True
    can_put_back = True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def prepare(self, generation: Generation | None) -> Path | None:
        """As ``Engine.prepare``."""
        return None if generation is None else self._bench.to_gguf(Path(generation.directory), self._bench.adapters)

    def wait_until_idle(self, seconds: float) -> bool:
        """As ``Engine.wait_until_idle``."""
        return until_idle(self._is_idle, self._bench, seconds)

    def _is_idle(self) -> bool:
        return not any(slot.is_processing for slot in self._bench.server.json("GET", "/slots", list[Slot]))

    def swap(self, prepared: Path | None) -> None:
        """As ``Engine.swap``."""
        argument = "" if prepared is None else f"--lora {prepared}"
        replace_file(self._bench.directory / ENVIRONMENT_FILE, f"{LORA_VARIABLE}={argument}\n".encode(), mode=_READABLE)
        self._systemctl("restart")
        await_ready(self._bench, "/health")

    def _systemctl(self, verb: str) -> None:
        settings = self._bench.settings
        command = ["systemctl", *(["--user"] if settings.user_unit else []), "--no-ask-password", verb, settings.unit]
        environment = {name: value for name, value in os.environ.items() if name not in SYSTEMD_VARIABLES}
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=settings.ready_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            text = f"{settings.unit} did not {verb} within {settings.ready_seconds:g} s"
            raise EngineFailed(text, hint=self._journal) from None
        except OSError as error:
            raise EngineFailed(f"no systemctl could be started: {error.strerror}", hint="is systemd there?") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().split("\n")[-1][:_SHOWN]
            text = (
                f"{command_line('systemctl', verb, settings.unit)} ended with {done.returncode}: {said or 'no message'}"
            )
            is_denied = "denied" in said.lower() or "authentication" in said.lower()
            raise EngineFailed(text, hint="sudo sleepctl setup-serve" if is_denied else self._journal)

    @property
    def _journal(self) -> str:
        settings = self._bench.settings
        return command_line("journalctl", *(["--user"] if settings.user_unit else []), "-n", 50, "-u", settings.unit)

    def free(self) -> None:
        """As ``Engine.free``."""
        self._systemctl("stop")

    def wake(self) -> None:
        """As ``Engine.wake``."""
        self._systemctl("start")
        await_ready(self._bench, "/health")
