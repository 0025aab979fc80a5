"""A small part of the fuzzing in ``tests/faults``: the same targets, the same checks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.fuzz import Failure, attempt, fuzz
from tests.faults.targets import TARGETS, Target

SLOW = ("lineage", "evaluation")
"""They make a database for each input."""


@pytest.mark.parametrize("name", TARGETS)
def test_only_own_errors_come_out(tmp_path: Path, name: str) -> None:
    """Changed and cut documents are refused in words, or accepted and hold what the target's check says of them."""
    with ExitStack() as stack:
        tally = fuzz(TARGETS[name](tmp_path, stack), range(35 if name in SLOW else 280), seed=0)
        assert tally.failures == []
        assert tally.refused + tally.accepted == tally.inputs


FOUND = [
    ("digest", b'{"prompt":"p","response":"r","salience":0.5}\n"\xed\xa0\x80"\n'),
    ("request", b'{"op":"why","limit":18446744073709551617}'),
    ("answered", b'{"op":"history","limit":18446744073709551617}'),
    ("answer", b'{"v":1,"data":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ("worker-message", b'{"type":"hello","version":"1","pid":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ("job-file", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ("examples", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}\n"),
    ("older-state", b'{"last_sleep_time":"0001-01-01T00:00:00+14:00"}'),
    ("older-state", b'{"last_sleep_time":"9999-12-31T23:59:59-14:00"}'),
    ("older-state", b'{"experiences_at_last_sleep":9223372036854775808}'),
    ("older-state", b'{"sleep_history":[{"cycle":1000000000000,"timestamp":"2026-01-01T00:00:00"}]}'),
    ("older-state", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
]
"""What broke something once, by target."""


@pytest.mark.parametrize(("name", "document"), FOUND)
def test_what_was_found_once_stays_mended(tmp_path: Path, name: str, document: bytes) -> None:
    """Each of these brought out another exception."""
    with ExitStack() as stack:
        made = TARGETS[name](tmp_path, stack)
        result = attempt(Target(made.name, [document], lambda random, whole: whole, made.check), 1, seed=0)
    assert not isinstance(result, Failure), result.text


def _with(document: bytes, old: bytes, new: bytes) -> bytes:
    assert document.count(old) >= 1
    return document.replace(old, new, 1)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("manifest", b'"adapter_config.json"', b'"\\u0000"'),
        ("lineage", b'"group": "', b'"group": "x'),
        ("lineage", b'"parent": null', b'"parent": 18446744073709551616'),
        ("lineage", b'Z",\n  "judged_at"', b'",\n  "judged_at"'),
        ("lineage", b'"judged_at": "2', b'"judged_at": "0001-01-01T00:00:00+14:00", "x": "2'),
        ("lineage", b'"seen": [', b'"seen": ["not hexadecimal",'),
        ("lineage", b'"replayed": []', b'"replayed": [{"id": "0000000000000001", "group": "0000000000000001"}]'),
    ],
)
def test_impossible_documents_are_refused(tmp_path: Path, name: str, old: bytes, new: bytes) -> None:
    """A checkpoint of which a document is wrong in this way is not used; nothing breaks."""
    with ExitStack() as stack:
        made = TARGETS[name](tmp_path, stack)
        document = _with(made.documents[0], old, new)
        result = attempt(Target(made.name, [document], lambda random, whole: whole, made.check), 1, seed=0)
    assert result is False
