"""Tests of prompts with some words left out: which ones there are, and when a step trains them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from sleepd.worker.data.chat_format import ChatFormat
from sleepd.worker.data.examples import encode_examples
from sleepd.worker.programs.tiny_model import make_tiny_tokenizer
from sleepd.worker.training.thinned_prompts import FEWEST_WORDS, presented, thinned, without_some_words

from .conftest import RecordingChannel, examples, quick

pytestmark = pytest.mark.worker


@given(some.lists(some.sampled_from("abcdef"), max_size=8), some.text(max_size=4))
def test_thinned_prompt_keeps_order(words: list[str], seed: str) -> None:
    """It is two words at least, fewer than the prompt has, in their order, and the same for the same seed."""
    text = without_some_words(" ".join(words), seed)
    assert text == without_some_words(" ".join(words), seed)
    left = iter(words)
    assert all(word in left for word in text.split())
    assert not text or FEWEST_WORDS <= len(text.split()) < len(words)


def test_only_short_replies_are_thinned() -> None:
    """A reply that is trained no more often than others has no thinned prompts, nor has one of a strategy without."""
    chat, channel = ChatFormat(make_tiny_tokenizer(), ""), RecordingChannel()
    short = examples(2, 0)
    long = [msgspec.structs.replace(one, id=f"long {one.id}") for one in examples(2, 0, characters=200)]
    encoded = encode_examples(chat, [*short, *long], 512, channel)
    repeated = quick(most_repeats=10, thinned_share=0.5)
    found = thinned(chat, [*short, *long], encoded, repeated, lambda: None)
    lengths = {one.id: one.supervised for one in encoded}
    assert set(found) == {one.id for one in encoded if lengths[one.id] <= 28} != set()
    for one in encoded:
        for variant in found.get(one.id, []):
            assert variant.ids[variant.prompt_tokens :] == one.ids[one.prompt_tokens :]
            assert len(variant.ids) < len(one.ids)
            assert variant.weight == one.weight
    assert thinned(chat, short, encoded[:2], quick(most_repeats=10, thinned_share=0.0), lambda: None) == {}
    assert thinned(chat, short, encoded[:2], quick(thinned_share=0.5), lambda: None) == {}


def test_share_of_steps_is_thinned() -> None:
    """About the strategy's share of the steps takes a variant, the same one for the same step; one that is too long
    for the memory that is left is not taken.
    """
    chat, channel = ChatFormat(make_tiny_tokenizer(), ""), RecordingChannel()
    (one,) = encode_examples(chat, examples(1, 0), 512, channel)
    variants = [replace(one, ids=one.ids[:-number]) for number in (1, 2)]

    def taken(share: float, longest: int = 512) -> Counter[int]:
        steps = range(400)
        return Counter(len(presented(one, variants, share, step=step, longest=longest).ids) for step in steps)

    assert taken(0.0) == {len(one.ids): 400}
    assert taken(0.5) == taken(0.5)
    assert 150 < taken(0.5)[len(one.ids)] < 250
    assert set(taken(1.0)) == {len(one.ids) - 1, len(one.ids) - 2}
    assert taken(1.0, longest=len(one.ids) - 2) == {len(one.ids) - 2: 400}
    assert taken(1.0, longest=1) == {len(one.ids): 400}
