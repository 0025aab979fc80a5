"""The engine of each ``serve.kind``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sleepd.config.serve_config import Kind
from sleepd.errors import ConfigError

from .command import CommandEngine
from .engine import Bench, Engine
from .llama_restart import LlamaRestart
from .llama_router import LlamaRouter
from .merged import Merged
from .peft import PeftFollower
from .vllm import Vllm

KINDS: Final[Mapping[Kind, Callable[[Bench], Engine]]] = {
    "llama-router": LlamaRouter,
    "llama-restart": LlamaRestart,
    "vllm": Vllm,
    "peft": PeftFollower,
    "merged": Merged,
    "command": CommandEngine,
}


def engine_of(bench: Bench) -> Engine:
    """The engine that the settings name.

    Raises:
        ConfigError: they name none.
    """
    kind = bench.settings.kind
    if kind not in KINDS:
        raise ConfigError(
            f"serve.kind: expected one of {', '.join(KINDS)}, found {kind!r}", hint="sleepctl config show"
        )
    return KINDS[kind](bench)
