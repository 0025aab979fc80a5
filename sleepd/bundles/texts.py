"""Texts that leave with a bundle, searched once more for secrets: what is found stays here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sleepd.errors import DECODE_ERRORS
from sleepd.text.secret_scan import SecretFinder


def without_secrets(content: bytes) -> tuple[bytes, int]:
    """JSON lines without those that hold a secret, and how many were left out. A line that is no JSON is left out."""
    finder, kept, dropped = SecretFinder(), list[bytes](), 0
    for line in content.splitlines(keepends=True):
        if not line.strip():
            continue
        if any(finder.find(text) for text in _strings(line)):
            dropped += 1
        else:
            kept.append(line)
    return b"".join(kept), dropped


def has_secret(content: bytes) -> bool:
    """Whether a JSON document holds a secret."""
    finder = SecretFinder()
    return any(finder.find(text) for text in _strings(content))


def _strings(document: bytes) -> Iterator[str]:
    """Every string of a JSON document, and those of JSON texts in it, as the arguments of calls are."""
    try:
        left: list[Any] = [msgspec.json.decode(document)]
    except DECODE_ERRORS as error:
        raise ValueError(f"no JSON: {error}") from error
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
            left += _inner(value)
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value


def _inner(text: str) -> list[Any]:
    """What a JSON text holds; nothing, where it is none."""
    if text[:1] not in ("{", "["):
        return []
    try:
        return [msgspec.json.decode(text)]
    except DECODE_ERRORS:
        return []
