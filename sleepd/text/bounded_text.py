"""Text of any length and shape, searched in time that grows with its length alone. Pure.

Three things make the usual functions slow. ``unicodedata.normalize`` sorts each run of combining marks by insertion,
which is quadratic in the run (half a megabyte of them: minutes), and holds the interpreter meanwhile. A pattern with
two repetitions side by side is quadratic or worse in a run of what both match. And any function in C that is given
megabytes at once lets no other thread run. So runs of marks are cut as the Stream-Safe Text Format does (UAX #15,
section 13), white space is shortened and lines are cut before patterns see them, and the work is done in slices.
Ordinary text comes out as it would from the plain functions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Final, Literal

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

MOST_MARKS: Final = 30
"""Combining marks in one run; Unicode's own limit. No language comes near it: the longest known run has ten."""
SLICE: Final = 32 * 1024
"""Characters that are normalised by one call: at most 20 ms for the worst of them, measured."""
MOST_SPACES: Final = 16
"""White-space characters in one run, for patterns; what is more is left out."""
MOST_LINE: Final = 1_000
"""Characters of a line that a pattern sees at once."""
OVERLAP: Final = 300
"""Characters of a cut line that are seen twice, so that a secret on the cut is seen whole."""

_JOINER: Final = "\u034f"
"""Combining grapheme joiner: invisible, and no mark is sorted past it."""
_MOST_SEARCHED: Final = 64
"""Characters behind a slice's end among which a place to cut is searched."""
_SPACES: Final = re.compile(rf"\s{{{MOST_SPACES + 1},}}")
_BLOCKS: Final = (range(0x300, 0x3400), range(0xA000, 0xAC00), range(0xF900, 0x20000), range(0xE0000, 0xE0200))
"""Between these are ideographs and Hangul syllables, none of which is a mark or joins the character before it."""


def normalise(text: str, form: Form) -> str:
    """As ``unicodedata.normalize``, in linear time: a joiner is put into a run of more than 30 combining marks."""
    return text if text.isascii() else "".join(unicodedata.normalize(form, part) for part in _slices(text))


def folded(text: str) -> str:
    """NFKC, and case folded."""
    # For ASCII the two are the same, and this one is ten times as fast.
    if text.isascii():
        return text.lower()
    return "".join(unicodedata.normalize("NFKC", part).casefold() for part in _slices(text))


def plain_spaces(text: str) -> str:
    """The text with each run of white space cut to 16 characters, its first ones."""
    return _SPACES.sub(lambda run: run[0][:MOST_SPACES], text)


def short_lines(text: str) -> Iterator[str]:
    """The lines of a text as a pattern may see them: white space shortened, long ones in pieces that overlap."""
    for whole in text.splitlines():
        line = plain_spaces(whole)
        yield line[:MOST_LINE]
        for start in range(MOST_LINE - OVERLAP, len(line) - OVERLAP, MOST_LINE - OVERLAP):
            yield line[start : start + MOST_LINE]


def _slices(text: str) -> Iterator[str]:
    """The text in pieces that are normalised one by one with the same result, long runs of marks broken up."""
    long_run, joined = _patterns()
    text = long_run.sub(lambda run: _JOINER.join(_cut(run[0], MOST_MARKS)), text)
    start = 0
    while len(text) - start > SLICE:
        # Only where the next character joins nothing before it; no word has so many that do.
        found = joined.match(text, start + SLICE, start + SLICE + _MOST_SEARCHED)
        end = found.end() if found else start + SLICE
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(text: str, length: int) -> Iterator[str]:
    return (text[start : start + length] for start in range(0, len(text), length))


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A run of too many combining marks; and a run of characters that may join the one before them."""
    marks, seconds = set[str](), set[str]()
    firsts = dict[str, str]()
    for character in (chr(code) for block in _BLOCKS for code in block):
        whole = unicodedata.normalize("NFKD", character)
        firsts[character] = whole[0]
        if unicodedata.combining(whole[0]):
            marks.add(character)
        pair = unicodedata.decomposition(character).split()
        if len(pair) == 2 and not pair[0].startswith("<"):
            seconds.add(unicodedata.normalize("NFKD", chr(int(pair[1], 16)))[0])
    vowels_and_ends = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    seconds |= vowels_and_ends  # of Hangul syllables, which are composed by rule
    joining = marks | {character for character, first in firsts.items() if first in seconds}
    long_run = re.compile(f"[{''.join(sorted(marks))}]{{{MOST_MARKS + 1},}}")
    return long_run, re.compile(f"[{''.join(sorted(joining))}]*")
