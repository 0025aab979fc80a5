"""Whether a configuration makes sense: unknown keys, wrong values, contradictions, each reported with its place.

The keys are declared in ``schema``; where their values come from is ``layers``.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from sleepd.errors import ConfigError

from .limits import parse_limit
from .reporting_config import EVENTS
from .schema import SAFETY_GATES, Config
from .serve_config import WITHOUT_PACKED_BASES, incomplete, is_url
from .strategies import STRATEGIES, neighbours
from .worker_config import WorkerConfig

MAX_SOCKET_PATH_BYTES = 107
"""sun_path holds 108 bytes with its closing zero (unix(7))."""
BUFFER_FORMATS = (
    *("auto", "own", "alpaca", "chatgpt_export", "chatml", "claude_code", "codex", "hermes"),
    *("langfuse", "librechat", "litellm", "open_webui", "open_webui_feedback", "openai_messages"),
    *("openai_preference", "openclaw", "otel_genai", "request_log", "sharegpt", "sillytavern", "simonw_llm", "trl"),
)
"""``auto``, our own short form, and every format of ``buffer.formats``, which lies above this package."""
_SHOWN = 80
"""Characters of a wrong value or key in a message."""


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

    if config.buffer.paths and config.buffer.settle_seconds >= config.buffer.patience_seconds:
        refuse(
            "buffer.settle_seconds",
            f"less than buffer.patience_seconds ({config.buffer.patience_seconds})",
            config.buffer.settle_seconds,
            other="buffer.patience_seconds",
        )
    for key, expected, found, other in (*_of_the_engine(config.worker), *_of_the_sync(config)):
        refuse(key, expected, found, other=other)
    for key, expected, found in incomplete(config.serve):
        refuse(key, expected, found, other="serve.kind")
    if config.model.quantization != "none" and config.serve.kind in WITHOUT_PACKED_BASES:
        expected = f'"none" with serve.kind = "{config.serve.kind}", whose engine runs no base in another form'
        refuse("model.quantization", expected, config.model.quantization, other="serve.kind")
    state = os.path.realpath(config.state.directory)
    for path in config.buffer.paths:
        place = os.path.realpath(path)
        if place == state or (os.path.isdir(place) and os.path.commonpath([place, state]) == place):
            refuse("buffer.path", "files, not the state directory", path, other="state.directory")
        if os.path.dirname(place) == state:
            refuse("buffer.path", "files outside the state directory", path, other="state.directory")


def _of_the_engine(worker: WorkerConfig) -> Iterator[tuple[str, str, object, str]]:
    engine = worker.engine
    if engine == "ssh" and not worker.host:
        yield "worker.host", 'a machine, with worker.engine = "ssh"', "", "worker.engine"
    if engine == "ray" and not worker.ray_address:
        yield "worker.ray_address", 'an address, with worker.engine = "ray"', "", "worker.engine"
    if engine != "local" and not worker.trains:
        yield "worker.device", f'a device that trains, with worker.engine = "{engine}"', "none", "worker.engine"


def _of_the_sync(config: Config) -> Iterator[tuple[str, str, object, str]]:
    sync = config.sync
    if sync.directory and sync.remote:
        yield "sync.remote", "either it or sync.directory", sync.remote, "sync.directory"
    places = [os.path.realpath(path) for path in config.buffer.paths]
    if sync.policy == "merge" and os.path.realpath(sync.merge_directory or "/") not in places:
        expected = 'a directory that buffer.path names too, with sync.policy = "merge"'
        yield "sync.merge_directory", expected, sync.merge_directory, "sync.policy"


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
    _refuse_strategy(config, source)
    for key, value in _places(config):
        if "\0" in value or (value and not Path(value).is_absolute()):
            raise _refusal(source, key, "an absolute path", value)
    if config.buffer.format not in BUFFER_FORMATS:
        raise _refusal(source, "buffer.format", f"one of {', '.join(BUFFER_FORMATS)}", config.buffer.format)
    for name in config.promotion.harms:
        if name not in SAFETY_GATES:
            raise _refusal(source, "promotion.harms", f"any of {', '.join(SAFETY_GATES)}", name)
    for text in config.promotion.limits:
        try:
            parse_limit(text)
        except ValueError as error:
            raise _refusal(source, "promotion.limits", str(error), text) from None
    for section, given in (("evaluation", config.evaluation), ("serve", config.serve), ("notify", config.notify)):
        _refuse_command(f"{section}.command", given.command, source)
    if not is_url(config.serve.url):
        raise _refusal(source, "serve.url", "an address such as http://127.0.0.1:8080", config.serve.url)
    _refuse_reporting(config, source)
    if len(config.control.socket.encode()) > MAX_SOCKET_PATH_BYTES:
        expected = f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes"
        raise _refusal(source, "control.socket", expected, config.control.socket)


def _refuse_strategy(config: Config, source: str) -> None:
    name, explore = config.training.strategy, config.training.explore
    if name not in STRATEGIES:
        raise _refusal(source, "training.strategy", f"one of {', '.join(STRATEGIES)}", name)
    if explore > 0 and not neighbours(name):
        raise _refusal(source, "training.explore", f"0, for no strategy can be compared with {name}", explore)


def _places(config: Config) -> Iterator[tuple[str, str]]:
    """Every key that names a place, with its value."""
    yield from (
        *(("buffer.path", path) for path in config.buffer.paths),
        ("state.directory", config.state.directory),
        ("control.socket", config.control.socket),
        ("worker.gpu_lock", config.worker.gpu_lock),
        ("worker.ssh_config", config.worker.ssh_config),
        ("worker.ray_runtime_env", config.worker.ray_runtime_env),
        ("evaluation.probes", config.evaluation.probes),
        ("serve.key_file", config.serve.key_file),
        ("serve.directory", config.serve.directory),
        ("serve.ini", config.serve.ini),
        ("metrics.textfile", config.metrics.textfile),
        ("bundle.key", config.bundle.key),
        ("bundle.allowed_signers", config.bundle.allowed_signers),
        ("sync.directory", config.sync.directory),
        ("sync.merge_directory", config.sync.merge_directory),
        ("sync.rclone_config", config.sync.rclone_config),
    )


def _refuse_reporting(config: Config, source: str) -> None:
    for name in config.notify.events:
        if name not in EVENTS:
            raise _refusal(source, "notify.events", f"any of {', '.join(EVENTS)}", name)
    textfile = config.metrics.textfile
    if textfile and not textfile.endswith(".prom"):
        raise _refusal(source, "metrics.textfile", "a name that ends in .prom", textfile)


def _refuse_command(key: str, command: str, source: str) -> None:
    try:
        is_one = bool(shlex.split(command)) and "\0" not in command
    except ValueError:  # a quote that is not closed
        is_one = False
    if command and not is_one:
        raise _refusal(source, key, "a program with its arguments, quoted as in a shell", command)


def _refusal(source: str, key: str, expected: str, found: object) -> ConfigError:
    return ConfigError(f"{source}: {key}: expected {expected}, found {_shown(found)}", hint=f"fix {key} in {source}")


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
