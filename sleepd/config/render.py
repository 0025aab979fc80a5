"""The configuration as text: the shipped file and the reference in config/README.md, by the words in ``schema.py``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from sleepd.text.display import clean, is_shown

from .schema import FROM_ENVIRONMENT, Config


def fields(config: Config) -> Iterator[tuple[str, str, Any, str]]:
    """Section, key, value and meaning of every field, in order."""
    for section in Config.__struct_fields__:
        part = getattr(config, section)
        hints = get_type_hints(type(part), include_extras=True)
        for key in part.__struct_fields__:
            yield section, key, getattr(part, key), _meaning(hints[key])


def render(config: Config, *, title: str, all_keys: bool = True, origins: Mapping[str, str] | None = None) -> str:
    """``config`` as a TOML document with a comment above each key.

    Args:
        config: what to write.
        title: first comment line.
        all_keys: False leaves out what equals the default.
        origins: for each key (``section.key``) that is set, by what; written as a comment behind it. None: no comments.
    """
    default = {(section, key): value for section, key, value, _ in fields(Config())}
    lines = [f"# {clean(title)}"]
    current = ""
    for section, key, value, meaning in fields(config):
        is_default = default[section, key] == value
        if is_default and not all_keys:
            continue
        if section != current:
            lines += ["", f"[{section}]"]
            current = section
        lines += textwrap.wrap(meaning, 80, initial_indent="# ", subsequent_indent="# ")
        name = f"{section}.{key}"
        # Written out, these would win over systemd's environment.
        off = "# " if is_default and name in FROM_ENVIRONMENT and name not in (origins or {}) else ""
        came_from = "" if origins is None else f"  # {clean(origins.get(name, 'default'))}"
        lines.append(f"{off}{key} = {_toml(value)}{came_from}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """A Markdown table of every key, its default and its meaning."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    rows += [f"| `{s}.{k}` | `{json.dumps(v)}` | {m} |" for s, k, v, m in fields(Config())]
    return "\n".join(rows)


def _toml(value: Any) -> str:
    # As JSON writes it, but TOML has no surrogate pairs; nor does what is shown on a terminal hold a control character.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if is_shown(each) else f"\\U{ord(each):08x}" for each in text)


def _meaning(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        for extra in get_args(hint)[1:]:
            if isinstance(extra, msgspec.Meta) and extra.description:
                return extra.description
    raise TypeError(f"a configuration field has no description: {hint}")
