"""Every function that sees text does work that grows with its length alone, whatever the text is like."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from tests.hostile_text import FUNCTIONS, LENGTH, SECRET_UNITS, SHAPES, SIZES, chat_functions, most_of, shaped, work_of

pytestmark = pytest.mark.no_cover  # steps are counted here, and counting them twice takes long

WORST = (
    *[("\u0301\u0323", "alone"), (" ", "framed"), ("\n", "framed"), ('\\"', "alone"), ("secret_", "alone")],
    *[("9", "alone"), ("\ufdfa", "alone"), ("[{", "alone")],
)
NAMES = sorted(FUNCTIONS)
OF_SECRETS = {"plain", "spelled", "without_gaps", "decoded", "find_personal", "masked, told", "holds_seed_phrase"} | {
    name for name in FUNCTIONS if name.startswith("find_")
}


def too_much(
    functions: Mapping[str, Callable[[str], Any]], given: Iterable[tuple[str, tuple[str, str], tuple[int, ...]]]
) -> dict[tuple[str, ...], float]:
    """Name and shape of what takes more steps than it may."""
    work = {(name, *shape): work_of(functions[name], shape, sizes, most_of(name)) for name, shape, sizes in given}
    return {key: steps for key, steps in work.items() if steps > most_of(key[0])}


def test_shapes_are_many_and_long() -> None:
    """More than a hundred shapes are tried, each of them close to 200,000 characters."""
    assert len({shaped(shape, 2_000) for shape in SHAPES}) > 200
    assert all(LENGTH * 0.9 < len(shaped(shape, LENGTH)) <= LENGTH for shape in SHAPES)


def test_quadratic_work_is_too_much() -> None:
    """A pattern that looks to the end of the text from each of its characters passes the bound at 25,000 of them."""
    found = too_much({"findall": lambda text: re.findall("a*b", text)}, [("findall", ("a", "alone"), (LENGTH // 8,))])
    assert list(found) == [("findall", "a", "alone")]


@pytest.mark.parametrize("name", NAMES)
def test_work_is_bounded_on_each_shape(name: str) -> None:
    """On a sixth of the shapes at 6,250 characters, and on the worst longer, a byte costs at most 300 plain steps.

    All shapes at 200,000 characters: ``python -m tests.hostile_text`` (minutes).
    """
    given = [(name, shape, SIZES[:1]) for shape in SHAPES[NAMES.index(name) % 6 :: 6]]
    given += [(name, shape, SIZES[1:2]) for shape in WORST]
    if name in OF_SECRETS:
        given += [(name, (unit, "alone"), (LENGTH // 12,)) for unit in SECRET_UNITS[NAMES.index(name) % 2 :: 2]]
    assert too_much(FUNCTIONS, given) == {}


def test_work_is_bounded_in_turn() -> None:
    """A sixth of the shapes at 50,000 characters is given to the functions in turn: each function meets some."""
    given = [(NAMES[number % len(NAMES)], shape, SIZES[1:2]) for number, shape in enumerate(SHAPES[::6])]
    assert too_much(FUNCTIONS, given) == {}


@pytest.mark.worker
@pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="NOT TESTED: needs the worker's libraries")
def test_work_of_encoding_is_bounded() -> None:
    """A quarter of the shapes at 6,250 characters, each worst one at 50,000, in turn to what the worker does to it."""
    functions = chat_functions()
    names = sorted(functions)
    given = [(names[number % len(names)], shape, SIZES[:1]) for number, shape in enumerate(SHAPES[::4])]
    given += [(names[number % len(names)], shape, SIZES[1:2]) for number, shape in enumerate(WORST)]
    assert too_much(functions, given) == {}
