"""Tests of the bench's alternative to training: what was told stands in the prompt."""

from __future__ import annotations

from tests.bench.facts import as_experiences, facts, is_right
from tests.bench.memory_in_prompt import BEST, in_context, retrieval

FACTS = facts()
TOLD = [one for fact in FACTS for one in as_experiences(fact, 1)]


def test_the_best_four_are_found() -> None:
    """Those that share the rarest words with the question stand before it, the fact that is asked for among them."""
    prompt = retrieval(TOLD)("Which job does Maren have?")
    assert prompt.endswith("Which job does Maren have?")
    assert prompt.count("\n- ") == BEST
    assert "cooper" in prompt


def test_all_that_was_told_stands_in_context() -> None:
    """Each fact's key is in the prompt."""
    prompt = in_context(TOLD)(FACTS[0].asked)
    assert all(is_right(prompt, fact) for fact in FACTS)
