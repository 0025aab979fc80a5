"""``python -m tests.faults.mutants MODULE… --tests FILE…``: change the code in one place at a time; tests must notice.

It works on a copy of the checkout. Each mutant meets the tests in a fork of a process that has loaded the libraries, up
to the first test that fails. A mutant that no test notices is printed as a difference of lines. Texts and docstrings
are left as they are.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("msgspec", "pytest", "structlog", "watchdog.observers")
"""Loaded once, before the forks. Nothing of the package is."""
CHEAP = "not worker and not model and not system and not processes"
SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
"""Each comparison and operator, and what takes its place."""


def changes_of(node: ast.AST) -> Iterator[ast.AST]:
    """Every changed form of this one node; the nodes within it stay as they are."""
    match node:
        case ast.Compare(ops=[first, *rest]) if type(first) in SWAPPED:
            yield replaced(node, ops=[SWAPPED[type(first)](), *rest])
        case ast.BoolOp() | ast.BinOp() if type(node.op) in SWAPPED:
            yield replaced(node, op=SWAPPED[type(node.op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield replaced(node, value=not value)
        case ast.Constant(value=int() | float() as value):
            yield replaced(node, value=value + 1)
        case ast.IfExp():
            yield replaced(node, body=node.orelse, orelse=node.body)
        case ast.Call(keywords=[_, *_] as keywords):
            for left_out in keywords:
                yield replaced(node, keywords=[each for each in keywords if each is not left_out])
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield replaced(node, value=ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Await() | ast.Yield()) | ast.Raise() | ast.AugAssign():
            yield ast.Pass()
        case _:
            pass


def replaced(node: Any, **fields: Any) -> Any:
    """A copy of the node with these fields."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def mutants_of(source: str) -> Iterator[tuple[int, str, str]]:
    """Of each mutant the line, what became what, and the whole source with the change, as ``ast`` writes it."""
    tree = ast.parse(source)
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            places = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
            for index, node in places:
                if not isinstance(node, ast.AST) or field == "annotation" or field == "returns":
                    continue
                for other in changes_of(node):
                    _put(parent, field, index, ast.copy_location(other, node))
                    changed = ast.unparse(ast.fix_missing_locations(tree))
                    _put(parent, field, index, node)
                    yield getattr(node, "lineno", 0), f"{ast.unparse(node)} -> {ast.unparse(other)}", changed


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def run_tests(tests: list[str]) -> None:
    """In a fork: leave with what pytest ends with (0: no test noticed anything)."""
    import pytest

    os.setsid()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", CHEAP, *tests])
    os._exit(int(code))


def is_noticed(tests: list[str], seconds: float) -> bool:
    """Whether a test fails, or the tests do not end in time."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(tests,))
    process.start()
    process.join(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, 9)  # what a test has started, too
    process.join()
    return process.exitcode != 0


def survivors(copied: Path, module: str, tests: list[str], *, most: int, seed: int, seconds: float) -> tuple[int, int]:
    """Try mutants of a module and print those that survive; gives how many were tried and how many survived."""
    path = copied / module
    source = path.read_text()
    found = list(mutants_of(source))
    drawn = sorted(random.Random(seed).sample(range(len(found)), min(most, len(found))))
    survived = 0
    try:
        for number in drawn:
            line, now, changed = found[number]
            path.write_text(changed)
            if not is_noticed(tests, seconds):
                survived += 1
                sys.stdout.write(f"{module}:{line}: {now}\n")
                sys.stdout.flush()
    finally:
        path.write_text(source)
    sys.stdout.write(f"{module}: {len(drawn)} of {len(found)} mutants tried, {survived} survived\n")
    return len(drawn), survived


def main() -> int:
    """Try them; 1 where one survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="+", help="files of the package, as sleepd/store/reservoir.py")
    parser.add_argument("--tests", nargs="+", required=True, help="what pytest gets: the tests of these modules")
    parser.add_argument("--most", type=int, default=10**6, help="of each module at most so many, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="after so long a mutant counts as noticed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copied = Path(directory, "checkout")
        shutil.copytree(ROOT, copied, ignore=shutil.ignore_patterns(".*", "build", "dist"))
        os.chdir(copied)
        sys.path[:] = [str(copied), *(each for each in sys.path if each not in ("", str(ROOT)))]
        os.environ["PYTHONPATH"], sys.dont_write_bytecode = str(copied), True
        for name in LIBRARIES:
            importlib.import_module(name)
        if is_noticed(asked.tests, asked.seconds):
            sys.exit("mutants: the tests fail, or do not end in time, on the code as it is")
        tried = [
            survivors(copied, each, asked.tests, most=asked.most, seed=asked.seed, seconds=asked.seconds)
            for each in asked.modules
        ]
    return int(any(survived for _, survived in tried))


if __name__ == "__main__":
    sys.exit(main())
