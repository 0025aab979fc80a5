"""Tests of one experience: what is used, what is set aside and why, and how it is known."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.experience import Experience, content_hash, derived_id, hash_text, id_hash, parse

TEXT = st.text(max_size=40)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
NAMES = ("id", "prompt", "response", "salience", "timestamp")


@given(ANYTHING | st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, ANYTHING)))
def test_any_record_is_used_or_explained(record: Any) -> None:
    """Nothing raises; what is used has usable fields, what is not has a short printable reason."""
    found = parse(record)
    if isinstance(found, str):
        assert found.isprintable()
        assert 0 < len(found) < 200
    else:
        assert found.response.strip()
        assert math.isfinite(found.salience)
        assert 0.0 <= found.salience <= 1.0
        (found.id + found.prompt + found.response).encode()


@given(identifier=st.text(min_size=1, max_size=40), prompt=TEXT, response=TEXT, salience=st.floats(0, 1))
def test_whole_record_passes_unchanged(identifier: str, prompt: str, response: str, salience: float) -> None:
    """Through JSON and back, no field changes; only an empty reply is refused."""
    written = {"id": identifier, "prompt": prompt, "response": response, "salience": salience}
    found = parse(json.loads(json.dumps(written)))
    if response.strip():
        assert found == Experience(id=identifier, prompt=prompt, response=response, salience=salience)
    else:
        assert isinstance(found, str)


@given(st.integers(0, 2**64 - 1))
def test_key_and_text_correspond(key: int) -> None:
    """Every key can be written as an id and read back."""
    assert id_hash(hash_text(key)) == key


@given(st.text(st.characters(), max_size=60))
def test_any_id_has_64_bit_key(identifier: str) -> None:
    """Lone surrogates and full-width digits included; the same id always gives the same key."""
    assert 0 <= id_hash(identifier) < 2**64
    assert id_hash(identifier) == id_hash(identifier)


@pytest.mark.parametrize(
    "near", ["0" * 15, "0" * 17, "0" * 15 + "A", "0" * 15 + "g", "0" * 15 + "\uff11", "0" * 16 + "\n"]
)
def test_near_hex_id_is_hashed(near: str) -> None:
    """Exactly sixteen lowercase ASCII digits are a number; all else keeps apart from small numbers by its hash."""
    assert id_hash(near) > 2**32


@given(prompt=TEXT, response=TEXT, gap=st.sampled_from([" ", "\n", "\t ", "\u00a0"]))
def test_white_space_makes_no_other_group(prompt: str, response: str, gap: str) -> None:
    """Copies that differ in white space around the text fall together, so that none leaks into the holdout."""
    assert content_hash(prompt, response) == content_hash(f"{gap}{prompt}{gap}", f"{response}{gap}")


def test_id_is_derived_like_agents_do() -> None:
    """The first sixteen digits of sha256 of prompt, bar and reply: a known value."""
    assert derived_id("p", "r") == "db3316501ff392dc"
    assert derived_id("a|b", "c") == derived_id("a", "b|c")  # the format's own ambiguity, kept


def test_wrong_text_is_not_shown() -> None:
    """A reason is read by all who may look: of a text that nobody screened it says the length alone."""
    found = parse({"id": "a", "prompt": "p", "response": "r", "salience": "x" * 10**7})
    assert re.fullmatch("salience: .* 10000000 characters", found)
