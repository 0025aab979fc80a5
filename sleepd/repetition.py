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

GRAM = 4
MINWORDS = 24
"""Below this many words a share means nothing; a run of one phrase still does."""
MAX_DISTINCT_SHARE = 0.5
"""A reply of whose 4-grams at most this share are different ones runs in a loop."""
MIN_RUN = 4
"""Times that a phrase stands back to back before it is a loop …"""
MIN_RUNWORDS = 12
"""… if the run is at least this long."""
MAX_PHRASEWORDS = 40
MIN_QUESTIONS = 8
MIN_QUESTION_SHARE = 2 / 3

# Scripts without spaces count by character. A list's numbering is no word: a numbered loop would look new in each line.
_NUMBERING = re.compile(r"(?m)^\s*\d+[.)]\s")
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_SENTENCE = re.compile(r"[^.!?\n。!?]+[.!?。!?]*")
_STUCK = re.compile(r"([^\W_]{1,8}?)\1{23,}")


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


def find_repetition(text: str) -> Repetition:
    """Judge one text by itself."""
    words = WORD.findall(_NUMBERING.sub("", text).lower())
    grams = [tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)]
    loop = _stuck(text) or _run(words) or _few_distinct(words, grams)
    reason = loop or _questions(text)
    return Repetition(
        is_loop=bool(reason),
        repeated_share=_repeated_share(words, grams),
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
    found = _STUCK.search(text)
    if not found:
        return ""
    return f"{found.group(1)!r} repeated without a space {len(found.group()) // len(found.group(1))} times"


def _run(words: list[str]) -> str:
    """A phrase of p words repeats as long as each word equals the one p places before it."""
    for period in range(1, min(MAX_PHRASEWORDS, len(words) // MIN_RUN) + 1):
        matched = 0
        for place in range(period, len(words)):
            matched = matched + 1 if words[place] == words[place - period] else 0
            if matched + period >= max(MIN_RUN * period, MIN_RUNWORDS):
                phrase = " ".join(words[place - period + 1 : place + 1])
                return f"{phrase!r} at least {(matched + period) // period} times on end"
    return ""


def _few_distinct(words: list[str], grams: list[tuple[str, ...]]) -> str:
    if len(words) < MINWORDS:
        return ""
    share = len(set(grams)) / len(grams)
    return f"only {share:.2f} of its 4-grams are different ones" if share <= MAX_DISTINCT_SHARE else ""


def _questions(text: str) -> str:
    sentences = [one for one in _SENTENCE.findall(text) if WORD.search(one)]
    questions = sum(one.rstrip().endswith(("?", "?")) for one in sentences)
    if questions >= MIN_QUESTIONS and questions >= MIN_QUESTION_SHARE * len(sentences):
        return f"{questions} of its {len(sentences)} sentences are questions"
    return ""
