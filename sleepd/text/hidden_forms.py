"""The forms in which a text may hide what it says: invisible and look-alike letters, spelled words, encodings. Pure.

Each form is again a text, to be searched like the first one. All of it is bounded: the forms of a text together have at
most a few times its characters, encodings are opened twice at most, and no step takes longer than its input is long.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Final
from urllib.parse import unquote

from .bounded_text import normalise

MAX_DEPTH: Final = 2
"""An encoding inside an encoding is opened, one inside that is not."""
MOST_DECODED: Final = 64
"""Encoded runs of one text that are opened, the first ones."""
MOST_ENCODED: Final = 64 * 1024
"""Characters of one encoded run that are opened."""
MIN_ENCODED: Final = 12
"""A shorter run decodes to less than any secret."""
MIN_SPELLED: Final = 8
"""So many single characters in a row are a word that is spelled."""

_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e007f]+"
)
_LOOK_ALIKES: Final = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеоріѕјсухһԁԛԝкмт" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαεικνορτυχω",
    "ABESIJKMHOPCTYXaeopisjcyxhdqwkmt" + "ABEZHIKMNOPTYXaeikvoptuxw",
)
"""Of Cyrillic, then of Greek."""
_LONG: Final = {0xFDFA: " ", 0xFDFB: " "}
"""Two Arabic phrases in one character each, which would become 18 and 8: a text of them would be that much longer."""
_WORD: Final = re.compile(r"\w+")
_HAS_LATIN: Final = re.compile("[A-Za-z]")
_BETWEEN: Final = re.compile(r"[\s.·|-]+")
_WIDE_GAP: Final = re.compile(r"[^\S\n]{2,}")
_TWO_SINGLE: Final = re.compile(r"[\s.·|-][^\s.·|-][\s.·|-]+[^\s.·|-][\s.·|-]")
"""In what is spelled two characters stand alone, one after the other."""
_GAPS: Final = re.compile(r"[\s.·|\"'`+\\-]+")
_BASE64: Final = re.compile(rf"[A-Za-z0-9+/_-]{{{MIN_ENCODED},}}={{0,2}}")
_WRAPPED: Final = re.compile(r"(?<=[A-Za-z0-9+/_=-]{20})\r?\n(?=[A-Za-z0-9+/_-])")
_ASCII_GAPS: Final = {code: None for code in range(128) if _GAPS.match(chr(code))}
"""The same for ASCII, in a twentieth of the time."""
_MAY_BE_HEX: Final = re.compile(r"[0-9A-Fa-fx\\ :,]{16}")
"""Of each run of hexadecimal digits; this one takes a quarter of the time."""
_HEX: Final = re.compile(r"(?:(?:\\x|0x)?[0-9A-Fa-f]{2}[ :,]{0,2}){8,}")
_NOT_HEX: Final = re.compile(r"\\x|0x|[ :,]")
_PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})")
_ESCAPED: Final = re.compile(r"\\u([0-9A-Fa-f]{4})")


def plain(text: str) -> str:
    """The text in compatible forms (NFKC), without invisible characters, look-alike letters folded into Latin words.

    Only a word that has Latin letters too is folded: a word of one other script is a word of its language.
    """
    if text.isascii():
        return text
    return _WORD.sub(_folded, _INVISIBLE.sub("", normalise(text.translate(_LONG), "NFKC")))


def _folded(word: re.Match[str]) -> str:
    is_mixed = not word[0].isascii() and _HAS_LATIN.search(word[0])
    return word[0].translate(_LOOK_ALIKES) if is_mixed else word[0]


def spelled(text: str) -> str:
    """What is spelled in a text character by character, as words, one a line; empty where nothing is."""
    if not _TWO_SINGLE.search(f" {text} "):
        return ""
    runs = groupby(_BETWEEN.split(_WIDE_GAP.sub(" \0 ", text)), key=lambda part: len(part) == 1)
    words = ("".join(parts).replace("\0", " ").strip() for is_single, parts in runs if is_single)
    return "\n".join(word for word in words if len(word) >= MIN_SPELLED)


def without_gaps(text: str) -> str:
    """The text without white space, hyphens and quotes: a token that was cut stands in it whole."""
    return text.translate(_ASCII_GAPS) if text.isascii() else _GAPS.sub("", text)


def decoded(text: str) -> Iterator[str]:
    """The content of the encoded runs of a text, where it is readable: Base64, hexadecimal, percent and backslash."""
    if _PERCENT.search(text):
        yield unquote(text, errors="ignore")
    if _ESCAPED.search(text):
        yield _ESCAPED.sub(lambda code: chr(int(code[1], 16)), text)
    count = 0
    in_hex = text if _MAY_BE_HEX.search(text) else ""
    in_base64 = _WRAPPED.sub("", text) if "\n" in text else text
    for way, pattern, source in ((_from_hex, _HEX, in_hex), (_from_base64, _BASE64, in_base64)):
        for run in pattern.finditer(source):
            found = way(run[0][:MOST_ENCODED])
            if found:
                yield found
                count += 1
            if count == MOST_DECODED:
                return


def _from_hex(run: str) -> str:
    digits = _NOT_HEX.sub("", run)
    return _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))


def _from_base64(run: str) -> str:
    letters = run.rstrip("=").replace("-", "+").replace("_", "/")
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    try:
        return _readable(base64.b64decode(letters + "=" * (-len(letters) % 4)))
    except binascii.Error:
        return ""


def _readable(data: bytes) -> str:
    """The bytes as text, if they are one; binary data and the chance reading of a word are not."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    return text if len(text) >= MIN_SPELLED and all(c.isprintable() or c in "\n\r\t" for c in text) else ""
