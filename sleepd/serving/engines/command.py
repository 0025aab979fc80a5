"""The operator's own program puts the adapter into the engine; the proof is ours."""

from __future__ import annotations

from pathlib import Path

from sleepd.errors import EngineFailed
from sleepd.protocol.deployment.serve_messages import Generation

from .engine import Bench, await_ready
from .run_program import run_command


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
        run_command(self._bench.settings, self._wanted, prepared)
        await_ready(self._bench, "/v1/models")

    def free(self) -> None:
        """As ``Engine.free``."""
        raise EngineFailed("serve.command cannot free the GPU", hint="set serve.free_before_training = false")

    def wake(self) -> None:
        """It was never freed."""
