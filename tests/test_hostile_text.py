"""Every function that sees text does work that grows with its length alone, whatever the text is like."""

from __future__ import annotations

import pytest

from tests.hostile_text import FUNCTIONS, LENGTH, MOST_WORK, SHAPES, SIZES, shaped, work_of

WORST = (
    *[("\u0301\u0323", "alone"), (" ", "framed"), ("\n", "framed"), ('\\"', "alone"), ("secret_", "alone")],
    *[("9", "alone"), ("\ufdfa", "alone"), ("[{", "alone")],
)
NAMES = sorted(FUNCTIONS)


def test_shapes_are_many_and_long() -> None:
    """More than a hundred shapes are tried, each of them close to 200,000 characters."""
    assert len({shaped(shape, 2_000) for shape in SHAPES}) > 200
    assert all(LENGTH * 0.9 < len(shaped(shape, LENGTH)) <= LENGTH for shape in SHAPES)


@pytest.mark.parametrize("name", NAMES)
def test_work_is_bounded_on_each_shape(name: str) -> None:
    """On each shape at 6,250 characters, and on the worst at 200,000, a character costs at most 300 plain steps.

    All shapes at 200,000 characters: ``python -m tests.hostile_text`` (minutes).
    """
    function = FUNCTIONS[name]
    work = {shape: work_of(function, shape, SIZES[:1]) for shape in SHAPES}
    work |= {shape: work_of(function, shape, SIZES[1:]) for shape in WORST}
    assert {shape: steps for shape, steps in work.items() if steps > MOST_WORK} == {}


def test_work_is_bounded_in_turn() -> None:
    """135 shapes at 200,000 characters are given to the functions in turn, so that none of these is left out."""
    given = [(NAMES[number % len(NAMES)], shape) for number, shape in enumerate(SHAPES[::2])]
    work = {(name, shape): work_of(FUNCTIONS[name], shape, SIZES[1:]) for name, shape in given}
    assert {key: steps for key, steps in work.items() if steps > MOST_WORK} == {}
