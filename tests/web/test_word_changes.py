"""Tests of the words that are marked in two replies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sleepd.web.values.word_changes import MOST_WORDS, TextPiece, changes

TEXTS = st.lists(st.sampled_from("abc"), max_size=7).map(" ".join)


def longest_common(old: list[str], new: list[str]) -> int:
    """By the definition, for short texts."""
    if not old or not new:
        return 0
    if old[0] == new[0]:
        return 1 + longest_common(old[1:], new[1:])
    return max(longest_common(old[1:], new), longest_common(old, new[1:]))


@given(TEXTS, TEXTS)
def test_common_words_are_unmarked(before: str, after: str) -> None:
    """Both texts stand whole, and as many words as can be are left unmarked, the same ones in both."""
    old, new = changes(before, after)
    assert ("".join(piece.text for piece in old), "".join(piece.text for piece in new)) == (before, after)
    kept = [[word for piece in pieces if not piece.is_changed for word in piece.text.split()] for pieces in (old, new)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == longest_common(before.split(), after.split())


def test_long_texts_are_unmarked() -> None:
    """A text with too many words is shown without marks."""
    text = "word " * (MOST_WORDS + 1)
    assert changes(text, "other") == ([TextPiece(text, False)], [TextPiece("other", False)])
