"""Where the configuration comes from: layers, each of which overrides single keys of those before it.

1. the built-in defaults;
2. systemd's ``$STATE_DIRECTORY`` and ``$RUNTIME_DIRECTORY``;
3. the configuration file;
4. the drop-ins: ``conf.d/*.toml`` beside that file, in lexical order;
5. the environment: ``SLEEPD_SECTION_KEY``, such as ``SLEEPD_TRIGGERS_MIN_EXPERIENCES=10``.

Every layer must be right by itself, so that an error is found where it stands and not where it comes to light. What is
wrong anywhere is refused as a whole: there is no half of a configuration.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sleepd.errors import ConfigError
from sleepd.files import open_regular

from .checks import convert, printable, refuse_contradictions
from .schema import Config

DROP_INS = "conf.d"
MAX_FILE_BYTES = 64 * 1024
"""The file with every key has 3 KB; the parser takes some 50 ms for so much."""
MAX_DROP_INS = 100

PREFIX = "SLEEPD_"
OTHER_VARIABLES = (
    "SLEEPD_CONFIG",
    "SLEEPD_SOCKET",
    "SLEEPD_TORCH",
    "SLEEPD_ADAPTER",
    "SLEEPD_BASE",
    "SLEEPD_QUANTIZATION",
    "SLEEPD_SYSTEM_PROMPT",
    "SLEEPD_CYCLE",
    "SLEEPD_MODEL",
    "SLEEPD_URL",
)
"""Names with the prefix that are not keys: where the configuration is, where sleepctl connects to, what install.sh
installs; and what the operator's commands get, which may call sleepctl."""
VARIABLES = {
    f"{PREFIX}{section}_{key}".upper(): (section, key)
    for section in Config.__struct_fields__
    for key in getattr(Config(), section).__struct_fields__
}
"""Section and key that each variable sets."""


class Layered(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration, and where it came from."""

    config: Config
    origins: dict[str, str]
    """For each key that something set (``section.key``): the file or ``$VARIABLE`` that had the last word."""
    files: list[str]
    """The files that were read, in order: the configuration file, then the drop-ins."""


class _Layer(msgspec.Struct, frozen=True):
    source: str
    values: Mapping[str, Any]
    """A decoded document."""


def load(path: Path | None, *, environment: Mapping[str, str]) -> Layered:
    """The configuration in the file ``path``, its drop-ins and the environment.

    Args:
        path: the configuration file; None: there is none, and so no drop-ins.
        environment: of the process.

    Raises:
        ConfigError: a layer cannot be read or has an error, or two layers contradict each other.
    """
    files = [] if path is None else [_file(path), *(_file(each) for each in _drop_ins(path.parent / DROP_INS))]
    merged: dict[str, dict[str, Any]] = {}
    origins = {}
    for layer in (*_systemds(environment), *files, *_variables(environment)):
        convert(layer.values, layer.source)
        for section, table in layer.values.items():
            merged.setdefault(section, {}).update(table)
            origins.update({f"{section}.{key}": layer.source for key in table})
    config = convert(merged, "the configuration")
    refuse_contradictions(config, origins)
    return Layered(config=config, origins=origins, files=[layer.source for layer in files])


# --- files ---


def _drop_ins(directory: Path) -> list[Path]:
    """The drop-ins in lexical order. What editors leave behind (``10-a.toml~``, ``.10-a.toml.swp``) is none."""
    try:
        found = sorted(name for name in os.listdir(directory) if name.endswith(".toml") and not name.startswith("."))
    except FileNotFoundError:
        if directory.is_symlink():
            raise _unreadable(directory, "it is a symbolic link to a missing file") from None
        return []
    except OSError as error:
        raise _unreadable(directory, _sentence(error)) from None
    if len(found) > MAX_DROP_INS:
        source = printable(str(directory))
        raise ConfigError(
            f"{source}: expected at most {MAX_DROP_INS} drop-ins, found {len(found)}", hint=f"move some out of {source}"
        )
    return [directory / name for name in found]


def _file(path: Path) -> _Layer:
    source = printable(str(path))
    try:
        return _Layer(source, tomllib.loads(_read(path).decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML, or an integer too long to be one
        raise ConfigError(
            f"{source}: not TOML: {_sentence(error)}", hint=f"fix {source}, then: sleepctl config check"
        ) from None


def _read(path: Path) -> bytes:
    try:
        with open_regular(path, follows_links=True) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a path
        is_dangling = isinstance(error, FileNotFoundError) and path.is_symlink()
        raise _unreadable(
            path, "it is a symbolic link to a missing file" if is_dangling else _sentence(error)
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{printable(str(path))}: expected at most {MAX_FILE_BYTES} bytes, found more",
            hint="is it a configuration file? `sleepctl config show` lists the keys",
        )
    return content


def _unreadable(path: Path, why: str) -> ConfigError:
    hint = f"fix or remove {printable(str(path))}"
    if path.parent.name != DROP_INS and path.name != DROP_INS:
        hint = "name another file with --config, or fix its permissions"
    return ConfigError(f"{printable(str(path))}: cannot be read: {why}", hint=hint)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return printable(str(error))[:200] or type(error).__name__


# --- the environment ---


def _systemds(environment: Mapping[str, str]) -> Iterator[_Layer]:
    # systemd may name several directories, separated by colons; ours is the first.
    for name, section, key, below in (
        ("STATE_DIRECTORY", "state", "directory", ""),
        ("RUNTIME_DIRECTORY", "control", "socket", "/sleepd.sock"),
    ):
        directory = environment.get(name, "").split(":")[0]
        if directory:
            yield _Layer(f"${name}", {section: {key: _unicode(name, directory) + below}})


def _variables(environment: Mapping[str, str]) -> Iterator[_Layer]:
    """A layer for each variable, so that an error names it."""
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        if name not in VARIABLES:
            close = difflib.get_close_matches(name, (*VARIABLES, *OTHER_VARIABLES), 1)
            meant = f"did you mean {close[0]}?" if close else "`sleepctl config show` lists the keys"
            raise ConfigError(
                f"${printable(name)[:80]}: expected {PREFIX}SECTION_KEY with a known key, found {ascii(name)[:80]}",
                hint=meant,
            )
        section, key = VARIABLES[name]
        value = _unicode(name, environment[name])
        is_text = isinstance(getattr(getattr(Config(), section), key), str)
        yield _Layer(f"${name}", {section: {key: value if is_text else _toml_value(value)}})


def _toml_value(text: str) -> Any:
    """The TOML value that ``text`` is; itself if it is none, which the key's type then refuses."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return document["value"] if len(document) == 1 else text


def _unicode(name: str, value: str) -> str:
    """``value``, unless it holds bytes that are no UTF-8: it is to travel in JSON."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"${name}: expected UTF-8, found {ascii(value)[:80]}", hint=f"unset {name}") from None
    return value


def require_buffer(config: Config, source: str) -> None:
    """Refuse a configuration that names no buffer.

    Raises:
        ConfigError: it names none.
    """
    if not config.buffer.paths:
        raise ConfigError(
            f"{source}: buffer.path: expected the path of the experience buffer, found nothing",
            hint=f"in {source}, under [buffer], set path to the file that your agent writes",
        )
