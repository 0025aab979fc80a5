"""Two texts side by side, with the words that differ marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

MOST_WORDS = 200
"""Of each text: the work grows with the product. Longer texts are shown without marks."""
_WORD = re.compile(r"\s*\S+\s*|\s+")


class TextPiece(NamedTuple):
    """A part of a text."""

    text: str
    is_changed: bool


def changes(before: str, after: str) -> tuple[list[TextPiece], list[TextPiece]]:
    """Both texts in pieces; what stands in only one of them is changed."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    if max(len(old), len(new)) > MOST_WORDS:
        return _pieces([before], [False]), _pieces([after], [False])
    kept_old, kept_new = _kept([word.strip() for word in old], [word.strip() for word in new])
    return _pieces(old, [each not in kept_old for each in range(len(old))]), _pieces(
        new, [each not in kept_new for each in range(len(new))]
    )


def _kept(old: Sequence[str], new: Sequence[str]) -> tuple[set[int], set[int]]:
    """Where the common words stand in both: what both begin and end with, and what is common between."""
    head = sum(1 for _ in takewhile(_is_pair, zip(old, new, strict=False)))
    tail = sum(1 for _ in takewhile(_is_pair, zip(reversed(old[head:]), reversed(new[head:]), strict=False)))
    common = _common(old[head : len(old) - tail], new[head : len(new) - tail])
    kept_old, kept_new = (
        {*range(head), *(head + each for each in between), *range(len(words) - tail, len(words))}
        for words, between in zip((old, new), common, strict=True)
    )
    return kept_old, kept_new


def _is_pair(words: tuple[str, str]) -> bool:
    return words[0] == words[1]


def _common(old: Sequence[str], new: Sequence[str]) -> tuple[set[int], set[int]]:
    """Where the words of a longest common subsequence stand in both: by a table, whatever the texts are like."""
    lengths = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in range(len(old) - 1, -1, -1):
        row, below, word = lengths[i], lengths[i + 1], old[i]
        for j in range(len(new) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if word == new[j] else max(below[j], row[j + 1])
    kept_old, kept_new, i, j = set(), set(), 0, 0
    while i < len(old) and j < len(new):
        if old[i] == new[j]:
            kept_old.add(i)
            kept_new.add(j)
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return kept_old, kept_new


def _pieces(words: Sequence[str], is_changed: Sequence[bool]) -> list[TextPiece]:
    """Neighbours of one kind as one piece."""
    found: list[TextPiece] = []
    for word, changed in zip(words, is_changed, strict=True):
        if not word:
            continue
        if found and found[-1].is_changed == changed:
            found[-1] = TextPiece(found[-1].text + word, changed)
        else:
            found.append(TextPiece(word, changed))
    return found
