"""Tests of the words by which an agent marks a breakthrough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleepd.buffer.breakthrough_marks import bears_a_mark, folded_marks
from sleepd.buffer.digest import digest_whole
from sleepd.buffer.learnables import ReadSettings
from sleepd.buffer.reading.merging import merged_view
from sleepd.buffer.reading.view import View
from sleepd.cycle import State
from tests.agents import config_for, experiences, write_buffer
from tests.stages import Stage, refresh

MARKS = folded_marks(["CLARIFY", "eureka"])
PLAIN = {"id": "a", "prompt": "p", "response": "r"}
TALK = {
    "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
}


@pytest.mark.parametrize(
    ("record", "is_marked"),
    [
        ({}, False),
        ({"phase": "clarify"}, True),
        ({"phase": "clarifying"}, False),
        ({"phase": ["x", "Eureka"]}, True),
        ({"tags": ["quiet", "EUREKA"]}, True),
        ({"tags": "eureka"}, True),
        ({"tags": [["eureka"], 7, None]}, False),
        ({"metadata": {"metabolic_state": "CLARIFY"}}, True),
        ({"metadata": {"CLARIFY": "no"}}, False),
        ({"metadata": "CLARIFY"}, False),
        ({"metadata": {"deep": {"phase": "CLARIFY"}}}, False),
        ({"prompt": "CLARIFY"}, False),
    ],
)
def test_a_mark_stands_in_few_places(record: dict[str, Any], is_marked: bool) -> None:
    """As the phase, as one of the tags or as a value of the metadata, in any case; elsewhere it means nothing."""
    assert bears_a_mark(record, MARKS) is is_marked


def marked(*records: dict[str, Any], marks: tuple[str, ...] = MARKS) -> list[int]:
    return list(digest_whole(json.dumps(records).encode(), ReadSettings(marks=marks)).marked)


def test_marked_records_are_known() -> None:
    """A prompt with its reply is marked, each reply of a marked conversation is, and without marks nothing is."""
    record = PLAIN | {"phase": "CLARIFY"}
    assert marked(record, PLAIN | {"id": "b"}) == [1, 0]
    assert marked(TALK | {"tags": ["eureka"]}) == [1, 1]
    assert marked(record, marks=()) == [0]


def test_a_later_mark_counts() -> None:
    """A record that comes again with a mark is marked, also where it comes from another file, and stays so."""
    later = PLAIN | {"tags": ["eureka"]}
    assert marked(PLAIN, later) == marked(later, PLAIN) == [1]
    views = []
    for each in (PLAIN, later):
        columns = digest_whole(json.dumps([each]).encode(), ReadSettings(marks=MARKS)).columns()
        views.append(View(form="array", **msgspec.structs.asdict(columns)))
    assert list(merged_view(views, ["a", "b"], [(1,), (2,)]).marked) == [1]


def test_a_mark_makes_a_cycle_due(tmp_path: Path) -> None:
    """A new experience with a configured mark is a breakthrough until a cycle has judged; one in quarantine is none."""
    stage = Stage(tmp_path)
    stage.config = config_for(tmp_path, min_experiences=1000, breakthrough_marks=("CLARIFY",))
    found = experiences(1, start=20)[0] | {"phase": "clarify"}
    loops = found | {"id": "loop", "response": "so it is so it is " * 20}

    def decided(*records: dict[str, Any]) -> tuple[bool, str]:
        write_buffer(stage.buffer, [*experiences(12), *records])
        decision = stage.play(refresh)
        return decision.should_sleep, decision.reason

    plain = decided()
    assert plain == (False, "Insufficient experiences (12 < 1000)")
    assert decided(loops)[0] is False
    should_sleep, reason = decided(found)
    assert should_sleep
    assert "triggers.breakthrough_marks: 1" in reason
    assert stage.sleep().state is State.PROMOTED
    assert decided(found)[0] is False
