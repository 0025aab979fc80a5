"""One name for one thing: no two modules and no two classes of the package share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "sleepd"
MODULES = sorted(PACKAGE.rglob("*.py"))


def shared(places: dict[str, list[str]]) -> dict[str, list[str]]:
    """The names that stand in more than one place, with these places."""
    return {name: sorted(found) for name, found in places.items() if len(found) > 1}


def test_module_names_are_unique() -> None:
    """No two modules share a name, and no module bears the name of a package; ``__init__`` and ``__main__`` aside."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        name = path.parent.name if path.name == "__init__.py" else path.stem
        if name != "__main__":
            places[name].append(str(path.relative_to(PACKAGE.parent)))
    assert shared(places) == {}


def test_class_names_are_unique() -> None:
    """No two classes share a name, private ones and those inside functions included."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(PACKAGE.parent)}:{node.lineno}")
    assert shared(places) == {}
