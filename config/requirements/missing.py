"""``python config/requirements/missing.py FILE``: entries of FILE whose packages this interpreter lacks."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

_BLOCK = re.compile(r"^(\S+?)==.*\n(?:^ .*\n)*", re.MULTILINE)


def missing(text: str, present: set[str]) -> str:
    """The entries of a file with hashes, without those of the packages that are present."""
    return "".join(block[0] for block in _BLOCK.finditer(text) if block[1] not in present)


def canonical(name: str) -> str:
    """A package's name as the files have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    names = {canonical(each.metadata["Name"]) for each in distributions() if each.metadata["Name"]}
    sys.stdout.write(missing(Path(sys.argv[1]).read_text(), names))
