"""What keeps an experience from training, and why. Pure.

A reply that runs in a loop or asks one question after the other, a near-duplicate of an earlier one, one with a secret
in it, and what was recorded under an adapter that was rolled back are excluded: neither trained, nor replayed, nor held
out. The operator may release each of them, or drop any other.

Near-duplicates are found by the Jaccard similarity of word 3-grams ("shingles"), estimated from the smallest
hashes of each set: the bottom-k sketch of Broder, "On the resemblance and containment of documents" (1997). Up to 64
different shingles the estimate is exact. In the buffers that were read by hand, no two replies that a person
calls different were above 0.53, and none lay between that and an exact copy.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import repeat
from typing import Final, Literal

import msgspec

from sleepd.buffer.experience import Experience
from sleepd.policy.judging.repetition import find_repetition, words_in
from sleepd.text.bounded_text import folded

Reason = Literal["", "loop", "questions", "near_duplicate", "secret", "too_long", "bare_question", "unscreenable"]
"""Why the text alone excludes an experience; empty: it does not. A bare question alone does not exclude it: see
``rules``."""

RULES: Final = 2
"""Of the screening: raised when it finds other things than before. What older rules screened is screened once more."""
MAX_CHARACTERS: Final = 200_000
"""A longer one is skipped unread: screening it would take too long, and training would cut most of it off."""
LIMIT: Final = 0.8
"""Similarity from which on a reply is a near-duplicate."""
SHINGLE_WORDS: Final = 3
SKETCH: Final = 64
SHORT_WORDS: Final = 20
"""A reply of fewer words ("Yes, I can do that.") may answer many things: only beside the same prompt is it a copy."""
COMPARED_BY: Final = 4
"""Of two replies at the limit, one of the four smallest hashes is in both with a probability of 0.998."""
FIRST: Final = 16
"""So many hashes tell nearly all replies apart that are no near-duplicates, in a third of the time."""
MOST_COMPARED: Final = 64
"""Of the replies that share one hash, as many are compared, the newest."""
MOST_BARE_WORDS: Final = 12
_BARE_QUESTION: Final = re.compile("[^.!?\u2026\u3002\uff01\uff1f\u061f\n]+[?\uff1f\u061f]+")
_ASKS_FOR_QUESTIONS: Final = re.compile(
    r"(?i)\b(?:ask|interview) me\b|\bquiz\b|\b(?:give|write|list|suggest|make|draft|prepare)\b.{0,40}\bquestions\b"
    r"|\b(?:schreib|nenne|stell)\w*\b.{0,40}\bfragen\b|\b(?:écris|donne|pose)\b.{0,40}\bquestions\b"
    r"|\b(?:escribe|dame|haz)\w*\b.{0,40}\bpreguntas\b"
)
_NUMBER: Final = re.compile(r"\d+")
_FIGURE: Final = re.compile(r"(\d\d*(?:[.,:/-]\d+)*)")  # so, since re looks faster for one character than for a run
"""A number, a date, a time of day or an address is one figure."""
WORDS_FOR_A_FIGURE: Final = 20
"""Of two long replies one may have one figure more for so many words."""
MOST_FIGURES: Final = 32
"""Of a reply with more, or as many, each must be the same: it is a table."""
HASH_BYTES: Final = array("I").itemsize
_MASK: Final = 2**32 - 1
_MIX: Final = 0x9E3779B1


class TextFinding(msgspec.Struct, frozen=True):
    """What was found in one text."""

    reason: Reason = ""
    detail: str = ""
    """With the figure; a secret's kind, never the secret."""


class Screened(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one experience that was screened. Not its text."""

    key: int
    group: int
    id: str
    said_under: int | None
    """The cycle whose adapter gave the reply, where its record names it."""
    said_at: int | None = None
    """When the engine in service gave the reply, in Unix time; None: unknown."""
    reason: Reason
    detail: str
    original: int | None = None
    """Of a near-duplicate: the key of what it resembles."""
    signature: bytes = b""
    """For later ones to be compared with; empty: they are not."""
    personal: dict[str, int] = {}
    """How many of each kind of personal data are in prompt and reply."""
    is_outdated: bool = False
    """Older rules found this: it holds until it is screened anew."""


def find_repeated(experience: Experience) -> TextFinding:
    """A loop or a flood of questions inside one reply; questions that the prompt asks for are no flood."""
    found = find_repetition(experience.whole_response)
    if found.kind == "questions" and _ASKS_FOR_QUESTIONS.search(experience.prompt):
        return TextFinding()
    return TextFinding(found.kind, found.reason)


def is_bare_question(reply: str) -> bool:
    """Whether the reply is one short question and nothing else."""
    return bool(_BARE_QUESTION.fullmatch(reply.strip())) and len(words_in(reply)) <= MOST_BARE_WORDS


def sketch(experience: Experience) -> bytes:
    """The reply as its smallest shingle hashes, 32 bits each, ascending; empty where it has no words.

    In a short reply the figures are part of every shingle: "the code is 17" and "the code is 18" are two facts. So is
    the prompt, but the same bare question to two prompts answers neither. In a long one the figures are no part of any
    shingle; they stand behind the hashes, to be compared by themselves: see :func:`similarity`.
    """
    text = folded(experience.whole_response)
    parts = _FIGURE.split(text)
    words = words_in(" ".join(parts[::2]))
    if len(words) >= SHORT_WORDS:
        counts = Counter[str]()
        figures = set[int]()
        for figure in parts[1::2]:
            counts[figure] += 1
            figures.add(zlib.crc32(f"{figure} {counts[figure]}".encode()))
        kept = array("I", sorted(figures)[:MOST_FIGURES])
        most = min(len(words) // WORDS_FOR_A_FIGURE, 255) if len(kept) < MOST_FIGURES else 0
        return _smallest(words, 0).tobytes() + kept.tobytes() + bytes((len(kept), most))
    words = words_in(text)
    if not words:
        return b""
    seed = " ".join(sorted(_NUMBER.findall(experience.whole_response)))
    if len(words) < SHORT_WORDS and not is_bare_question(experience.whole_response):
        seed += "\0" + " ".join(folded(experience.asked).split())
    return _smallest(words, zlib.crc32(seed.encode())).tobytes()


def _smallest(words: list[str], start: int) -> array[int]:
    width = min(SHINGLE_WORDS, len(words))
    encoded = list(map(str.encode, words))
    shingles = map(b" ".join, zip(*(encoded[place:] for place in range(width)), strict=False))
    # The checksum alone is no hash: neighbouring texts have neighbouring sums (Fibonacci hashing, Knuth vol. 3, 6.4).
    hashes = {(checksum * _MIX) & _MASK for checksum in map(zlib.crc32, shingles, repeat(start))}
    return array("I", sorted(hashes)[:SKETCH])


def similarity(one: bytes, other: bytes) -> float:
    """Estimated Jaccard similarity of two sketches, 0 to 1; 0 where it is below the limit for sure.

    Of two long replies one may have figures that the other has not, one for every twenty words: a copy with a number or
    a date added is a copy. Where each has a figure that the other has not, one may correct the other: 0.
    """
    return _similarity(_Sketch(one), _Sketch(other))


def _similarity(first: _Sketch, second: _Sketch) -> float:
    least = LIMIT * min(SKETCH, max(len(first.hashes), len(second.hashes)))
    if len(first.distinct.intersection(second.hashes[:FIRST])) + max(0, len(second.hashes) - FIRST) < least:
        return 0.0  # not even if all others were in both
    both = first.distinct.intersection(second.hashes)
    if len(both) < least or not both:
        return 0.0  # not even if all of these were among the smallest
    added, missing = second.figures - first.figures, first.figures - second.figures
    if (added and missing) or len(added | missing) > min(first.most, second.most):
        return 0.0
    union = sorted(first.distinct.union(second.hashes))[:SKETCH]
    # Where a sketch is full, what lies beyond its largest hash is unknown.
    return sum(each in both for each in union) / len(union)


class _Sketch:
    """A sketch taken apart: that of a short reply, or one made before figures stood by themselves, has none."""

    def __init__(self, signature: bytes) -> None:
        self.most = 255
        """Figures that one may have more than the other."""
        end = len(signature)
        self._figures = b""
        if end % HASH_BYTES:
            count, self.most = signature[-2:]
            end -= 2 + count * HASH_BYTES
            self._figures = signature[end:-2]
        self.hashes = array("I", signature[:end])

    @property
    def figures(self) -> frozenset[int]:
        """The hashes of its figures."""
        return frozenset(array("I", self._figures))

    @cached_property
    def distinct(self) -> frozenset[int]:
        """The hashes of its shingles."""
        return frozenset(self.hashes)


def bands_of(signature: bytes) -> list[bytes]:
    """The hashes by which a sketch is compared, the smallest first, each as its bytes."""
    numbers = _Sketch(signature).hashes[:COMPARED_BY].tobytes()
    return [numbers[start : start + HASH_BYTES] for start in range(0, len(numbers), HASH_BYTES)]


Ask = Callable[[list[bytes]], Iterable[tuple[int, bytes]]]
"""Given some bands: the earlier replies that share one, by ascending key; see ``bands.Bands.sharing``."""


class Neighbours:
    """The earlier replies, to find near-duplicates in.

    Args:
        ask: tells those that were not added; None: all were.
    """

    def __init__(self, ask: Ask | None = None) -> None:
        self._ask = ask
        self._keys: list[int] = []
        self._signatures: list[bytes] = []
        self._places: dict[int, list[int]] = {}

    def add(self, key: int, signature: bytes) -> None:
        """Compare later ones with this one."""
        place = len(self._keys)
        self._keys.append(key)
        self._signatures.append(signature)
        for number in _Sketch(signature).hashes[:COMPARED_BY]:
            self._places.setdefault(number, []).append(place)

    def find(self, key: int, signature: bytes) -> tuple[int, float] | None:
        """The key of the most similar one at or above the limit, and how similar it is; None: there is none."""
        sketch = _Sketch(signature)
        compared = sketch.hashes[:COMPARED_BY]
        best = self._best(key, sketch, self._asked(signature), None) if self._ask is not None else None
        places = {place for number in compared for place in self._places.get(number, ())[-MOST_COMPARED:]}
        added = ((self._keys[place], self._signatures[place]) for place in sorted(places))
        return self._best(key, sketch, added, best)

    @staticmethod
    def _best(
        key: int, sketch: _Sketch, others: Iterable[tuple[int, bytes]], best: tuple[int, float] | None
    ) -> tuple[int, float] | None:
        for other, its in others:
            share = _similarity(sketch, _Sketch(its))
            if share >= LIMIT and other != key and (best is None or share > best[1]):
                best = other, share
        return best

    def _asked(self, signature: bytes) -> list[tuple[int, bytes]]:
        """Those that were not added; of each hash as many as there is room for beside the added ones."""
        assert self._ask is not None
        earlier = [(key, its, _Sketch(its).hashes[:COMPARED_BY]) for key, its in self._ask(bands_of(signature))]
        compared = set[int]()
        for number in _Sketch(signature).hashes[:COMPARED_BY]:
            room = max(0, MOST_COMPARED - len(self._places.get(number, ())))
            sharing = [key for key, _, hashes in earlier if number in hashes]
            compared.update(sharing[max(0, len(sharing) - room) :])
        return [(key, its) for key, its, _ in earlier if key in compared]
