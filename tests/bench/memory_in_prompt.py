"""The alternative to training: what was told stands in the prompt, all of it or the best four by BM25.

SQLite's FTS5 finds these four.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence

from sleepd.buffer.experience import Experience

BEST = 4

Remember = Callable[[str], str]
"""From a question to the prompt that asks it."""


def in_context(told: Sequence[Experience]) -> Remember:
    """All that was told stands before each question."""
    texts = [_text(one) for one in told]
    return lambda question: _prompt(texts, question)


def retrieval(told: Sequence[Experience]) -> Remember:
    """The ``BEST`` of what was told that fit the question stand before it."""
    index = sqlite3.connect(":memory:")
    index.execute("CREATE VIRTUAL TABLE told USING fts5(text, tokenize='porter unicode61')")
    index.executemany("INSERT INTO told VALUES(?)", [(_text(one),) for one in told])

    def remember(question: str) -> str:
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))
        query = "SELECT text FROM told WHERE told MATCH ? ORDER BY bm25(told) LIMIT ?"
        return _prompt([text for (text,) in index.execute(query, (words, BEST))], question)

    return remember


def _text(one: Experience) -> str:
    return f"{one.prompt} {one.response}"


def _prompt(texts: Sequence[str], question: str) -> str:
    listed = "\n".join(f"- {text}" for text in texts)
    return f"This is what you know:\n{listed}\n\n{question}" if texts else question
