"""The operator's questions with checkable answers: ``probes.toml``, and whether a reply has the answer.

    [[probe]]
    question = "Who looks after the orchard?"
    expected = ["Mira"]

``expected`` is one text or several, any of which will do. The questions must not stand in the buffer in the same words,
or they measure what was learned by heart.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from sleepd.errors import ConfigError
from sleepd.files import open_regular
from sleepd.protocol.evidence import RecallQuestion

MAX_FILE_BYTES = 64 * 1024
MAX_PROBES = 200
"""Each is answered three times in a cycle."""

_Answer = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"\S")]


class _Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    question: Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\S")]
    expected: _Answer | Annotated[list[_Answer], Meta(min_length=1, max_length=20)]


class _QuestionFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    probe: Annotated[list[_Probe], Meta(min_length=1, max_length=MAX_PROBES)]


def read_questions(name: str) -> list[RecallQuestion]:
    """The questions in the file of that name; none where it is empty, as ``evaluation.probes`` is by default.

    Raises:
        ConfigError: it cannot be read or is not as described above; the place is named.
    """
    if not name:
        return []
    try:
        with open_regular(Path(name), follows_links=True) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise _refusal(name, f"cannot be read: {why}") from error
    if len(content) > MAX_FILE_BYTES:
        raise _refusal(name, f"expected at most {MAX_FILE_BYTES} bytes, found more")
    return parse_questions(content, name)


def parse_questions(content: bytes, name: str) -> list[RecallQuestion]:
    """The questions in the content of the file ``name``.

    Raises:
        ConfigError: it is not as described above; the place is named.
    """
    try:
        document = msgspec.convert(tomllib.loads(content.decode("utf-8-sig")), _QuestionFile)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:  # no UTF-8, no TOML, or another shape
        raise _refusal(name, ascii(str(error))[1:-1][:300] or type(error).__name__) from None
    return [
        RecallQuestion(
            question=each.question, expected=each.expected if isinstance(each.expected, list) else [each.expected]
        )
        for each in document.probe
    ]


def is_recalled(reply: str, expected: Sequence[str]) -> bool:
    """Whether any of the expected texts stands in the reply, case and runs of white space aside."""
    answer = _plain(reply)
    return any(_plain(one) in answer for one in expected)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _refusal(name: str, what: str) -> ConfigError:
    return ConfigError(
        f"evaluation.probes: {ascii(name)[1:-1]}: {what}",
        hint='it holds [[probe]] tables with question = "…" and expected = ["…"]; or set evaluation.probes to ""',
    )
