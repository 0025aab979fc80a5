"""Tests that what spares the screening its slow patterns never spares it one that would have found something."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sleepd.policy.judging import repetition
from sleepd.text import hidden_forms, labelled_secrets, personal_data, secret_scan, token_patterns
from sleepd.text.labelled_secrets import lowered, may_hold_name, may_hold_password
from sleepd.text.late_pattern import LatePattern

ASCII = st.characters(min_codepoint=33, max_codepoint=126)
WORDS = (
    (labelled_secrets._RECOVERY, labelled_secrets._RECOVERY_WORDS),
    (labelled_secrets._OTP_GROUPS, labelled_secrets._OTP_WORDS),
    (labelled_secrets._HEADER, ("authorization",)),
    (labelled_secrets._OWN_HEADER, ("x-",)),
    (labelled_secrets._COOKIE, ("=",)),
    (labelled_secrets._OTP, ("otpauth",)),
    (labelled_secrets._FLAG, ("-", "net user")),
    (labelled_secrets._PIN, labelled_secrets._PIN_WORDS),
    (labelled_secrets._QUOTED, ("pass",)),
    (labelled_secrets._NETWORK, labelled_secrets._NETWORK_WORDS),
)
SHAPES = [*token_patterns.SHAPES.values(), token_patterns._PREFIXED]


@settings(max_examples=40)
@given(st.sampled_from(SHAPES).flatmap(partial(st.from_regex, fullmatch=True)))
def test_token_has_long_run(line: str) -> None:
    """A line in which a token stands is never passed over."""
    assert token_patterns._LONG_RUN.search(line)


@settings(max_examples=100)
@given(st.from_regex(re.compile(f"(?i){labelled_secrets._NAMES}"), fullmatch=True))
def test_name_of_secret_is_noticed(name: str) -> None:
    """Whatever names a secret, in any case, is noticed before the pattern is asked."""
    assert may_hold_name(name)


@given(st.text(ASCII, min_size=8, max_size=12))
def test_password_is_noticed(value: str) -> None:
    """A word that may be a password is noticed, whatever stands around it."""
    if labelled_secrets._is_password(value) or labelled_secrets._is_strong(value):
        assert may_hold_password(f"it is {value} now")


@settings(max_examples=40)
@given(st.sampled_from(WORDS), st.data())
def test_pattern_has_its_word(case: tuple[LatePattern, tuple[str, ...]], data: st.DataObject) -> None:
    """What a pattern finds has one of the words by which a line is chosen for it, in any case."""
    pattern, words = case
    text = lowered(data.draw(st.from_regex(pattern.compiled, fullmatch=True)))
    assert any(word in text for word in words) or (words is labelled_secrets._PIN_WORDS and not text.isascii())


def test_library_names_have_our_words() -> None:
    """Each name that the library's detector of keywords knows has one of the words by which it is asked."""
    from detect_secrets.plugins.keyword import DENYLIST

    assert [name for name in DENYLIST if not any(word in name for word in secret_scan._IN_KEYWORDS)] == []


@settings(max_examples=60)
@given(st.data())
def test_library_shape_is_noticed(data: st.DataObject) -> None:
    """Whatever a detector of the library knows by its shape is noticed before it is asked."""
    detectors = secret_scan.SecretFinder()._library.by_shape
    pattern = data.draw(st.sampled_from([pattern for one in detectors for pattern in one.denylist]))
    assert secret_scan.may_hold_shape(data.draw(st.from_regex(pattern, fullmatch=True)))


@settings(max_examples=60)
@given(st.text("ab7 \n.-·|\0", max_size=60))
def test_spelled_word_is_noticed(text: str) -> None:
    """A text that is passed over spells nothing of two characters or more."""
    if not hidden_forms._TWO_SINGLE.search(f" {text} "):
        parts = hidden_forms._BETWEEN.split(hidden_forms._WIDE_GAP.sub(" \0 ", text))
        runs = "".join(part if len(part) == 1 else " " for part in parts).replace("\0", "").split()
        assert all(len(run) < 2 for run in runs)


@settings(max_examples=40)
@given(st.from_regex(hidden_forms._HEX, fullmatch=True))
def test_hexadecimal_run_is_noticed(run: str) -> None:
    """A run of hexadecimal digits is never passed over."""
    assert hidden_forms._MAY_BE_HEX.search(run)


@settings(max_examples=60)
@given(st.text(st.sampled_from("AKIghp_9a0 -\"'`+.·|\\\n\t\x1c"), max_size=40))
def test_gaps_of_ascii_are_the_same(text: str) -> None:
    """Gaps leave a text of ASCII as the pattern for all texts has them."""
    assert hidden_forms.without_gaps(text) == hidden_forms._GAPS.sub("", text)


@settings(max_examples=60)
@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_are_the_same(text: str) -> None:
    """A text of ASCII has the words that the pattern for all texts finds."""
    assert repetition.words_in(text) == repetition.WORD.compiled.findall(text)


@settings(max_examples=40)
@given(st.from_regex(repetition._STUCK, fullmatch=True))
def test_stuck_run_is_one_word(run: str) -> None:
    """A stuck run is found among the long words alone."""
    assert repetition._stuck(f"so {run} it")


@settings(max_examples=40)
@given(st.sampled_from(personal_data._KINDS), st.data())
def test_personal_data_has_its_digits(kind: tuple[Any, ...], data: st.DataObject) -> None:
    """What passes the check of its kind has at least the digits that are asked for before."""
    name, pattern, least, is_one = kind
    text = data.draw(st.from_regex(pattern.compiled, fullmatch=True))
    found = pattern.compiled.fullmatch(text)
    if found is not None and is_one(found[found.lastindex or 0]):
        assert len(personal_data._DIGIT.findall(text)) >= least
        assert personal_data._has_marks(name, text)
