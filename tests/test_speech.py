"""The figures of a handful of replies, on replies whose figures can be counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.policy.judging.reply_statistics import (
    describe,
    distinct_share,
    longest_repeat,
    similar_pairs_share,
    words_of,
)

SUBJECTS = ["life", "love", "time", "work", "rain", "sleep", "art", "law"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("one two three", 0),
        ("no no", 1),
        ("a b c x a b c", 3),
        ("a b c a b c", 3),
        ("a a a a", 2),
        ("the end. And THE END!", 2),
        ("x y z x y z x y z", 3),
        ("私は学ぶ私は学ぶ", 4),
    ],
)
def test_longest_repeat_counts_words(text: str, words: int) -> None:
    """Case and punctuation aside; the second must stand behind the end of the first."""
    assert longest_repeat(words_of(text)) == words


@pytest.mark.parametrize(
    ("replies", "share"),
    [
        ([], None),
        (["one", "word"], None),
        (["a b c"], 1.0),
        (["a b a b a"], 0.5),
        (["a b c", "a b c"], 0.5),
        (["a b", "c d"], 1.0),
    ],
)
def test_distinct_2_spans_all_replies(replies: list[str], share: float | None) -> None:
    """Bigrams never reach from one reply into the next; without any the figure is None."""
    assert distinct_share([words_of(reply) for reply in replies], 2) == share


@pytest.mark.parametrize(
    ("replies", "share"),
    [
        ([], None),
        (["alone"], None),
        (["one two three", "four five six"], 0.0),
        (["I am ready to learn.", "I AM ready, to learn"], 1.0),
        (["", ""], 1.0),
        (["a b c d e f g h", "h g f e d c b a", "x"], 1 / 3),
        # 17 of 20 words in common are 0.85, which is not above it; 18 of 20 are.
        ([" ".join(f"w{i}" for i in range(20)), " ".join(f"w{i}" for i in range(17))], 0.0),
        ([" ".join(f"w{i}" for i in range(20)), " ".join(f"w{i}" for i in range(18))], 1.0),
    ],
)
def test_similar_pairs_share_words(replies: list[str], share: float | None) -> None:
    """The order of the words does not matter, nor how often each stands."""
    assert similar_pairs_share([words_of(reply) for reply in replies]) == share


def test_loops_and_floods_count_apart() -> None:
    """Four replies: prose, two loops, a flood; mean length over all of them."""
    flood = " ".join(f"What is the meaning of {one}?" for one in [*SUBJECTS, "bread"])
    speech = describe(["The river rose again today.", "I feel ready to learn. " * 30, flood, "no " * 40])
    assert (speech.replies, speech.loops, speech.question_floods) == (4, 2, 1)
    assert speech.mean_words == pytest.approx((5 + 150 + 9 * 6 + 40) / 4)
    assert speech.longest_repeat_words == 75
    assert speech.similar_pairs_share == 0.0


def test_no_replies_have_no_shares() -> None:
    """What cannot be counted is None."""
    speech = describe([])
    assert (speech.replies, speech.distinct_2, speech.similar_pairs_share) == (0, None, None)


@given(st.lists(st.text(max_size=80), max_size=6))
def test_figures_stay_in_ranges(replies: list[str]) -> None:
    """No text raises; shares are shares, and a repeated phrase is at most half of a reply."""
    speech = describe(replies)
    for share in (speech.distinct_2, speech.similar_pairs_share):
        assert share is None or 0 <= share <= 1
    assert 2 * speech.longest_repeat_words <= max((len(words_of(reply)) for reply in replies), default=0)
