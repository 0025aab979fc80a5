"""Every function that sees text does work that grows with its length alone, whatever the text is like."""

from __future__ import annotations

import importlib.util

import pytest

from tests.hostile_text import (
    FUNCTIONS,
    LENGTH,
    MOST_WORK,
    SECRET_UNITS,
    SHAPES,
    SIZES,
    chat_functions,
    shaped,
    work_of,
)

WORST = (
    *[("\u0301\u0323", "alone"), (" ", "framed"), ("\n", "framed"), ('\\"', "alone"), ("secret_", "alone")],
    *[("9", "alone"), ("\ufdfa", "alone"), ("[{", "alone")],
)
NAMES = sorted(FUNCTIONS)
OF_SECRETS = {"plain", "spelled", "without_gaps", "decoded", "find_personal", "masked, told", "holds_seed_phrase"} | {
    name for name in FUNCTIONS if name.startswith("find_")
}


def over(work: dict[object, float]) -> dict[object, float]:
    return {what: steps for what, steps in work.items() if steps > MOST_WORK}


def test_shapes_are_many_and_long() -> None:
    """More than a hundred shapes are tried, each of them close to 200,000 characters."""
    assert len({shaped(shape, 2_000) for shape in SHAPES}) > 200
    assert all(LENGTH * 0.9 < len(shaped(shape, LENGTH)) <= LENGTH for shape in SHAPES)


@pytest.mark.parametrize("name", NAMES)
def test_work_is_bounded_on_each_shape(name: str) -> None:
    """On each shape at 6,250 characters, and on the worst longer, a character costs at most 300 plain steps.

    All shapes at 200,000 characters: ``python -m tests.hostile_text`` (minutes).
    """
    function = FUNCTIONS[name]
    work = {shape: work_of(function, shape, SIZES[:1]) for shape in SHAPES}
    work |= {shape: work_of(function, shape, SIZES[1:2]) for shape in WORST}
    if name in OF_SECRETS:
        work |= {(unit, "alone"): work_of(function, (unit, "alone"), SIZES[1:2]) for unit in SECRET_UNITS}
    assert over(work) == {}


def test_work_is_bounded_in_turn() -> None:
    """Half of the shapes at 200,000 characters are given to the functions in turn: each function meets some."""
    given = [(NAMES[number % len(NAMES)], shape) for number, shape in enumerate(SHAPES[::2])]
    assert over({(name, shape): work_of(FUNCTIONS[name], shape, SIZES[2:]) for name, shape in given}) == {}


@pytest.mark.worker
@pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="NOT TESTED: needs the worker's libraries")
def test_work_of_encoding_is_bounded() -> None:
    """All shapes in turn at 6,250 characters, and each worst one at 50,000, to what the worker does to a text."""
    functions = chat_functions()
    names = sorted(functions)
    given = [(names[number % len(names)], shape, SIZES[:1]) for number, shape in enumerate(SHAPES)]
    given += [(names[number % len(names)], shape, SIZES[1:2]) for number, shape in enumerate(WORST)]
    assert over({(name, *shape): work_of(functions[name], shape, sizes) for name, shape, sizes in given}) == {}
