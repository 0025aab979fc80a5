"""Whether a text holds the words of a wallet (BIP-39): whoever has them has what is in it. Pure, but for its list.

The list of English words is that of BIP-0039 (its licence stands beside it). Twelve words of it in a row are
rare in prose, and only one such row in sixteen has the right checksum; beside a word that names them, the
checksum is not asked for. Phrases in other languages are not found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

LENGTHS: Final = (12, 15, 18, 21, 24)
_BITS: Final = 11
_WORD: Final = re.compile(r"[^\W\d_]+")
_ASCII_GAPS: Final = {code: " " for code in range(128) if not _WORD.match(chr(code))}
_CALLED_SO: Final = re.compile(
    r"(?i)\b(?:seed|mnemonic|wallet|recovery (?:phrase|words)|(?:secret|backup) (?:phrase|words))"
)


def holds_seed_phrase(text: str) -> bool:
    """Whether a row of 12, 15, 18, 21 or 24 words is one; numbers and punctuation between them do not matter."""
    places = _places()
    # Those of ASCII without the pattern, in a tenth of the time.
    found = text.translate(_ASCII_GAPS).split() if text.isascii() else _WORD.findall(text)
    words = list(map(str.lower, found))
    if sum(map(places.__contains__, words)) < LENGTHS[0]:
        return False
    row: list[int] = []
    is_called_so: bool | None = None
    for word in (*words, ""):
        place = places.get(word)
        if place is not None:
            row.append(place)
            continue
        if len(row) >= LENGTHS[0]:
            is_called_so = bool(_CALLED_SO.search(text)) if is_called_so is None else is_called_so
            if (is_called_so and len(row) in LENGTHS) or _holds_checked(row):
                return True
        row = []
    return False


def _holds_checked(row: Sequence[int]) -> bool:
    windows = (row[first : first + size] for size in LENGTHS for first in range(len(row) - size + 1))
    return any(len(set(window)) > len(window) // 2 and _is_checked(window) for window in windows)


def _is_checked(words: Sequence[int]) -> bool:
    """The last bits are the first ones of the SHA-256 of those before."""
    bits = 0
    for word in words:
        bits = bits << _BITS | word
    check = len(words) * _BITS // 33
    entropy = (bits >> check).to_bytes((len(words) * _BITS - check) // 8, "big")
    return hashlib.sha256(entropy).digest()[0] >> (8 - check) == bits & ((1 << check) - 1)


@cache
def _places() -> dict[str, int]:
    listed = Path(__file__).with_name("bip39_english.txt").read_text(encoding="ascii").split()
    return {word: place for place, word in enumerate(listed)}
