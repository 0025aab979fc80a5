"""The fingerprint of the code that a cycle runs, so that an interrupted cycle goes on only with the same code."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sleepd.version import VERSION

_PACKAGE: Final = Path(__file__).parents[1]
_LIBRARIES: Final = ("torch", "transformers", "peft", "safetensors")
_NOT_OF_A_CYCLE: Final = frozenset({"sleepctl", "demo"})
"""Packages that the worker never imports. The rest counts: one file too few spoils a cycle."""


def fingerprinted_files(package: Path = _PACKAGE) -> Iterator[Path]:
    """Every file of code or of words below ``package`` that a worker could use, in a fixed order."""
    for file in sorted(package.rglob("*")):
        place = file.relative_to(package)
        if file.suffix in (".py", ".toml", ".txt") and place.parts[0] not in _NOT_OF_A_CYCLE:
            yield file


def code_fingerprint(package: Path = _PACKAGE) -> str:
    """Changes with anything that could make the second half of a training differ from the first.

    Returns:
        our version, those of the libraries, and 16 hexadecimal digits over names and contents of our files.
    """
    libraries = "/".join(importlib.metadata.version(name) for name in _LIBRARIES)
    return f"{VERSION}/{libraries}/{own_files_digest(package)}"


def own_files_digest(package: Path = _PACKAGE) -> str:
    """16 hexadecimal digits over names and contents of our files that a worker could use."""
    total = hashlib.sha256()
    for file in fingerprinted_files(package):
        content = file.read_bytes()
        total.update(f"{file.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]
