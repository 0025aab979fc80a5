"""One text cannot stop the screening of the others: the real process, which hangs or dies where a reply says so."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
from array import array
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sleepd.buffer.experience import id_hash
from sleepd.buffer.reading.experience_buffer import Part
from sleepd.buffer.reading.open_file import BufferFile
from sleepd.daemon.quarantine_view import quarantine_list
from sleepd.errors import ScreeningFailed
from sleepd.quarantine import keeper, screening_client
from sleepd.quarantine.near_duplicates import Screened, bands_of
from sleepd.quarantine.screening_client import Earlier
from sleepd.quarantine.screening_process import Frame
from tests.agents import experiences, write_buffer
from tests.in_process import NOTHING_EARLIER
from tests.stages import OpenSleeper, Stage

HOSTILE = """
import os, signal, sleepd.quarantine.screening_process as screening
plain = screening.find_repeated
def find(experience):
    if "for ever" in experience.response:
        while True: pass
    if "dies" in experience.response:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "memory" in experience.response:
        raise MemoryError
    return plain(experience)
screening.find_repeated = find
screening.main()
"""


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An interpreter that runs the screening with a hook for hostile replies, and one second for each."""
    monkeypatch.setattr(screening_client, "TEXT_SECONDS", 1)
    return interpreter(tmp_path, HOSTILE)


def interpreter(tmp_path: Path, text: str) -> str:
    """A program that runs this text in place of the screening."""
    program = tmp_path / "hostile.py"
    program.write_text(text)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nshift 3\nexec "{sys.executable}" "{program}" "$@"\n')
    script.chmod(0o755)
    return str(script)


def with_replies(*replies: str) -> list[dict[str, Any]]:
    """Eight good experiences, with these replies between the fourth and the fifth."""
    good = experiences(8)
    bad = [{"id": f"bad{n}", "prompt": "And then?", "response": one, "salience": 0.9} for n, one in enumerate(replies)]
    return [*good[:4], *bad, *good[4:]]


def screen(path: Path, records: list[dict[str, Any]], python: str) -> list[Screened]:
    write_buffer(path, records)
    wanted = array("Q", [id_hash(one["id"]) for one in records])

    async def all_found() -> list[Screened]:
        pages = screening_client.screened([Part(BufferFile(path), wanted)], NOTHING_EARLIER, python=python)
        return [one async for page in pages for one in page]

    return asyncio.run(all_found())


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("It goes on for ever.", "took longer than 1 s of processor time"),
        ("Here it dies.", "ended twice at this text, with -11"),
        ("It needs more memory.", "MemoryError while it was screened"),
    ],
)
def test_hostile_text_is_set_aside_alone(tmp_path: Path, python: str, reply: str, why: str) -> None:
    """What hangs, kills or starves the process is set aside with the reason; all others are screened, each once."""
    found = screen(tmp_path / "buffer.json", with_replies(reply, "A good reply after it."), python)
    reasons = {one.id: (one.reason, one.detail) for one in found}
    assert reasons["bad0"][0] == "unscreenable"
    assert why in reasons["bad0"][1]
    assert {reason for id_, (reason, _) in reasons.items() if id_ != "bad0"} == {""}
    assert len(found) == len(reasons) == 10


def test_early_death_is_an_error(tmp_path: Path) -> None:
    """A process that dies while it is at no experience blames none."""
    with pytest.raises(ScreeningFailed, match="ended with 1"):
        screen(tmp_path / "buffer.json", experiences(3), "/bin/false")


def test_excluded_text_is_not_retried(tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in the quarantine with its reason, the others may be trained, and no later look starts a process."""
    stage = Stage(tmp_path / "stage")
    write_buffer(stage.buffer, with_replies("It goes on for ever."))
    monkeypatch.setattr(keeper, "screened", partial(screening_client.screened, python=python))
    starts = counted_starts(monkeypatch)

    async def scene(sleeper: OpenSleeper) -> Any:
        await sleeper.refresh()
        await sleeper.refresh()
        return sleeper.parts.intake.counts, await quarantine_list(sleeper.reader, limit=9)

    counts, listed = stage.play(scene)
    assert (counts.total, counts.eligible, counts.unscreened) == (9, 8, 0)
    (entry,) = listed.entries
    assert (re.findall(r"[\d.]+ s\b", entry.text), entry.preview) == (["1 s"], "")
    assert starts == {python: 2}
    stage.play(scene)
    assert starts == {python: 2}


def test_failing_screening_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that always fails is tried twice at once, and then after a pause that doubles."""
    stage = Stage(tmp_path / "stage")
    stage.write(12)
    monkeypatch.setattr(keeper, "screened", partial(screening_client.screened, python="/bin/false"))
    starts = counted_starts(monkeypatch)

    async def scene(sleeper: OpenSleeper) -> list[int]:
        tried = []
        for seconds in (0, 0, 30, 31, 61, 60):
            stage.clock.advance(seconds)
            await sleeper.refresh()
            tried.append(starts["/bin/false"])
        assert [alarm.name for alarm in sleeper.parts.alarms.active] == ["screening_failed"]
        return tried

    assert stage.play(scene) == [1, 2, 2, 3, 3, 4]


def counted_starts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each interpreter is started from now on."""
    start, starts = asyncio.create_subprocess_exec, Counter[str]()

    def counted(*command: Any, **more: Any) -> Any:
        starts[command[0]] += 1
        return start(*command, **more)

    monkeypatch.setattr(screening_client.asyncio, "create_subprocess_exec", counted)
    return starts


SLOW_DISK = """
import sleepd.quarantine.screening_process as screening
screening.BEAT_SECONDS = 0.0
screening.main()
"""


@pytest.mark.parametrize("form", ["array", "lines"])
def test_reading_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """A sign comes with each piece of a MiB that is read, before the first text is begun: a slow disk is no hang."""
    path, frames = tmp_path / "buffer", list[Frame]()
    records = [{"id": "old", "prompt": "Long?", "response": "wave " * 1_000_000, "salience": 0.9}, *experiences(2)]
    path.write_text(json.dumps(records) if form == "array" else "".join(json.dumps(one) + "\n" for one in records))
    decode = screening_client._next_frame

    async def kept(process: Any) -> Frame:
        frames.append(await decode(process))
        return frames[-1]

    monkeypatch.setattr(screening_client, "_next_frame", kept)
    wanted = array("Q", [id_hash(one["id"]) for one in records[1:]])

    async def all_found() -> list[Screened]:
        pages = screening_client.screened(
            [Part(BufferFile(path), wanted)], NOTHING_EARLIER, python=interpreter(tmp_path, SLOW_DISK)
        )
        return [one async for page in pages for one in page]

    assert [one.reason for one in asyncio.run(all_found())] == ["", ""]
    assert sum(frame.reads for frame in itertools.takewhile(lambda frame: frame.begun is None, frames)) >= 5


def test_process_that_takes_nothing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never reads what it is given, more than a pipe holds, ends as a failed screening and not in a hang."""
    monkeypatch.setattr(screening_client, "FRAME_SECONDS", 0.2)
    write_buffer(tmp_path / "buffer.json", experiences(3))
    page = [(number, bytes(128)) for number in range(10_000)]
    wanted = array("Q", range(screening_client.MOST_ASKING + 1))

    async def all_found() -> list[Screened]:
        python = interpreter(tmp_path, "import time; time.sleep(3600)")
        pages = screening_client.screened(
            [Part(BufferFile(tmp_path / "buffer.json"), wanted)], Earlier(lambda: [page], lambda _: []), python=python
        )
        return [one async for found in pages for one in found]

    with pytest.raises(ScreeningFailed, match="sent nothing for"):
        asyncio.run(all_found())


@pytest.mark.processes
def test_few_new_ones_ask(tmp_path: Path) -> None:
    """For one new reply the process asks for those that share a hash, and names the original; it is given no others."""
    said = "The harbour opens at dawn when the first boats come home with all that the night gave them to carry."
    records = [{"id": f"e{number}", "prompt": f"And {number}?", "response": said, "salience": 0.9} for number in (1, 2)]
    original = id_hash(records[0]["id"])
    asked: list[list[bytes]] = []

    def sharing(bands: list[bytes]) -> list[tuple[int, bytes]]:
        asked.append(bands)
        return [(original, first[0].signature)]

    async def all_found(wanted: str, earlier: Earlier) -> list[Screened]:
        part = Part(BufferFile(tmp_path / "buffer.json"), array("Q", [id_hash(wanted)]))
        return [one async for page in screening_client.screened([part], earlier) for one in page]

    write_buffer(tmp_path / "buffer.json", records)
    first = asyncio.run(all_found("e1", NOTHING_EARLIER))
    second = asyncio.run(all_found("e2", Earlier(lambda: [[(7, b"")]], sharing)))
    assert [(one.reason, one.original) for one in (*first, *second)] == [("", None), ("near_duplicate", original)]
    assert asked == [bands_of(first[0].signature)]
