"""Text of others made harmless for one line of a terminal or of a log."""

from __future__ import annotations

import unicodedata
from typing import Final

_BLANK: Final = frozenset(
    (
        *(0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0),
        *range(0xFE00, 0xFE0F),
        *range(0xE0100, 0xE01F0),
    )
)
"""Code points that Python calls printable and that a terminal shows as nothing. U+FE0F is not among them: it asks for
the coloured form of an emoji."""


def clean(text: str) -> str:
    """``text`` on one line, with every control, format, bidirectional and invisible character made visible."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def clean_lines(text: str) -> list[str]:
    """Each line of ``text``, cleaned."""
    return [clean(line) for line in text.splitlines()]


def is_shown(character: str) -> bool:
    """Whether a terminal shows the character as itself."""
    return character.isprintable() and ord(character) not in _BLANK


def _visible(character: str) -> str:
    if is_shown(character):
        return character
    if character == "\n":
        return "⏎ "
    if character == "\t" or unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode()
