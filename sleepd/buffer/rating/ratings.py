"""Ratings that come after the replies: ``feedback.jsonl`` beside a source, scores of Langfuse and of OpenTelemetry.

A line of ``feedback.jsonl`` names a reply by ``id``, or by ``conversation`` and ``turn`` (of the assistant's replies,
counted from 1; without a turn it counts for each of them). It says ``rating`` (1 or -1, true or false, or a word such
as ``thumbs_up``) or ``salience`` (0 to 1). The last line about a reply counts; a rating of 0 or null withdraws those
before.

A score of Langfuse names an observation, or a trace with all its generations. The last of each name counts, and of
several names the least. What a model scored (``source`` EVAL) does not count. The evaluations in log records of
OpenTelemetry (``gen_ai.evaluation.result``) count in the same way, for a response or a span.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import msgspec

from sleepd.buffer.digest import MOST_SKIPPED, Skipped
from sleepd.buffer.experience import salience_of
from sleepd.buffer.formats.call_logs.otel_attributes import evaluations
from sleepd.buffer.formats.format import NotRead, Record, identifier_of, object_of, rated, scored, shown
from sleepd.buffer.learnables import NoJson
from sleepd.buffer.parsing import decoded_line

from .rating_names import REJECTED, WHOLE, rating_key

MOST_BYTES: Final = 64 * 2**20
"""Of one file; what comes behind is not read."""
MOST_RATINGS: Final = 100_000
_LONGEST_LINE: Final = 2**20


class Ratings(msgspec.Struct, frozen=True, kw_only=True):
    """What files of ratings say."""

    by_key: dict[str, float]
    """As ``ReadSettings.ratings``."""
    places: dict[str, str]
    """Of each key that a line of feedback names, and no score: where it stands."""
    skipped: list[Skipped]
    """The first lines that are not used, with their places; a hundred at most."""


class _Scores:
    """What was said so far."""

    def __init__(self) -> None:
        self._feedback: dict[str, float] = {}
        self.places: dict[str, str] = {}
        self._scores: dict[str, dict[str, float]] = {}

    def add(self, position: str, line: Any) -> None:
        if isinstance(line, NoJson):
            raise NotRead(str(line))
        record = object_of(line, "line")
        if "resourceLogs" in record:
            for key, name, value in evaluations(record):
                self._add_score(key, name, value)
            return
        if "data_type" in record or "dataType" in record:
            self._add_score(*_score(record))
            return
        key, salience = _key(record), _salience(record)
        if salience is None:
            self._feedback.pop(key, None)
            self.places.pop(key, None)
        else:
            self._check_room(key not in self._feedback)
            self._feedback[key] = salience
            self.places.pop(key, None)
            self.places[key] = position

    def _add_score(self, key: str, name: str, value: float) -> None:
        self._check_room(key not in self._scores)
        self._scores.setdefault(key, {})[name] = value

    def _check_room(self, is_new: bool) -> None:
        if is_new and len(self._feedback) + len(self._scores) >= MOST_RATINGS:
            raise NotRead(f"more than {MOST_RATINGS} ratings: this one is not used")

    def by_key(self) -> dict[str, float]:
        return {**{key: min(named.values()) for key, named in self._scores.items()}, **self._feedback}


def read_ratings(files: Iterable[tuple[str, BinaryIO]]) -> Ratings:
    """What the files say, the later ones last.

    Args:
        files: each with its name, open at its beginning.
    """
    scores, skipped = _Scores(), list[Skipped]()
    for name, file in files:
        for number, record in _records(file):
            position = f"{name} line {number}"
            try:
                scores.add(position, record)
            except NotRead as error:
                if len(skipped) < MOST_SKIPPED:
                    skipped.append(Skipped(position=position, reason=str(error)))
    return Ratings(by_key=scores.by_key(), places=scores.places, skipped=skipped)


def _records(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    left, number, is_continued = MOST_BYTES, 0, False
    while line := file.readline(min(left, _LONGEST_LINE)):
        left -= len(line)
        is_whole, is_rest = line.endswith(b"\n"), is_continued
        number += not is_rest
        is_continued = not is_whole and len(line) == _LONGEST_LINE
        if left <= 0:
            yield number, NoJson(f"the file is longer than {MOST_BYTES} bytes: this line and what follows is not read")
            return
        if is_continued and not is_rest:
            yield number, NoJson(f"longer than {_LONGEST_LINE} bytes")
        elif not is_rest and not is_continued and (record := decoded_line(line)) is not None:
            yield number, record


def _key(record: Record) -> str:
    if identifier := identifier_of(record.get("id")):
        return identifier
    conversation, turn = identifier_of(record.get("conversation")), record.get("turn")
    if not conversation:
        raise NotRead("expected an id, or a conversation and a turn, found neither")
    if turn is None:
        return rating_key(conversation, WHOLE)
    if not isinstance(turn, int) or isinstance(turn, bool) or not 0 < turn < 2**63:
        raise NotRead(f"turn: expected a number from 1, found {shown(turn)}")
    return rating_key(conversation, turn)


def _salience(record: Record) -> float | None:
    if record.get("salience") is not None:
        found = salience_of(record["salience"], "salience")
        if isinstance(found, str):
            raise NotRead(found)
        return found
    if "rating" not in record:
        raise NotRead("expected a rating or a salience, found neither")
    rating = record["rating"]
    if rating is False:
        return REJECTED
    if rating is None or (isinstance(rating, int | float) and rating == 0):
        return None
    salience = rated(rating) if isinstance(rating, str) or rating in (1, -1) else None
    if salience is None:
        raise NotRead(
            "rating: expected 1, -1 or a word such as 'thumbs_up'; a finer figure goes into salience (0 to 1)"
        )
    return salience


def _score(record: Record) -> tuple[str, str, float]:
    """The key of a score, its name and the salience that it stands for."""
    if record.get("source") == "EVAL":
        raise NotRead("source: a model gave this score, only those of people and programs count")
    observation = identifier_of(record.get("observation_id", record.get("observationId")))
    trace = identifier_of(record.get("trace_id", record.get("traceId")))
    if not observation and not trace:
        raise NotRead("observation_id, trace_id: expected text, found nothing")
    kind, value = record.get("data_type", record.get("dataType")), record.get("value")
    if kind == "CATEGORICAL":
        salience = rated(record.get("string_value", record.get("stringValue")) or value)
    else:
        salience = scored(value) if kind in ("NUMERIC", "BOOLEAN") else None
    if salience is None:
        raise NotRead("value: expected a number up to 1, or a category such as 'positive' or 'thumbs_down'")
    return observation or rating_key(trace, WHOLE), identifier_of(record.get("name")), salience
