"""Personal data in a text: e-mail addresses, telephone and card numbers, IBANs, IP addresses, streets. Pure.

What has a check (cards by Luhn, IBANs by mod 97, addresses by their parser) is taken only if it passes. Names,
birthdays and data without such a form are not found. A text is searched in pieces of bounded length,
and no pattern takes longer than its piece is long.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Literal

from .late_pattern import LatePattern

Handling = Literal["keep", "mask", "set_aside"]
"""What is done with an experience that holds personal data."""

PIECE: Final = 2_000
"""Characters that a pattern sees at once; a piece ends at a line's end or a space where there is one."""
_IBAN_COUNTRIES: Final = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS", 23: "AE GI IL IQ OM TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST",
    26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA",
    30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN_LENGTHS: Final = {
    country: length for length, countries in _IBAN_COUNTRIES.items() for country in countries.split()
}
_EMAIL: Final = LatePattern(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,6}[^\W\d_]{2,24}")
_IBAN: Final = LatePattern(r"(?i)\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}(?![A-Z0-9])")
_IBAN_BEGINS: Final = re.compile(r"\d\d(?<=[^\W\d_]{2}\d\d)")
_CARD: Final = LatePattern(r"(?<![\d.,-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\d-])")
_IP: Final = LatePattern(
    r"(?<![\w.:-])(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:-]|\.\d)"
)
_TELEPHONE: Final = LatePattern(
    r"(?<![\w+.,/-])(?:\+\d{1,3}[ ./-]?(?:\(0?\d{1,5}\)[ ./-]?)?(?:\d[ ./-]?){5,12}\d"
    r"|00\d{2}[ ./-](?:\d[ ./-]?){6,12}\d"
    r"|\(?\b[2-9]\d{2}\)?[ .-][2-9]\d{2}[ .-]\d{4}"
    r"|\(?\b0\d{2,4}\)?[ /-]{1,3}(?:\d[ -]?){5,9}\d)(?!\w|[.,:/-]\d)"
)
_CALLED: Final = LatePattern(
    r"(?i)\b(?:tel|phone|telephone|telefon|teléfono|téléphone|telefone|telefono|mobile?|cell|handy|fax|whatsapp|rufnummer"
    r"|call me)\b(?: number)?(?: is| at| on|\.|:)*[ ]{0,3}(\(?\d(?:[ ()./-]{0,2}\d){5,14})(?!\d)"
)
_STREET: Final = LatePattern(
    r"\b[A-ZÄÖÜ][\wß.-]{1,30}(?:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse|ring|damm|ufer|straat|laan|gracht|plein|kade"
    r"|gatan|vägen|gade|vej)\s?\d{1,4}\s?[a-z]?\b"
    r"|\b[A-ZÄÖÜ][\wß.-]{1,30} (?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Ring|Damm|Ufer) \d{1,4}\s?[a-z]?\b"
    r"|\b\d{1,5}[a-z]? (?:[A-Z][\w'’.-]{0,20} ){1,3}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard"
    r"|Blvd|Court|Ct|Way|Square|Terrace|Close|Crescent|Parkway|Highway)\b\.?"
    r"|\b\d{1,4}(?: ?bis| ?ter)?,? (?:rue|avenue|boulevard|chemin|allée|impasse|quai|cours) (?:d\w{0,2}['’ ]|l[a']? ?)?"
    r"[A-ZÀ-Ý][\w'’-]{1,30}(?: [A-ZÀ-Ý][\w'’-]{1,30}){0,3}"
    r"|\b(?:Calle|Avenida|Paseo|Plaza|Via|Viale|Corso|Piazza|Rua|Travessa) (?:d\w{1,3} )?"
    r"[A-ZÀ-Ý][\w'’-]{1,30}(?: [A-ZÀ-Ý][\w'’-]{1,30}){0,3},? (?:n\.? ?º? ?)?\d{1,4}\b"
    r"|\bул(?:\.|ица) ?[А-ЯЁ][\w-]{1,30},? (?:д(?:\.|ом) ?)?\d{1,4}"
)


def _is_iban(text: str) -> bool:
    plain = re.sub("[ -]", "", text).upper()
    if _IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """By Luhn: each second digit from the right is doubled, and the sum of all ends in 0."""
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    doubled = (digit * 2 - 9 * (digit > 4) for digit in digits[1::2])
    return len(set(digits)) > 1 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_ip(text: str) -> bool:
    """An address that may be somebody's: not that of the machine itself, nor of none."""
    if not any(c.isdigit() for c in text):
        return False  # ``a::b`` is C++
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not address.is_loopback and not address.is_unspecified


def _is_telephone(text: str) -> bool:
    return 7 <= sum(c.isdigit() for c in text) <= 15


_KINDS: Final[tuple[tuple[str, LatePattern, int, Callable[[str], bool]], ...]] = (
    ("e-mail", _EMAIL, 0, bool),
    ("IBAN", _IBAN, 2, _is_iban),
    ("card", _CARD, 13, _is_card),
    ("IP address", _IP, 1, _is_ip),
    ("telephone", _TELEPHONE, 7, _is_telephone),
    ("telephone", _CALLED, 7, _is_telephone),
    ("street", _STREET, 1, bool),
)
"""With how many digits each has at least."""
_DIGIT: Final = re.compile(r"\d")
_MAY_HOLD_ANY: Final = re.compile(r"@|\d|::")


def masked(text: str) -> tuple[str, Counter[str]]:
    """The text with a placeholder such as ``[e-mail]`` for each, and how many of each kind there were."""
    found = Counter[str]()
    return "".join(_masked_piece(piece, found) for piece in _pieces(text)), found


def find_personal(text: str) -> Counter[str]:
    """How many of each kind a text holds."""
    return masked(text)[1]


def counts_text(found: Counter[str]) -> str:
    """The counts in words: ``2 e-mail, 1 telephone``."""
    return ", ".join(f"{number} {kind}" for kind, number in found.most_common())


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PIECE:
        ends = (text.rfind(mark, start + PIECE // 2, start + PIECE) for mark in "\n ")
        end = next((place + 1 for place in ends if place >= 0), start + PIECE)
        yield text[start:end]
        start = end
    yield text[start:]


def _masked_piece(piece: str, found: Counter[str]) -> str:
    if not _MAY_HOLD_ANY.search(piece):
        return piece
    digits = len(_DIGIT.findall(piece))
    for kind, pattern, least, is_one in _KINDS:
        if digits >= least and _has_marks(kind, piece):
            piece = pattern.compiled.sub(partial(_mask, kind=kind, is_one=is_one, found=found), piece)
    return piece


def _has_marks(kind: str, piece: str) -> bool:
    """Whether what separates the parts of such a one is there, which is found sooner than the whole."""
    if kind == "e-mail":
        return "@" in piece
    if kind == "IBAN":
        return _IBAN_BEGINS.search(piece) is not None
    return kind != "IP address" or piece.count(":") >= 2 or piece.count(".") >= 3


def _mask(match: re.Match[str], *, kind: str, is_one: Callable[[str], bool], found: Counter[str]) -> str:
    """The placeholder; what was found as it stands, if it does not pass its check."""
    group = match.lastindex or 0
    if not is_one(match[group]):
        return match[0]
    found[kind] += 1
    return f"{match[0][: match.start(group) - match.start()]}[{kind}]"
