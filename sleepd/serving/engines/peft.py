"""An agent in Python that calls ``sleepd.serving.follow``: it watches ``current`` and swaps the adapter by itself.

Nothing is put into it, and nothing can be put back: it goes by the link. What it answers is proved all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sleepd.errors import EngineFailed
from sleepd.protocol.deployment.serve_messages import Generation

from .engine import Bench, await_ready

FOLLOW_SECONDS: Final = 5.0
"""So long after the link has changed the agent is asked: it looks at the link before a reply (``Following.update``)."""


class PeftFollower:
    """An agent that follows the link; see ``engine.Engine``."""

    can_start = False
    can_put_back = False

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def prepare(self, generation: Generation | None) -> Path | None:
        """As ``Engine.prepare``."""
        return None if generation is None else Path(generation.directory)

    def wait_until_idle(self, seconds: float) -> bool:  # noqa: ARG002 - it swaps between two replies
        """As ``Engine.wait_until_idle``."""
        return True

    def swap(self, prepared: Path | None) -> None:  # noqa: ARG002 - the link says it
        """As ``Engine.swap``."""
        self._bench.sleep(FOLLOW_SECONDS)
        await_ready(self._bench, "/v1/models")

    def free(self) -> None:
        """As ``Engine.free``."""
        raise EngineFailed("the agent cannot be asked to free the GPU", hint="set serve.free_before_training = false")

    def wake(self) -> None:
        """It was never freed."""
