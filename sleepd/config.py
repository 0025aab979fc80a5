"""The owner's configuration: what may be set, what it means, what it is when nobody sets it.

Each field states its meaning and its limits where it is declared; ``render`` writes the shipped file and the README's
reference from the same words, so they cannot disagree. This module reads the one file it is given and the environment
mapping it is given, nothing else.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from .errors import ConfigError
from .strategies import STRATEGIES

MAX_SOCKET_PATH_BYTES = 107
"""sun_path holds 108 bytes with its closing zero (unix(7))."""


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

    min_experiences: Annotated[int, Meta(ge=1, description="Experiences in the buffer.")] = 5
    min_new_experiences: Annotated[
        int, Meta(ge=0, description="Of these, experiences that the last judged cycle had not seen.")
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
        int, Meta(ge=1, description="Most new experiences in one cycle, the most salient first; the rest wait.")
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
        str, Meta(description="The interpreter with torch and the same sage-sleepd; empty: the daemon's own.")
    ] = ""
    threads: Annotated[int, Meta(ge=0, le=1024, description="CPU threads of torch; 0: as many as it may use.")] = 0
    silence_seconds: Annotated[
        float, Meta(ge=1.0, le=86400.0, description="A worker that sends no sign of life for so long is hung.")
    ] = 300.0
    stop_seconds: Annotated[
        float, Meta(ge=0.1, le=3600.0, description="A worker asked to stop is killed after so long.")
    ] = 30.0


class StateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where adapters and the ledger are kept."""

    directory: Annotated[str, Meta(min_length=1, description="Unset: $STATE_DIRECTORY, else the value shown.")] = (
        "/var/lib/sage-sleepd"
    )
    min_free_megabytes: Annotated[
        int, Meta(ge=0, description="No cycle starts with less free space than this in the state directory.")
    ] = 500


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
"""Keys that systemd's environment decides when the file leaves them out."""


def parse(text: bytes, *, source: str, environment: Mapping[str, str]) -> Config:
    """The configuration in ``text``.

    Args:
        text: a TOML document.
        source: the file's name, for messages.
        environment: ``STATE_DIRECTORY`` and ``RUNTIME_DIRECTORY`` are looked up here.

    Raises:
        ConfigError: with file, key, what was expected and what was found.
    """
    try:
        raw = tomllib.loads(text.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{source}: not TOML: {error}", hint=f"mend {source}, then: sleepctl config check") from None
    _fill_from_environment(raw, environment)
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, source) from None
    _refuse_contradictions(config, source)
    return config


def load(path: Path, *, environment: Mapping[str, str]) -> Config:
    """The configuration in the file ``path``.

    Raises:
        ConfigError: it cannot be read, or says something wrong.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}", hint="name another file with --config, or mend its permissions"
        ) from None
    return parse(text, source=str(path), environment=environment)


def discover(environment: Mapping[str, str]) -> Path | None:
    """The configuration file that is there: ``$SLEEPD_CONFIG``, the user's own, the system's; None if there is none."""
    named = environment.get("SLEEPD_CONFIG")
    if named:
        return Path(named)
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "/nonexistent")) / ".config")
    for directory in (home, "/etc"):
        candidate = Path(directory) / "sage-sleepd" / "config.toml"
        if candidate.is_file():
            return candidate
    return None


def _fill_from_environment(raw: dict[str, Any], environment: Mapping[str, str]) -> None:
    # systemd may name several directories, separated by colons; ours is the first.
    state = environment.get("STATE_DIRECTORY", "").split(":")[0]
    runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    for section, key, value in (
        ("state", "directory", state),
        ("control", "socket", f"{runtime}/sleepd.sock" if runtime else ""),
    ):
        table = raw.setdefault(section, {})
        if value and isinstance(table, dict):
            table.setdefault(key, value)


def _refuse_contradictions(config: Config, source: str) -> None:
    def refuse(key: str, expected: str, found: object) -> None:
        raise ConfigError(f"{source}: {key}: expected {expected}, found {found!r}", hint=f"mend {key} in {source}")

    if config.training.strategy not in STRATEGIES:
        refuse("training.strategy", f"one of {', '.join(STRATEGIES)}", config.training.strategy)
    for key, value in (
        ("buffer.path", config.buffer.path),
        ("state.directory", config.state.directory),
        ("control.socket", config.control.socket),
    ):
        if "\0" in value or (value and not Path(value).is_absolute()):
            refuse(key, "an absolute path", value)
    if len(config.control.socket.encode()) > MAX_SOCKET_PATH_BYTES:
        refuse("control.socket", f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes", config.control.socket)
    if config.buffer.path and config.buffer.settle_seconds >= config.buffer.patience_seconds:
        refuse(
            "buffer.settle_seconds",
            f"less than buffer.patience_seconds ({config.buffer.patience_seconds})",
            config.buffer.settle_seconds,
        )
    if config.buffer.path and Path(config.buffer.path) == Path(config.state.directory):
        refuse("buffer.path", "a file, not the state directory", config.buffer.path)


_AT = re.compile(r" - at `(?:key in )?\$?\.?(.*?)`$")
_UNKNOWN = re.compile(r"unknown field `(.+?)`")


def _explain(message: str, raw: dict[str, Any], source: str) -> ConfigError:
    """The sentence of msgspec as file, key, expected and found."""
    place = _AT.search(message)
    key = place.group(1).lstrip(".") if place else ""
    problem = message[: place.start()] if place else message
    unknown = _UNKNOWN.search(problem)
    if unknown:
        section = Config if not key else type(getattr(Config(), key))
        known = list(section.__struct_fields__)
        name = f"{key}.{unknown.group(1)}".lstrip(".")
        close = difflib.get_close_matches(unknown.group(1), known, 1)
        meant = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return ConfigError(f"{source}: {name}: expected a known key, found {unknown.group(1)!r}", hint=meant)
    found: Any = raw
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    expected = re.sub(r", got `.*?`$", "", problem[0].lower() + problem[1:])
    if problem.startswith("Invalid enum value"):
        section_name, _, field = key.partition(".")
        hints = get_type_hints(type(getattr(Config(), section_name)), include_extras=True)
        expected = f"expected one of {', '.join(get_args(get_args(hints[field])[0]))}"
    return ConfigError(f"{source}: {key}: {expected}, found {found!r}", hint=f"mend {key} in {source}")
