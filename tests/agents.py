"""An agent that writes experiences, and the configuration of whoever watches it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sleepd.buffer.columns import BufferColumns
from sleepd.config.buffer_config import BufferConfig
from sleepd.config.render import render
from sleepd.config.schema import Config, ControlConfig, StateConfig
from sleepd.config.triggers_config import TriggersConfig
from sleepd.config.worker_config import WorkerConfig

TOPICS = ("tide", "lamp", "gull", "rope", "fog", "bell", "oar", "net", "pier", "salt", "kelp", "crab")


def columns(
    keys: Sequence[int], *, groups: Sequence[int] | None = None, saliences: Sequence[float] | None = None
) -> BufferColumns:
    """A buffer of these id hashes: each experience is its own content, with a salience of 0.7, where nothing else is
    given.
    """
    return BufferColumns(
        keys=array("Q", keys),
        groups=array("Q", keys if groups is None else groups),
        conversations=array("Q", keys if groups is None else groups),
        saliences=array("d", [0.7] * len(keys) if saliences is None else saliences),
        marked=array("B", bytes(len(keys))),
    )


def experiences(count: int, *, start: int = 0, salience: float = 0.8) -> list[dict[str, Any]]:
    """So many different experiences in the usual form."""
    return [
        {
            "id": f"{number:016x}",
            "prompt": f"What about the {TOPICS[number % 12]}, case {number}?",
            "response": f"I keep the {TOPICS[number % 12]} in order; that is rule {number}.",
            "salience": {"surprise": 0.5, "novelty": 0.6, "total": salience},
            "session": 1,
            "timestamp": "2026-01-10T06:00:00",
        }
        for number in range(start, start + count)
    ]


def write_buffer(path: Path, records: list[dict[str, Any]]) -> None:
    """Rewrite the buffer by rename, as careful agents do."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(records))
    temporary.rename(path)


SECRET = b"tests 157710".ljust(32, b".")
"""Of every state directory of ``config_for``, so that which experiences are held out is known."""


def place_secret(state: Path, secret: bytes = SECRET) -> None:
    """Have a state directory use this secret for its holdout."""
    state.mkdir(parents=True, exist_ok=True)
    (state / "secret").write_bytes(secret)


def config_for(directory: Path, **triggers: Any) -> Config:
    """A configuration in which everything lies below ``directory``, and a state directory with a known secret."""
    place_secret(directory / "state")
    return Config(
        buffer=BufferConfig(path=str(directory / "buffer.json"), settle_seconds=0.05),
        triggers=TriggersConfig(**triggers),
        worker=WorkerConfig(silence_seconds=60.0, stop_seconds=5.0, threads=1, gpu_lock=""),
        state=StateConfig(directory=str(directory / "state"), min_free_megabytes=0),
        control=ControlConfig(socket=str(directory / "sleepd.sock")),
    )


def write_config(path: Path, config: Config) -> None:
    """The configuration as a file."""
    text = render(config, title="for a test", all_keys=False)
    path.write_text(text)


def changed(config: Config, section: str, **values: Any) -> Config:
    """The configuration with other values in one section."""
    part = msgspec.structs.replace(getattr(config, section), **values)
    return msgspec.structs.replace(config, **{section: part})


def unmet(decision: Any) -> dict[str, tuple[float, float]]:
    """The conditions that keep a decision from a cycle: what was found and what is required, by name."""
    return {each.name: (round(each.found, 1), each.required) for each in decision.conditions if not each.is_met}
