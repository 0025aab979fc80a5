"""The plain functions' results for ordinary text, and linear work for any other."""

from __future__ import annotations

import random
import unicodedata

import pytest

from sleepd.text import bounded_text
from sleepd.text.bounded_text import (
    MOST_LINE,
    MOST_MARKS,
    MOST_SPACES,
    OVERLAP,
    folded,
    normalise,
    plain_spaces,
    short_lines,
)

ASSIGNED = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
JOINING = [c for c in ASSIGNED if unicodedata.combining(unicodedata.normalize("NFKD", c)[0])]
COMPOSED = [c for c in ASSIGNED if unicodedata.normalize("NFC", c) != unicodedata.normalize("NFD", c)]
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@pytest.mark.parametrize("form", FORMS)
def test_slices_change_no_result(form: bounded_text.Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after every fifth character or so, text of letters, marks and jamo normalises as if it were not cut."""
    monkeypatch.setattr(bounded_text, "SLICE", 5)
    chance = random.Random(form)
    pools = (JOINING, ASSIGNED, COMPOSED, ["a", "e", "\u1100", "\u1161", "\u11a8", "\uffa1", "\uffc2"])
    for _ in range(2_000):
        text = "".join(chance.choice(chance.choice(pools)) for _ in range(chance.randint(1, 25)))
        assert normalise(text, form) == unicodedata.normalize(form, text), ascii(text)


def test_folded_as_before() -> None:
    """Folding in slices gives the hash of every state directory that was written with the plain functions."""
    text = "Straße ΑΣ ﬁne İstanbul Ｆｕｌｌ ①  e\u0301 한국어 " * 9_000
    assert folded(text) == unicodedata.normalize("NFKC", text).casefold()
    assert folded("Plain ASCII") == "plain ascii"


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\u0345\u0301", "\uff9e\u3099", "\U0001d165\u0334", "\u0f73\u0f71"])
def test_long_run_is_broken_up(marks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of the quadratic function is given more than 30 combining marks in a row."""
    given = []
    plain = unicodedata.normalize

    def noted(form: bounded_text.Form, text: str) -> str:
        given.append(text)
        return plain(form, text)

    monkeypatch.setattr("sleepd.text.bounded_text.unicodedata.normalize", noted)
    assert len(normalise("a" + marks * 100_000, "NFKC")) >= 200_000
    for text in given:
        assert len(text) <= bounded_text.SLICE + 64
        assert all("\u034f" in text[i : i + MOST_MARKS + 1] for i in range(1, len(text) - MOST_MARKS, 7))


def test_other_texts_stay_apart() -> None:
    """Two hostile texts that differ in one mark of a long run stay different texts."""
    assert normalise("a" + "\u0301" * 100, "NFC") != normalise("a" + "\u0301" * 101, "NFC")


def test_lines_for_patterns() -> None:
    """White space is shortened, long lines come in overlapping pieces, and no character in a line is lost."""
    assert plain_spaces("a" + " " * 50 + "b\t\tc") == "a" + " " * MOST_SPACES + "b\t\tc"
    assert list(short_lines("one\n\n  two")) == ["one", "", "  two"]
    line = "".join(chr(0x100 + i % 5_000) for i in range(3 * MOST_LINE))
    pieces = list(short_lines(line))
    assert max(map(len, pieces)) == MOST_LINE
    assert all(any(line[i : i + OVERLAP] in piece for piece in pieces) for i in range(0, len(line) - OVERLAP, 50))
