"""What a handful of replies is like, in figures: how varied, how repetitive, how long.

For comparing models that were asked the same. No figure means much by itself: a small base repeats itself too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from sleepd.protocol.evidence import Speech

from .repetition import WORD, find_repetition

SIMILAR = 0.85
"""Two replies whose word sets have a larger Jaccard index than this are similar: the older scheduler's rule, which
called it a collapse when more than half of all pairs were."""


def describe(replies: Sequence[str]) -> Speech:
    """All the figures of these replies."""
    texts = [words_of(reply) for reply in replies]
    kinds = [find_repetition(reply).kind for reply in replies]
    return Speech(
        replies=len(replies),
        mean_words=sum(map(len, texts)) / len(texts) if texts else 0.0,
        distinct_2=distinct_share(texts, 2),
        longest_repeat_words=max(map(longest_repeat, texts), default=0),
        similar_pairs_share=similar_pairs_share(texts),
        loops=kinds.count("loop"),
        question_floods=kinds.count("questions"),
    )


def words_of(text: str) -> list[str]:
    """The words, case aside; in scripts without spaces the characters."""
    return WORD.compiled.findall(text.lower())


def distinct_share(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Different n-grams as a share of all, over all replies (Li et al. 2016, distinct-n); None: there is no n-gram."""
    grams = [tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def longest_repeat(words: Sequence[str]) -> int:
    """Words of the longest n-gram that stands twice in one reply, the second behind the end of the first."""
    longest = 0
    # matched[i]: how many words before and at i equal those before and at the present place.
    matched = [0] * (len(words) + 1)
    for place, word in enumerate(words):
        for earlier in range(place - 1, -1, -1):
            run = matched[earlier] + 1 if words[earlier] == word else 0
            matched[earlier + 1] = run
            longest = max(longest, min(run, place - earlier))
    return longest


def similar_pairs_share(texts: Sequence[Sequence[str]]) -> float | None:
    """Of all pairs of replies, those with nearly the same words; None: fewer than two replies."""
    pairs = [_jaccard(one, other) > SIMILAR for one, other in combinations(map(frozenset, texts), 2)]
    return sum(pairs) / len(pairs) if pairs else None


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Two replies without a word are the same one."""
    return len(one & other) / len(one | other) if one or other else 1.0
