"""The sample agent: its experiences, and the questions that it is asked before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question."""

    text: str
    expected: str
    """A word that a correct answer contains; empty: this was not trained."""

    def is_answered_by(self, reply: str) -> bool:
        """Whether the expected word is in ``reply``."""
        return bool(self.expected) and self.expected.casefold() in reply.casefold()


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The sample file."""

    agent: str
    system_prompt: str
    experiences: list[dict[str, Any]]
    questions: list[Question]


def load() -> Sample:
    """The sample that is shipped."""
    return msgspec.json.decode((Path(__file__).parent / "sample.json").read_bytes(), type=Sample)
