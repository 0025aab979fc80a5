"""Words by which an agent marks a record as a breakthrough. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any, Final

LONGEST_MARK: Final = 64
"""Characters."""


def folded_marks(marks: Iterable[str]) -> tuple[str, ...]:
    """The marks as ``bears_a_mark`` compares them: case does not count."""
    return tuple(mark.casefold() for mark in marks)


def bears_a_mark(record: Mapping[str, Any], marks: Collection[str]) -> bool:
    """Whether ``phase``, one of ``tags``, or a value of ``metadata`` is one of the marks.

    Args:
        record: as an agent wrote it; whatever else stands there has no meaning here.
        marks: folded.
    """
    metadata = record.get("metadata")
    own = metadata.values() if isinstance(metadata, Mapping) else ()
    values = (record.get("phase"), record.get("tags"), *own)
    words = chain.from_iterable(each if isinstance(each, list) else (each,) for each in values)
    return any(isinstance(word, str) and len(word) <= LONGEST_MARK and word.casefold() in marks for word in words)
