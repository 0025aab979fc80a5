"""The screening of appended lines begins where all before it was screened, and finds what it would find otherwise."""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sleepd.buffer.learnables import Learnable
from sleepd.buffer.reading.experience_buffer import Part
from sleepd.buffer.reading.reader_process import read_digest, read_learnables
from sleepd.buffer.reading.screening_starts import FROM_THE_BEGINNING, ScreeningStarts, Start
from sleepd.quarantine import keeper
from sleepd.quarantine.near_duplicates import Screened
from sleepd.quarantine.rules import UNSCREENED, Findings
from tests.agents import columns, experiences
from tests.in_process import screened_here
from tests.stages import OpenSleeper, Stage

ENDS = [Start(offset=1000 * found, found=found) for found in range(1, 6)]


def test_screening_starts_before_the_wanted() -> None:
    """It is the last known end before the first wanted experience, and the beginning where that is older."""
    starts = ScreeningStarts()
    assert starts.next(0, ENDS[0]) == FROM_THE_BEGINNING
    assert starts.next(1, ENDS[1]) == ENDS[0]
    assert starts.next(1, ENDS[2]) == ENDS[0], "the second is asked for again"
    assert starts.next(3, ENDS[3]) == ENDS[2]
    assert starts.next(0, ENDS[4]) == FROM_THE_BEGINNING, "the first one is another text now"
    assert starts.next(5, ENDS[4]) == ENDS[4]


def requests(count: int) -> list[bytes]:
    """A log of requests, each of which repeats what was said before."""
    said: list[dict[str, str]] = [{"role": "system", "content": "You are Robin."}]
    lines = []
    for number in range(count):
        said += [{"role": "user", "content": f"Case {number}?"}, {"role": "assistant", "content": f"Rule {number}."}]
        lines.append(json.dumps({"messages": said}).encode() + b"\n")
    return lines


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_appended_lines_hold_the_same(cut: int) -> None:
    """Read from there on, a log holds the experiences that a reading of the whole finds behind that place."""
    lines = requests(6)
    before = read_digest(io.BytesIO(b"".join(lines[:cut])), None)
    start = Start(offset=before.consumed, found=len(before.columns.keys), said=before.said.tobytes())
    whole = read_digest(io.BytesIO(b"".join(lines)), before).columns
    found = [each for _, each in read_learnables(io.BytesIO(b"".join(lines)), start=start)[1]]
    rows = dict[int, int]()
    for each in found:
        if isinstance(each, Learnable) and each.key not in before.columns.keys:
            rows.setdefault(each.key, each.group)
    assert list(rows.items()) == list(zip(whole.keys, whole.groups, strict=True))[cut:]
    assert len(rows) == 6 - cut


def test_appended_line_is_screened_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart and after a rewritten file it reads from the beginning, else from the end of before."""
    stage, given = Stage(tmp_path), experiences(14)
    lines = [json.dumps(one) + "\n" for one in given]
    asked: list[Part] = []

    async def noting(parts: Sequence[Part], *more: Any, **settings: Any) -> AsyncGenerator[list[Screened], None]:
        asked.extend(parts)
        async for page in screened_here(parts, *more, **settings):
            yield page

    async def scene(sleeper: OpenSleeper) -> list[int]:
        for text in ("".join(lines[:12]), "".join(lines[:13]), lines[13] + "".join(lines[1:13])):
            stage.buffer.write_text(text)
            await sleeper.refresh()
            assert sleeper.parts.intake.counts.unscreened == 0
        return [part.start.offset for part in asked]

    monkeypatch.setattr(keeper, "screened", noting)
    assert stage.play(scene) == [0, len("".join(lines[:12])), 0]
    assert [len(part.keys) for part in asked] == [12, 1, 1]


def test_same_rows_are_not_asked_again() -> None:
    """Which are unscreened is told rightly after rows are appended, the oldest are dropped, and a text is another."""
    findings, keys, groups = Findings(), array("Q", range(1, 41)), array("Q", range(101, 141))

    def screen(key: int, group: int) -> None:
        found = Screened(key=key, group=group, id=f"e{key}", said_under=None, reason="", detail="")
        findings.put(found)

    def check(first: int, last: int) -> int:
        marks = findings.marks(columns(keys[first:last], groups=groups[first:last]))
        found = [bool(mark & UNSCREENED) for mark in marks]
        pairs = zip(keys[first:last], groups[first:last], strict=True)
        assert list(found) == [findings.groups.get(key) != group for key, group in pairs]
        return sum(found)

    assert check(0, 20) == 20
    for key in range(1, 19):
        screen(key, key + 100)
    assert check(0, 20) == 2
    assert check(5, 25) == 7, "five more, and the five oldest are dropped"
    screen(keys[10], 999)
    assert check(5, 25) == 8, "another text of it was screened since"
    groups[10] = 999
    assert check(5, 25) == 7
    groups[10] = 111
    assert check(5, 25) == 8, "its text is the old one again"
    assert check(30, 40) == 10, "other rows"
