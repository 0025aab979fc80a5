"""Two texts side by side, with the words that differ marked."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

MOST_WORDS = 1000
"""Of each text. Longer texts are shown without marks."""
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
    """Where the words of a longest common subsequence stand in both.

    Of each row of the usual table one number is kept, a bit for each word of ``new``: it is 0 where one more word is
    common than up to the word before (Hyyrö 2004). A row costs four operations, whatever the texts are like.
    """
    places: dict[str, int] = defaultdict(int)
    for j, word in enumerate(new):
        places[word] |= 1 << j
    row = whole = (1 << len(new)) - 1
    rows = [row]
    for word in old:
        met = row & places[word]
        row = ((row + met) | (row - met)) & whole
        rows.append(row)
    kept_old, kept_new, i, j = set(), set(), len(old) - 1, len(new) - 1
    while i >= 0 and j >= 0:
        if old[i] == new[j]:
            kept_old.add(i)
            kept_new.add(j)
            i, j = i - 1, j - 1
        elif rows[i + 1] >> j & 1:
            j -= 1
        else:
            i -= 1
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
