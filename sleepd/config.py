"""The owner's configuration: what may be set, what it means, what it is when nobody sets it.

Each field states its meaning and its limits where it is declared; ``config_text`` writes the shipped file and the
README's reference from the same words, so they cannot disagree. Where the values come from is ``config_layers``.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from .errors import ConfigError
from .strategies import STRATEGIES

MAX_SOCKET_PATH_BYTES = 107
"""sun_path holds 108 bytes with its closing zero (unix(7))."""
MOST = 10**9
"""Of experiences, or megabytes: more is a slip, and beyond 4300 digits Python refuses to print it."""
_SHOWN = 80
"""Characters of a wrong value or key in a message."""


class BufferConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the experiences come from."""

    path: Annotated[str, Meta(description="The experience buffer that the agent writes. Must be set.")] = ""
    settle_seconds: Annotated[
        float,
        Meta(ge=0.0, le=60.0, description="A change is read once the file was left alone for so long."),
    ] = 1.0
    patience_seconds: Annotated[
        float,
        Meta(ge=1.0, le=3600.0, description="A half-written file is an error only after it stayed so for so long."),
    ] = 30.0


class TriggersConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to sleep: all three conditions must hold."""

    min_experiences: Annotated[int, Meta(ge=1, le=MOST, description="Experiences in the buffer.")] = 5
    min_new_experiences: Annotated[
        int, Meta(ge=0, le=MOST, description="Of these, experiences that the last judged cycle had not seen.")
    ] = 2
    min_hours_between_sleep: Annotated[float, Meta(ge=0.0, le=8760.0, description="Hours since the last sleep.")] = 6.0
    check_interval_seconds: Annotated[
        float, Meta(ge=1.0, le=86400.0, description="The periodic check, for changes that inotify did not tell.")
    ] = 300.0
    cooldown_seconds: Annotated[
        float,
        Meta(
            ge=0.0,
            le=86400.0,
            description="Pause after a cycle without a verdict; doubled with each further one, to 6 h.",
        ),
    ] = 600.0

    overdue_hours: Annotated[
        float, Meta(gt=0.0, le=8760.0, description="A sleep that is due and held back for longer is a warning.")
    ] = 24.0
    max_cycles_a_day: Annotated[
        int, Meta(ge=1, le=MOST, description="More cycles than this in 24 hours are a warning.")
    ] = 12


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model learns."""

    base: Annotated[
        str,
        Meta(
            min_length=1,
            description='"embedded" (SmolLM2-135M-Instruct), a directory, a .gguf file, or a hub id in the cache.',
        ),
    ] = "embedded"
    cache_directory: Annotated[
        str, Meta(description="The hub cache to look in for a hub id; empty: the library's default place.")
    ] = ""
    system_prompt: Annotated[
        str, Meta(description="The system prompt that the agent runs with; empty: the model's own default.")
    ] = ""


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is trained, and how."""

    strategy: Annotated[
        str,
        Meta(
            description='A named set of hyperparameters: "consolidate", "rehearse" (for a few short experiences that '
            'state facts), or "gentle" (the older scheduler\'s recipe).'
        ),
    ] = "consolidate"
    min_salience: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Filters what is trained, not what is counted.")
    ] = 0.6
    max_experiences: Annotated[
        int,
        Meta(ge=1, le=MOST, description="Most new experiences in one cycle, the most salient first; the rest wait."),
    ] = 500
    max_holdout: Annotated[
        int, Meta(ge=1, le=1000, description="Most held-out experiences that a candidate is measured on.")
    ] = 64
    seed: Annotated[int, Meta(ge=0, le=2**31, description="For shuffling and for the adapter's first weights.")] = 0


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process that trains."""

    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Meta(description='"auto" takes CUDA and says so when it must fall back to the CPU; "cuda" fails instead.'),
    ] = "auto"
    python: Annotated[
        str,
        Meta(
            description="The interpreter with torch and the same sage-sleepd; empty: the one installed beside the "
            "daemon's, else the daemon's own."
        ),
    ] = ""
    gpu_lock: Annotated[
        str,
        Meta(
            description="Of all daemons that name this file, one trains at a time; nobody waits where it is absent, or "
            "empty here."
        ),
    ] = "/run/sage-sleepd/gpu.lock"
    threads: Annotated[int, Meta(ge=0, le=1024, description="CPU threads of torch; 0: as many as it may use.")] = 0
    silence_seconds: Annotated[
        float, Meta(ge=1.0, le=86400.0, description="A worker that sends no sign of life for so long is hung.")
    ] = 300.0
    resume_point_minutes: Annotated[
        float,
        Meta(ge=0.0, le=1440.0, description="How often training leaves a point to go on from after a crash."),
    ] = 5.0
    stop_seconds: Annotated[
        float, Meta(ge=0.1, le=3600.0, description="A worker asked to stop is killed after so long.")
    ] = 30.0


class StateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where adapters and the ledger are kept."""

    directory: Annotated[str, Meta(min_length=1, description="Unset: $STATE_DIRECTORY, else the value shown.")] = (
        "/var/lib/sage-sleepd"
    )
    min_free_megabytes: Annotated[
        int, Meta(ge=0, le=MOST, description="No cycle starts with less free space than this in the state directory.")
    ] = 500
    keep_promoted: Annotated[
        int,
        Meta(
            ge=1,
            le=MOST,
            description="So many of the newest promoted cycles keep their weights; the champion, the one before it and "
            "tagged ones always do.",
        ),
    ] = 5
    keep_rejected: Annotated[
        int,
        Meta(
            ge=0,
            le=MOST,
            description="So many of the newest rejected cycles keep their weights; tagged ones always do.",
        ),
    ] = 3


class ControlConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The socket that sleepctl speaks to."""

    socket: Annotated[
        str, Meta(min_length=1, description="Unset: $RUNTIME_DIRECTORY/sleepd.sock, else the value shown.")
    ] = "/run/sage-sleepd/sleepd.sock"
    socket_mode: Annotated[
        str, Meta(pattern=r"^0?[0-7]{3}$", description="Who may connect, and so read the status: its file mode.")
    ] = "0660"
    operator_group: Annotated[
        str,
        Meta(description="Its members may also force, cancel, pause and roll back, as root and the daemon's user may."),
    ] = "sage-sleepd"


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the journal gets."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least severe that is kept.")
    ] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. Every section may be left out."""

    buffer: BufferConfig = BufferConfig()
    triggers: TriggersConfig = TriggersConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    worker: WorkerConfig = WorkerConfig()
    state: StateConfig = StateConfig()
    control: ControlConfig = ControlConfig()
    log: LogConfig = LogConfig()


NEEDS_RESTART = ("state", "control")
"""Sections that a reload cannot change under a running daemon."""

FROM_ENVIRONMENT = ("state.directory", "control.socket")
"""Keys that systemd's environment decides when nothing else sets them."""


def convert(raw: Mapping[str, Any], source: str) -> Config:
    """The configuration in a decoded TOML document, with the defaults for what it leaves out.

    Args:
        raw: the document.
        source: where it stands, for messages: a file or a variable.

    Raises:
        ConfigError: with source, key, what was expected and what was found.
    """
    _refuse_unknown_keys(raw, source)
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, source) from None
    _refuse_values(config, source)
    return config


def refuse_contradictions(config: Config, origins: Mapping[str, str]) -> None:
    """Refuse values that are right each by itself and wrong together.

    Args:
        config: what is in effect.
        origins: source of each key that is set (``section.key``), for the message.

    Raises:
        ConfigError: with source, key, what was expected and what was found.
    """

    def refuse(key: str, expected: str, found: object, *, other: str) -> None:
        raise _refusal(origins.get(key) or origins.get(other, "built-in defaults"), key, expected, found)

    if config.buffer.path and config.buffer.settle_seconds >= config.buffer.patience_seconds:
        refuse(
            "buffer.settle_seconds",
            f"less than buffer.patience_seconds ({config.buffer.patience_seconds})",
            config.buffer.settle_seconds,
            other="buffer.patience_seconds",
        )
    if config.buffer.path and Path(config.buffer.path) == Path(config.state.directory):
        refuse("buffer.path", "a file, not the state directory", config.buffer.path, other="state.directory")


def discover(environment: Mapping[str, str]) -> Path | None:
    """The configuration file that is there: ``$SLEEPD_CONFIG``, the user's own, the system's; None if there is none."""
    named = environment.get("SLEEPD_CONFIG")
    if named:
        return Path(named)
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "/nonexistent")) / ".config")
    for directory in (home, "/etc"):
        candidate = Path(directory) / "sage-sleepd" / "config.toml"
        # Unlike Path.is_file, this is an answer also where a directory may not be searched or a name is too long.
        if os.path.isfile(candidate):
            return candidate
    return None


def _refuse_unknown_keys(raw: Mapping[str, Any], source: str) -> None:
    for section, table in raw.items():
        if section not in Config.__struct_fields__:
            raise _unknown(source, section, section, Config.__struct_fields__)
        known = type(getattr(Config(), section)).__struct_fields__
        for key in table if isinstance(table, dict) else ():
            if key not in known:
                raise _unknown(source, f"{section}.{key}", key, known)


def _unknown(source: str, name: str, key: str, known: tuple[str, ...]) -> ConfigError:
    close = difflib.get_close_matches(key, known, 1)
    meant = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return ConfigError(f"{source}: {_cut(printable(name))}: expected a known key, found {_shown(key)}", hint=meant)


def _refuse_values(config: Config, source: str) -> None:
    """What each value must be beyond its type and range."""
    if config.training.strategy not in STRATEGIES:
        raise _refusal(source, "training.strategy", f"one of {', '.join(STRATEGIES)}", config.training.strategy)
    for key, value in (
        ("buffer.path", config.buffer.path),
        ("state.directory", config.state.directory),
        ("control.socket", config.control.socket),
        ("worker.gpu_lock", config.worker.gpu_lock),
    ):
        if "\0" in value or (value and not Path(value).is_absolute()):
            raise _refusal(source, key, "an absolute path", value)
    if len(config.control.socket.encode()) > MAX_SOCKET_PATH_BYTES:
        expected = f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes"
        raise _refusal(source, "control.socket", expected, config.control.socket)


def _refusal(source: str, key: str, expected: str, found: object) -> ConfigError:
    return ConfigError(f"{source}: {key}: expected {expected}, found {_shown(found)}", hint=f"mend {key} in {source}")


def printable(text: str) -> str:
    """``text`` as it may stand in a line of a message: as it is, or escaped where it holds what cannot be printed."""
    return text if text.isprintable() else ascii(text)


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**18:
        return "a very large integer"  # Python refuses to print the largest ones
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"  # it may be as deep as the file is long
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_AT = re.compile(r" - at `\$\.?(.*?)`$")


def _explain(message: str, raw: Mapping[str, Any], source: str) -> ConfigError:
    """The sentence of msgspec as file, key, expected and found."""
    place = _AT.search(message)
    key = place.group(1) if place else ""
    problem = message[: place.start()] if place else message
    found: Any = raw
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    expected = re.sub(r", got `.*?`$", "", problem).removeprefix("Expected ")
    if problem.startswith("Invalid enum value"):
        section_name, _, field = key.partition(".")
        hints = get_type_hints(type(getattr(Config(), section_name)), include_extras=True)
        expected = f"one of {', '.join(get_args(get_args(hints[field])[0]))}"
    return _refusal(source, key, expected, found)
