"""Tests that what spares the screening its slow patterns never spares it one that would have found something."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sleepd.text import labelled_secrets, personal_data, secret_scan, token_patterns
from sleepd.text.labelled_secrets import lowered, may_hold_name, may_hold_password

ASCII = st.characters(min_codepoint=33, max_codepoint=126)
WORDS = (
    (labelled_secrets._RECOVERY, labelled_secrets._RECOVERY_WORDS),
    (labelled_secrets._OTP_GROUPS, labelled_secrets._OTP_WORDS),
    (labelled_secrets._HEADER, ("authorization",)),
    (labelled_secrets._OWN_HEADER, ("x-",)),
    (labelled_secrets._COOKIE, ("=",)),
    (labelled_secrets._OTP, ("otpauth",)),
    (labelled_secrets._PIN, labelled_secrets._PIN_WORDS),
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
def test_pattern_has_its_word(case: tuple[re.Pattern[str], tuple[str, ...]], data: st.DataObject) -> None:
    """What a pattern finds has one of the words by which a line is chosen for it, in any case."""
    pattern, words = case
    text = lowered(data.draw(st.from_regex(pattern, fullmatch=True)))
    assert any(word in text for word in words) or (words is labelled_secrets._PIN_WORDS and not text.isascii())


def test_library_names_have_our_words() -> None:
    """Each name that the library's detector of keywords knows has one of the words by which it is asked."""
    from detect_secrets.plugins.keyword import DENYLIST

    assert [name for name in DENYLIST if not any(word in name for word in secret_scan._IN_KEYWORDS)] == []


@settings(max_examples=40)
@given(st.sampled_from(personal_data._KINDS), st.data())
def test_personal_data_has_its_digits(kind: tuple[Any, ...], data: st.DataObject) -> None:
    """What passes the check of its kind has at least the digits that are asked for before."""
    _, pattern, least, is_one = kind
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    found = pattern.fullmatch(text)
    if found is not None and is_one(found[found.lastindex or 0]):
        assert len(personal_data._DIGIT.findall(text)) >= least
