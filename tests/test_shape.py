"""The shape of classes: where their attributes are born."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_attributes_are_born_in_init() -> None:
    """What a method assigns to ``self`` is also assigned or annotated in ``__init__`` or in the class body."""
    born_elsewhere = [
        f"{path.relative_to(ROOT)} {owner.name}.{name}"
        for path in sorted((ROOT / "sleepd").rglob("*.py"))
        for owner in ast.walk(ast.parse(path.read_text()))
        if isinstance(owner, ast.ClassDef)
        for name in sorted(_assigned_in_methods(owner) - _declared(owner))
    ]
    assert born_elsewhere == []


def _declared(owner: ast.ClassDef) -> set[str]:
    """Names of the class body and of ``__init__``; of a base class in the same package nothing is known here."""
    names = {target.id for node in owner.body for target in _targets(node) if isinstance(target, ast.Name)}
    return names | {name for method in _methods(owner) if method.name == "__init__" for name in _assigned(method)}


def _assigned_in_methods(owner: ast.ClassDef) -> set[str]:
    return {name for method in _methods(owner) if method.name != "__init__" for name in _assigned(method)}


def _methods(owner: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in owner.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _assigned(method: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """The names that follow ``self.`` on the left of an assignment, in a tuple or alone."""
    return {
        part.attr
        for node in ast.walk(method)
        for target in _targets(node)
        for part in ast.walk(target)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Assign):
        yield from node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor):
        yield node.target
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield node.optional_vars
