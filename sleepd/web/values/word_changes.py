"""Two texts side by side, with the words that differ marked."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

MOST_WORDS = 400
"""Of each text: comparing takes time that grows with the square. Longer texts are shown without marks."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class TextPiece(NamedTuple):
    """A part of a text."""

    text: str
    is_changed: bool


def changes(before: str, after: str) -> tuple[list[TextPiece], list[TextPiece]]:
    """Both texts in pieces; what stands in only one of them is changed."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    if max(len(old), len(new)) > MOST_WORDS:
        return [TextPiece(before, is_changed=False)], [TextPiece(after, is_changed=False)]
    left: list[TextPiece] = []
    right: list[TextPiece] = []
    for kind, a, b, c, d in SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        for side, words in ((left, old[a:b]), (right, new[c:d])):
            if words:
                side.append(TextPiece("".join(words), is_changed=kind != "equal"))
    return left, right
