"""Whether a text runs in a loop.

A damaged adapter shows itself inside one reply: the same phrase dozens of times, or a flood of questions. Comparing
replies with each other does not see it. The limits stand well off what ordinary replies reach: in several hundred real
ones, prose and lists alike, at most 0.16 of the words lay in a repeated 4-gram, and at most 5 questions stood in one.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from sleepd.text.late_pattern import LatePattern

GRAM = 4
MIN_WORDS = 24
"""Below this many words a share means nothing; a run of one phrase still does."""
MAX_DISTINCT_SHARE = 0.5
"""A reply of whose 4-grams at most this share are different ones runs in a loop."""
MIN_RUN_WORDS = 12
"""A phrase that stands back to back is a loop, if the run is at least this long …"""
MIN_RUNS = ((40, 2), (10, 3), (1, 4))
"""… and a phrase of so many words or more stands so many times."""
MAX_PHRASE_WORDS = 200
WINDOW = 120
"""A long text is searched in pieces of so many 4-grams too, half overlapping: a good beginning hides no loop."""
PHRASE_SHOWN = 12
"""Words of a phrase in a reason."""
MIN_QUESTIONS = 8
MIN_QUESTION_SHARE = 2 / 3

# Scripts without spaces count by character. A list's numbering is no word: a numbered loop would look new in each line.
_NUMBERING = re.compile(r"(?m)^[^\S\n]*\d+[.)]\s")
WORD = LatePattern(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_ASCII_GAPS = {code: " " for code in range(128) if not re.match(r"\w", chr(code))}
_END = "!?.\u3002\uff01\uff1f\u061f"
_QUESTION = ("?", "\uff1f", "\u061f")
_SENTENCE = LatePattern(rf"[^{_END}\n]+[{_END}]*")
_STUCK = re.compile(r"([^\W_]{1,8}?)\1{23,}")
_STUCK_CHARACTERS = 24
"""What is stuck is at least so long, and no white space is in it."""
# Rulers and the frames of tables are drawn with some symbols; a flood of others is a stuck model.
_SYMBOLS = re.compile(r"([^\w\s.,;:'\"\-=_*#~|+`/\\\u2010-\u2015\u2026\u2500-\u259f]{1,4}?)\1{23,}")


@dataclass(frozen=True)
class Repetition:
    """What was found in one text."""

    is_loop: bool
    repeated_share: float
    """Share of the words that lie in a 4-gram occurring more than once, 0 to 1."""
    reason: str
    """Why it is a loop, with the figure; empty where it is none."""
    kind: Literal["", "loop", "questions"] = ""
    """A flood of questions is a loop of its own kind."""


def words_in(text: str) -> list[str]:
    """The words; those of ASCII without the pattern, in a tenth of the time."""
    return text.translate(_ASCII_GAPS).split() if text.isascii() else WORD.compiled.findall(text)


def find_repetition(text: str) -> Repetition:
    """Judge one text by itself."""
    words = words_in(_NUMBERING.sub("", text).lower())
    grams = list(zip(*(words[place:] for place in range(GRAM)), strict=False))
    is_repeated = len(set(grams)) < len(grams)
    loop = _stuck(text) or ((_run(words, grams) or _few_distinct(grams)) if is_repeated else "")
    reason = loop or _questions(text)
    return Repetition(
        is_loop=bool(reason),
        repeated_share=_repeated_share(words, grams) if is_repeated else 0.0,
        reason=reason,
        kind="loop" if loop else "questions" if reason else "",
    )


def _repeated_share(words: list[str], grams: list[tuple[str, ...]]) -> float:
    counts = Counter(grams)
    covered: set[int] = set()
    for place, gram in enumerate(grams):
        if counts[gram] > 1:
            covered.update(range(place, place + GRAM))
    return len(covered) / len(words) if words else 0.0


def _stuck(text: str) -> str:
    words = text.split()
    long = " ".join(word for word in words if len(word) >= _STUCK_CHARACTERS)
    found = _STUCK.search(long) or _SYMBOLS.search("".join(words))
    if not found:
        return ""
    times = len(found.group()) // len(found.group(1))
    return f"{found.group(1)!r} {times} times without a word between"


def _run(words: list[str], grams: list[tuple[str, ...]]) -> str:
    """A phrase of p words repeats as long as each word equals the one p places before it."""
    for period in _periods(grams):
        least = next(times for length, times in MIN_RUNS if period >= length)
        longest = matched = end = 0
        for place in range(period, len(words)):
            matched = matched + 1 if words[place] == words[place - period] else 0
            if matched > longest:
                longest, end = matched, place
        if longest + period >= max(least * period, MIN_RUN_WORDS):
            phrase = " ".join(words[end - period + 1 : end + 1][:PHRASE_SHOWN])
            return f"{phrase!r} {(longest + period) // period} times on end"
    return ""


def _periods(grams: list[tuple[str, ...]]) -> list[int]:
    """The distances at which a 4-gram recurs, ascending: where none does, nothing runs in a loop."""
    last: dict[tuple[str, ...], int] = {}
    found = set()
    for place, gram in enumerate(grams):
        if gram in last:
            found.add(place - last[gram])
        last[gram] = place
    return sorted(period for period in found if period <= MAX_PHRASE_WORDS)


def _few_distinct(grams: list[tuple[str, ...]]) -> str:
    if len(grams) + GRAM - 1 < MIN_WORDS:
        return ""
    pieces = [grams[first : first + WINDOW] for first in range(0, max(1, len(grams) - WINDOW // 2), WINDOW // 2)]
    share = min(len(set(piece)) / len(piece) for piece in (grams, *pieces))
    return f"only {share:.2f} of its 4-grams are different ones" if share <= MAX_DISTINCT_SHARE else ""


def _questions(text: str) -> str:
    if sum(map(text.count, _QUESTION)) < MIN_QUESTIONS:
        return ""
    sentences = [one for one in _SENTENCE.compiled.findall(text) if WORD.compiled.search(one)]
    questions = sum(one.rstrip().endswith(_QUESTION) for one in sentences)
    if questions >= MIN_QUESTIONS and questions >= MIN_QUESTION_SHARE * len(sentences):
        return f"{questions} of its {len(sentences)} sentences are questions"
    return ""
