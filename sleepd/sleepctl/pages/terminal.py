"""Text on a terminal: made harmless, measured in columns, wrapped, coloured.

Prompts, replies and paths come from others: a reply may hold escape sequences that retitle a window or hide a line.
Whatever is rendered here has gone through :func:`sleepd.text.display.clean` first; no other way leads to the screen.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TextIO

from sleepd.text.display import clean

WIDTH = 80

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}
_VARIATION_SELECTOR_16 = "\ufe0f"


class Span(NamedTuple):
    """A piece of text in one style."""

    text: str
    style: str = ""


class Row(NamedTuple):
    """A line of a screen, before it is wrapped: at the left edge, or under a label."""

    spans: list[Span]
    label: str | None = None
    """None: at the left edge; empty: in the column beside the labels."""
    hang: int = 0
    """Columns by which the second and further lines stand further in than the first."""


Page = list[Row]


def columns(text: str) -> int:
    """How many columns ``text`` takes, wide and combining characters counted as terminals show them."""
    return len(text) if text.isascii() else sum(_columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if character == _VARIATION_SELECTOR_16:
        return 1  # it widens the character before it
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """``text``, cleaned, in at most ``width`` columns; an ellipsis stands for what was cut."""
    text = clean(text)
    if columns(text) <= width:
        return text
    return text[: _fitting(text, 0, width - 1)].rstrip() + "…"


def pad(text: str, width: int) -> str:
    """``text``, cleaned, in exactly ``width`` columns."""
    text = shorten(text, width)
    return text + " " * (width - columns(text))


def render(page: Page, *, width: int, is_coloured: bool) -> str:
    """The page as text, each line with its end, none wider than ``width``."""
    indent = max((columns(row.label) + 2 for row in page if row.label), default=0)
    lines = []
    for row in page:
        left = 0 if row.label is None else indent
        for number, line in enumerate(_wrapped(row.spans, width - left, row.hang)):
            start = " " * (left if number == 0 else left + row.hang)
            if number == 0 and row.label:
                start = _painted(Span(pad(row.label, left), "bold"), is_coloured)
            lines.append((start + "".join(_painted(span, is_coloured) for span in line)).rstrip() + "\n")
    return "".join(lines)


def _painted(span: Span, is_coloured: bool) -> str:
    return f"\x1b[{_STYLES[span.style]}m{span.text}\x1b[0m" if is_coloured and span.style and span.text else span.text


def _wrapped(spans: list[Span], width: int, hang: int) -> Iterator[list[Span]]:
    """The spans cut into lines; words stay whole where they fit a line, whatever their styles."""
    spans = [Span(clean(span.text), span.style) for span in spans]
    for start, end in _breaks("".join(span.text for span in spans), width, hang):
        line, offset = [], 0
        for span in spans:
            piece = span.text[max(start - offset, 0) : max(end - offset, 0)]
            offset += len(span.text)
            if piece:
                line.append(Span(piece, span.style))
        yield line


def _breaks(text: str, width: int, hang: int) -> Iterator[tuple[int, int]]:
    """Start and end of each line: the first of ``width`` columns, the others of ``hang`` fewer."""
    start, room = 0, width
    while (end := _fitting(text, start, room)) < len(text):
        room = max(width - hang, 2)  # a wide character must fit, or nothing ever would
        space = text.rfind(" ", start, end + 1)
        if space > start and not text[start:space].isspace():
            yield start, space
            start = space + 1
        else:
            yield start, end
            start = end
    yield start, len(text)


def _fitting(text: str, start: int, width: int) -> int:
    """Where the longest piece from ``start`` ends that takes at most ``width`` columns."""
    taken = 0
    for position in range(start, len(text)):
        taken += _columns_of(text[position])
        if taken > width:
            return position
    return len(text)


def is_coloured(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether colour may go to ``stream``: a terminal that knows it, and nobody set NO_COLOR."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def width_of(stream: TextIO) -> int:
    """The columns to fill: the terminal's, at most 80; 80 where there is no terminal."""
    if not stream.isatty():
        return WIDTH
    try:
        return max(40, min(WIDTH, os.get_terminal_size(stream.fileno()).columns))
    except OSError:
        return WIDTH
