"""The words that the project gave up, and what it says instead: in names, messages, docstrings and comments."""

from __future__ import annotations

import ast
import functools
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

GONE = {
    "night": "cycle",
    "lesson": "training example",
    "exchange": "chat example",
    "interview": "probe generation",
    "meter": "loss evaluator",
    "obituary": "exit reason",
    "essence": "change key",
    "barred": "excluded",
    "owed": "pending",
    "mend": "fix, repair",
    "mended": "fixed, repaired",
    "mending": "fixing, repair",
    "standing": "active",
    "thin": "low sample",
    "harm": "safety gate, damage",
    "doubt": "alpha",
    "set aside": "skipped, excluded",
    "general prompt": "reference prompt",
    "held to the base": "regularised towards the base",
    "in other company": "in another batch",
    "kept from training": "excluded from training",
    "owner's": "operator's",
}
"""The word or phrase, without its plural, and its replacement."""

KEPT = {
    "night": ["night_shortened"],  # the name of an event in the log
    "thin": ["is_thin"],  # a key of --json
    "harm": ["harms", "promotion.harms"],  # a key of the configuration
    "interview": [r"\b(?:ask|interview) me\b"],  # what a prompt may say
}
"""By word, where it stays: it belongs to a format, to other programs' search terms, or means something else."""

SENTENCE = re.compile(r"(?:\b[a-z']+[,;:]? ){4}[a-z']+\b")
"""Five plain words in a row."""

UNITS = [*sorted((ROOT / "systemd").rglob("*.service")), ROOT / "systemd" / "sage-sleepd.catalog"]


def uses(text: str, word: str) -> list[str]:
    """Every use of the word in a text that is not one of those that stay."""
    for kept in sorted(KEPT.get(word, ()), key=len, reverse=True):
        text = text.replace(kept, "")
    return re.findall(rf"(?i)(?<![a-z]){re.escape(word)}s?(?![a-z])", text)


@functools.cache
def pieces(path: Path) -> list[tuple[int, str]]:
    """Names, strings and comments of a module with their lines; a name as the words that it is made of."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    found = []
    for token in tokens:
        if token.type == tokenize.NAME:
            found.append((token.start[0], re.sub(r"(?<=[a-z])(?=[A-Z])", "_", token.string)))
        elif token.type in (tokenize.STRING, tokenize.COMMENT):
            found.append((token.start[0], " ".join(token.string.split())))
    return found


@pytest.mark.parametrize("word", GONE)
def test_gone_words_stay_gone(word: str) -> None:
    """No name, message, docstring or comment of the package, no unit and no catalog entry has the word."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:80]}"
        for path in sorted((ROOT / "sleepd").rglob("*.py"))
        for line, text in pieces(path)
        if uses(text, word)
    ]
    found += [str(path.relative_to(ROOT)) for path in UNITS if uses(path.read_text(), word)]
    assert found == [], f"say {GONE[word]!r}"


def test_every_exception_is_used() -> None:
    """What is allowed to stay is still there: an exception without a use would hide a new one."""
    everything = " ".join(text for path in (ROOT / "sleepd").rglob("*.py") for _, text in pieces(path))
    assert [kept for some in KEPT.values() for kept in some if kept not in everything] == []


def asserted(path: Path) -> Iterator[tuple[int, str]]:
    """Every text that is asserted, and that an error is expected to have, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        expected = [node.test] if isinstance(node, ast.Assert) else []
        if isinstance(node, ast.keyword) and node.arg == "match":
            expected = [node.value]
        for part in itertools.chain.from_iterable(map(ast.walk, expected)):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.lineno, part.value


def test_no_assertion_spells_a_sentence() -> None:
    """A text of 30 characters and more with five words in a row is in no assertion: such texts are kept in files."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line, text in asserted(path)
        if len(text) >= 30 and SENTENCE.search(text)
    ]
    assert found == [], "compare with tests.kept.kept, or with the figures and names in it"
