"""llama-server as a systemd unit of the operator's: the adapter stands in an environment file, and the unit restarts.

``sleepctl setup-serve`` writes, once and as root, a drop-in that takes that file into the unit, and lets the service's
user restart this one unit. Without a unit, ``serve.command`` restarts the server. ``POST /lora-adapters`` is never
used: it leaves the cache of prompts as it was, so that long prompts are answered by neither base nor adapter, and an
unknown adapter is a success that turns everything off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sleepd.config.serve_config import ENVIRONMENT_FILE, LORA_VARIABLE
from sleepd.errors import EngineFailed
from sleepd.files import replace_file
from sleepd.protocol.deployment.serve_messages import Generation
from sleepd.text.shell import command_line

from .engine import Bench, Slot, await_ready, until_idle
from .run_program import run_command, run_program

_READABLE: Final = 0o644


class LlamaRestart:
    """``llama-server --lora FILE`` in a unit; see ``engine.Engine``."""

    can_start = True
    can_put_back = True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._wanted: Generation | None = None

    def prepare(self, generation: Generation | None) -> Path | None:
        """As ``Engine.prepare``."""
        self._wanted = generation
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
        if self._bench.settings.unit:
            self._systemctl("restart")
        else:
            run_command(self._bench.settings, self._wanted, prepared)
        await_ready(self._bench, "/health")

    def _systemctl(self, verb: str) -> None:
        settings = self._bench.settings
        command = ["systemctl", *(["--user"] if settings.user_unit else []), "--no-ask-password", verb, settings.unit]
        try:
            run_program(
                command, command_line("systemctl", verb, settings.unit), settings.ready_seconds, hint=self._journal
            )
        except EngineFailed as error:
            if "denied" in error.message.lower() or "authentication" in error.message.lower():
                raise EngineFailed(error.message, hint="sudo sleepctl setup-serve") from error
            raise

    @property
    def _journal(self) -> str:
        settings = self._bench.settings
        return command_line("journalctl", *(["--user"] if settings.user_unit else []), "-n", 50, "-u", settings.unit)

    def free(self) -> None:
        """As ``Engine.free``."""
        if not self._bench.settings.unit:
            text = "serve.command restarts llama-server, and cannot stop it"
            raise EngineFailed(text, hint="set serve.free_before_training = false")
        self._systemctl("stop")

    def wake(self) -> None:
        """As ``Engine.wake``."""
        if self._bench.settings.unit:
            self._systemctl("start")
            await_ready(self._bench, "/health")
