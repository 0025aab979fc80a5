"""Tests of secrets in other shapes: ``data/secrets_corpus.jsonl``, of which one half was not looked at while tuning.

Its secrets are invented by a seeded generator and were never anybody's. Of the kept half only the two sums were seen.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sleepd.text.bounded_text import MOST_LINE
from sleepd.text.hidden_forms import MAX_DEPTH, decoded, plain, spelled, without_gaps
from sleepd.text.secret_scan import SecretFinder
from sleepd.text.seed_phrases import holds_seed_phrase
from tests.corpus import FORMS, screen, texts_of

REAL_BUFFERS = Path(os.environ.get("SLEEPD_REAL_BUFFERS", Path(__file__).parents[2] / "shared" / "data"))
"""A folder of real buffers, ``buffer_*.json``. None is shipped."""
MIN_FOUND = 0.85
MOST_GOOD_FOR_ALARM = 60
"""One false alarm in so many good texts."""
MAX_REAL_ALARMS = 0.02


class Score(NamedTuple):
    """Of one half: names of what was missed, and of good texts that were called secrets."""

    secrets: int
    good: int
    missed: list[str]
    alarms: list[str]


@cache
def finder() -> SecretFinder:
    return SecretFinder()


def kind_of(text: str) -> str:
    return finder().find(text)


@cache
def score(half: str) -> Score:
    cases = [case for line in FORMS.read_text().splitlines() if (case := json.loads(line))["half"] == half]
    is_found = {case["name"]: any(kind_of(text) for text in texts_of(case).values()) for case in cases}
    secrets = [case["name"] for case in cases if case["label"] == "secret"]
    good = [case["name"] for case in cases if case["label"] == "good"]
    missed = [name for name in secrets if not is_found[name]]
    return Score(len(secrets), len(good), missed, [name for name in good if is_found[name]])


def test_corpus_is_large_enough() -> None:
    """At least 120 secrets and 120 good texts; 65 and 62 of them are kept for the test."""
    halves = [score(half) for half in ("develop", "kept")]
    assert sum(half.secrets for half in halves) >= 120
    assert all(half.secrets >= 55 and half.good >= 60 for half in halves)


@pytest.mark.parametrize("half", ["develop", "kept"])
def test_secrets_of_other_shapes_are_found(half: str) -> None:
    """At least 85 % of the secrets are found, and at most 1 in 60 of the good texts is called one."""
    found = score(half)
    # Counts only: whoever reads the names of the kept half tunes on it.
    assert len(found.missed) <= (1 - MIN_FOUND) * found.secrets, f"{len(found.missed)} of {found.secrets} missed"
    assert len(found.alarms) * MOST_GOOD_FOR_ALARM <= found.good


def test_real_buffers_raise_few_alarms() -> None:
    """In real buffers, where there are any beside the project, at most 2 % of the experiences are called secrets."""
    records: list[dict[str, Any]] = []
    for path in sorted(REAL_BUFFERS.glob("buffer_*.json")):
        found = json.loads(path.read_text())
        records += found["experiences"] if isinstance(found, dict) else found
    if not records:
        pytest.skip("no real buffers: set SLEEPD_REAL_BUFFERS to a folder of buffer_*.json")
    secrets = [one.id for one in screen(records) if one.reason == "secret"]
    assert len(secrets) <= MAX_REAL_ALARMS * len(records), secrets


KEY = "AKIA" + "Z7QH4LM2RTWXK3PB"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (" ".join(KEY), "AWS Access Key, spelled"),
        ("-".join(KEY), "AWS Access Key, spelled"),
        (f"{KEY[:9]}\n{KEY[9:]}", "AWS Access Key, cut apart"),
        ("\u200b".join(KEY), "AWS Access Key"),
        (KEY.replace("A", "\u0410"), "AWS Access Key"),
        ("".join(chr(ord(c) + 0xFEE0) for c in KEY), "AWS Access Key"),
        ("".join(f"%{ord(c):02x}" for c in KEY), "AWS Access Key, encoded"),
        ("".join(f"\\x{ord(c):02x}" for c in KEY), "AWS Access Key, encoded"),
        ("".join(f"\\u{ord(c):04x}" for c in KEY), "AWS Access Key, encoded"),
        (KEY.encode().hex(" "), "AWS Access Key, encoded"),
        ("QUtJQVo3UUg0TE0yUlRXWEszUEI=", "AWS Access Key, encoded"),
        ("UVV0SlFWbzNVVWcwVEUweVVsUlhXRXN6VUVJPQ==", "AWS Access Key, encoded"),
    ],
)
def test_form_does_not_hide_a_key(text: str, kind: str) -> None:
    """One key in each form is found as what it is, and the form is said."""
    assert kind_of(f"Here: {text} for you.") == kind


def test_words_of_other_scripts_stay() -> None:
    """Only a word that mixes scripts is folded into Latin letters."""
    assert plain("Мой пароль") == "Мой пароль"
    assert plain("my p\u0430ssw\u043erd") == "my password"
    assert plain("plain text") == "plain text"
    assert max(len(plain(chr(code))) for code in (*range(0xD800), *range(0xF900, 0x10000))) <= 6


def test_encodings_are_opened_to_a_depth() -> None:
    """A text yields what it encodes, that yields again, and no more than so many layers are asked for."""
    import base64

    wrapped = KEY
    for _ in range(MAX_DEPTH + 1):
        wrapped = base64.b64encode(wrapped.encode()).decode()
    (first,) = decoded(wrapped)
    (second,) = decoded(first)
    assert KEY in list(decoded(second))
    assert kind_of(wrapped) == ""


def test_gaps_and_spelling() -> None:
    """A spelled word needs eight characters; without gaps a text has no white space, hyphen or quote."""
    assert spelled("a b c d") == ""
    assert spelled("it is p a s s w o r d x") == "passwordx"
    assert without_gaps('ab-cd\n"ef" gh') == "abcdefgh"


def test_seed_phrase_by_its_checksum() -> None:
    """Twelve words with the right checksum are one; in another order they are none, unless a word calls them so."""
    words = "legal winner thank year wave sausage worth useful legal winner thank yellow"
    assert holds_seed_phrase(words)
    assert holds_seed_phrase("\n".join(f"{n}. {word.upper()}" for n, word in enumerate(words.split(), 1)))
    other = " ".join(reversed(words.split()))
    assert not holds_seed_phrase(other)
    assert holds_seed_phrase(f"The seed is: {other}")
    assert not holds_seed_phrase(" ".join(words.split()[:11]))


HOSTILE = [
    *("a", "A", "1", " ", "\n", "-", "=", "%41", "\\x41", "41 ", "QUFB", "a.", "a-", "://", "a://a:", "\u0430a"),
    *("secret", "password_", "api_key", "password ", "password: ", "key is ", "pin ", "wifi key ", "WIFI:", "sid=a"),
    *("curl ", "mysql a", "--password ", "recovery code ", "abcd1-", "setup key ", "abandon ", "eyJ", "eyJaaaaaaaaaa."),
    *("-----BEGIN ", "aa-bb-", "\u5bc6\u7801", "\u043f\u0430\u0440\u043e\u043b\u044c ", "with a ", "a / b ", "\\u0041"),
]


def test_plain_text_needs_no_library() -> None:
    """Only a text that one of its detectors may find something in has the library loaded; without it none is found."""
    other = SecretFinder()
    assert other.find("In 2026 the harbour had 12 boats, and 3 of them were red.") == ""
    assert "_library" not in vars(other)
    assert other.find("AWS: AKIA" + "Q7RTWZ2XKLMN4P5V") != ""
    assert other.find("-----BEGIN RSA PRIVATE KEY-----") == "Private Key"
    assert "_library" in vars(other)


def test_missing_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, nothing is searched without it."""
    monkeypatch.setattr("sleepd.text.secret_scan.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="detect_secrets"):
        SecretFinder()


@pytest.mark.parametrize("unit", HOSTILE, ids=ascii)
def test_patterns_see_bounded_pieces(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a text of 10,000 characters repeats a pattern's beginning, the patterns see lines of bounded length."""
    import sleepd.text.secret_scan as scan

    seen = 0

    def counted(line: str) -> str:
        nonlocal seen
        seen += len(line)
        assert len(line) <= MOST_LINE
        return ""

    monkeypatch.setattr(scan, "find_token", counted)
    monkeypatch.setattr(scan, "find_labelled", counted)
    text = (unit * 10_000)[:10_000]
    finder().find(text)
    assert seen <= 2 * 8 * len(text)
