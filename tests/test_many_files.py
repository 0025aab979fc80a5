"""Tests of a buffer of several files: which they are, one view of all, their texts, and what wakes the daemon."""

from __future__ import annotations

import asyncio
import json
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.experience import Experience, id_hash
from sleepd.buffer.learnables import ReadSettings
from sleepd.buffer.rating.rating_names import REJECTED
from sleepd.buffer.reading import experience_buffer, merging
from sleepd.buffer.reading.buffer_paths import find_files, is_single, roots
from sleepd.buffer.reading.experience_buffer import FEW, ExperienceBuffer
from sleepd.buffer.reading.reader_process import (
    ReadBatch,
    ReadRequest,
    batch_of,
    packed,
    requests_of,
    unpacked,
)
from sleepd.buffer.reading.view import View
from sleepd.buffer.reading.watch import BufferWatch
from sleepd.errors import BufferUnreadable
from tests.agents import experiences
from tests.fakes import FakeClock
from tests.processes import LIMIT_SECONDS


def lines(records: Sequence[dict[str, Any]]) -> str:
    """As JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records)


def own(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """So many experiences with ids of their own."""
    return [{**one, "id": f"e{start + n}"} for n, one in enumerate(experiences(count, start=start))]


class Files:
    """A directory of buffer files and the buffer that reads them."""

    def __init__(self, directory: Path, *paths: str) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.buffer = ExperienceBuffer(
            paths or (str(directory),), patience_seconds=30, clock=self.clock, large_bytes=2**20
        )

    def write(self, name: str, records: Sequence[dict[str, Any]]) -> Path:
        """A file of JSON lines."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines(records))
        return path

    def read(self) -> View:
        """One poll."""
        return asyncio.run(self.buffer.read())

    def texts(self, *ids: str) -> list[Experience]:
        """The texts of some experiences."""
        return asyncio.run(self.buffer.extract([id_hash(each) for each in ids]))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """An empty directory as a buffer."""
    (tmp_path / "sessions").mkdir()
    return Files(tmp_path / "sessions")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ["OTHER.JSONL", "a.jsonl", "deep/b.json", "deep/er/c.txt"]),
        ("*.jsonl", ["a.jsonl"]),
        ("**/*.json", ["deep/b.json"]),
        ("deep/**", ["deep/b.json", "deep/er/c.txt", "deep/er/d.png"]),
        ("deep/*", ["deep/b.json"]),
        ("missing.jsonl", ["missing.jsonl"]),
        ("a.jsonl", ["a.jsonl"]),
        ("log", ["log.11", "log.2", "log.1", "log"]),
    ],
)
def test_paths_name_files(tmp_path: Path, path: str, found: list[str]) -> None:
    """A directory, a pattern and a file each stand for the files that the documentation says."""
    names = ["a.jsonl", "deep/b.json", "deep/er/c.txt", "deep/er/d.png", "feedback.jsonl", "deep/my-scores-1.jsonl"]
    for name in [*names, "OTHER.JSONL", "log", "log.1", "log.2", "log.11", "log.bak", "log.1.gz"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(each.relative_to(tmp_path)) for each in find_files([str(tmp_path / path)])] == found


def test_existing_name_is_no_pattern(tmp_path: Path) -> None:
    """A file whose name has brackets is that file."""
    (tmp_path / "a[1].jsonl").touch()
    assert is_single([str(tmp_path / "a[1].jsonl")])
    assert not is_single([str(tmp_path / "b[1].jsonl")])


def test_files_make_one_view(files: Files) -> None:
    """All files are in the view, each id once; a file that did not change costs nothing and keeps the view."""
    files.write("a.jsonl", own(3))
    files.write("b.jsonl", own(3, start=2))
    view = files.read()
    assert [*view.keys] == [id_hash(f"e{n}") for n in range(5)]
    assert (view.files, view.form, len(view.conversations)) == (2, "lines", 5)
    os.utime(files.directory / "a.jsonl", (1, 1))
    files.read()
    assert files.read() is files.buffer.view


def test_new_and_grown_files_are_read(files: Files) -> None:
    """What is appended to a file and what comes in a new file are found at the next poll."""
    path = files.write("a.jsonl", own(2))
    assert len(files.read().keys) == 2
    with path.open("a") as file:
        file.write(lines(own(1, start=2)))
    files.write("new/b.jsonl", own(2, start=3))
    assert len(files.read().keys) == 5


def test_gone_file_is_missed_later(files: Files) -> None:
    """A file that vanishes may be in the middle of a rewrite; its experiences go after the patience."""
    files.write("a.jsonl", own(2))
    files.write("b.jsonl", own(2, start=2))
    assert len(files.read().keys) == 4
    (files.directory / "b.jsonl").unlink()
    view = files.read()
    assert (len(view.keys), view.is_settling) == (4, True)
    files.clock.advance(31)
    view = files.read()
    assert (len(view.keys), view.is_settling, view.files) == (2, False, 1)


def test_bad_file_costs_no_other(files: Files) -> None:
    """A damaged and an unreadable file count as skipped, with the reason; what stands in the others is used."""
    files.write("a.jsonl", own(2))
    (files.directory / "b.json").write_text("[{")
    (files.directory / "c.json").symlink_to("/dev/zero")
    files.read()
    files.clock.advance(31)
    view = files.read()
    assert (len(view.keys), view.problem, view.skipped_total) == (2, "", 2)
    reasons = {one.position: one.reason for one in view.skipped}
    assert "not whole" in reasons["b.json"]
    assert "regular file" in reasons["c.json"]
    (files.directory / "a.jsonl").unlink()
    files.read()
    files.clock.advance(31)
    assert ".json" in files.read().problem


def test_half_file_delays_no_screening(files: Files) -> None:
    """While one file is half-written the experiences of the others are screened."""
    files.write("a.jsonl", own(1))
    (files.directory / "b.json").write_text("[{")
    view = files.read()
    assert view.is_settling
    assert len(files.buffer.files_with(view.keys)) == 1


def test_each_experience_is_of_one_part(files: Files) -> None:
    """What stands in several files is screened in the first; the others give what stands in them alone."""
    files.write("a.jsonl", own(3))
    files.write("b.jsonl", own(4, start=1))
    parts = files.buffer.files_with(files.read().keys)
    assert [[*part.keys] for part in parts] == [[id_hash(f"e{n}") for n in part] for part in ((0, 1, 2), (3, 4))]
    assert [[*part.keys] for part in files.buffer.files_with(array("Q", [id_hash("e4")]))] == [[id_hash("e4")]]


@given(st.lists(st.integers(0, 9) | st.integers(0, 2**64 - 1), max_size=30))
def test_repeated_keys_are_found(keys: list[int]) -> None:
    """Those that stand there more than once, whatever their bits."""
    assert merging.repeated_keys(array("Q", keys)) == {key for key in keys if keys.count(key) > 1}


def test_ratings_go_once_to_the_process() -> None:
    """Files that have the same ratings share them in what the process is given, and each has its own again there."""
    one, other = {"e1": 1.0}, {"e2": 0.5}
    requests = [ReadRequest(settings=ReadSettings(ratings=each)) for each in (one, one, other, one)]
    batch = batch_of(requests)
    assert batch.ratings == [one, other]
    assert [*requests_of(unpacked(packed([batch]), ReadBatch)[0])] == requests


def test_skipped_records_name_their_file(files: Files) -> None:
    """The place of a skipped record has the file's name, or its path where two bear the name."""
    for name in ("a.jsonl", "x/b.jsonl", "y/b.jsonl"):
        files.write(name, [{"prompt": 5}])
    places = [one.position for one in files.read().skipped]
    assert places == ["a.jsonl: line 1", *(f"{files.directory}/{one}/b.jsonl: line 1" for one in "xy")]


def test_many_files_are_read_together(files: Files) -> None:
    """More files than a few are read by processes, with the same result, and one that kills its process by itself."""
    for number in range(FEW + 70):
        files.write(f"{number:03}.jsonl", own(2, start=2 * number))
    view = files.read()
    assert [*view.keys] == [id_hash(f"e{n}") for n in range(2 * (FEW + 70))]
    assert [one.id for one in files.texts("e1", "e100")] == ["e1", "e100"]


def test_failing_process_reads_files_alone(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process for many files fails, each is read by itself."""

    async def failing(*_: object) -> None:
        raise BufferUnreadable("the reader process ended with 1", hint="")

    monkeypatch.setattr("sleepd.buffer.reading.reader_client.ReaderProcess.read_all", failing)
    for number in range(FEW + 2):
        files.write(f"{number}.jsonl", own(1, start=number))
    assert len(files.read().keys) == FEW + 2


def test_newest_experiences_are_used(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than the most that are used the last ones count, and the others are counted."""
    monkeypatch.setattr(merging, "MOST_EXPERIENCES", 5)
    files.write("a.jsonl", own(4))
    files.write("b.jsonl", own(4, start=4))
    view = files.read()
    assert ([*view.keys], view.left_out) == ([id_hash(f"e{n}") for n in range(3, 8)], 3)


def test_rotated_file_is_followed(tmp_path: Path) -> None:
    """After a rotation by rename nothing is lost and nothing counts twice."""
    path = tmp_path / "log.jsonl"
    files = Files(tmp_path, str(path))
    files.write("log.jsonl", own(3))
    assert len(files.read().keys) == 3
    path.rename(tmp_path / "log.jsonl.1")
    files.write("log.jsonl", own(1, start=3))
    view = files.read()
    assert [*view.keys] == [id_hash(f"e{n}") for n in range(4)]
    assert [one.id for one in files.texts("e0", "e3")] == ["e0", "e3"]


@pytest.mark.parametrize(
    ("older", "newer", "salience"),
    [(0.9, 0.3, 0.3), (0.3, 0.9, 0.9), (0.9, None, 0.9), (None, 0.9, 0.9), (None, None, 0.7)],
)
@pytest.mark.parametrize("names", [("log.1", "log"), ("b.jsonl", "a.jsonl")])
def test_newest_given_salience_counts(
    tmp_path: Path, names: tuple[str, str], older: float | None, newer: float | None, salience: float
) -> None:
    """Of two files, rotated or not, the one that was changed last gives the salience; one that gives none changes
    none.
    """
    files = Files(tmp_path, str(tmp_path / ("log" if "log" in names else "*.jsonl")))
    for number, (name, each) in enumerate(zip(names, (older, newer), strict=True)):
        path = files.write(name, [{"id": "e1", "prompt": "Who?", "response": "Martha.", "salience": each}])
        os.utime(path, (1000 + number, 1000 + number))
    assert salience_of(files.read(), "e1") == salience
    assert [one.salience for one in files.texts("e1")] == [salience]


def test_too_many_files_are_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with more files than can be watched over is named, not half read."""
    monkeypatch.setattr(experience_buffer, "MOST_FILES", 2)
    for number in range(4):
        files.write(f"{number}.jsonl", own(1, start=number))
    with pytest.raises(BufferUnreadable, match="at most 2 files"):
        files.read()


def test_watch_covers_new_directories(tmp_path: Path) -> None:
    """A new file in a new directory below a pattern's wakes the daemon."""

    async def life() -> None:
        changed = asyncio.Event()
        watch = BufferWatch((str(tmp_path / "**" / "*.jsonl"),), changed.set)
        watch.start(asyncio.get_running_loop())
        assert watch.problem == ""
        (tmp_path / "2026" / "11").mkdir(parents=True)
        async with asyncio.timeout(LIMIT_SECONDS):
            await changed.wait()
            changed.clear()
            while not changed.is_set():  # the watch on a new directory comes a moment after it
                (tmp_path / "2026" / "11" / "a.jsonl").write_text("{}\n")
                await asyncio.sleep(0.01)
        watch.stop()

    asyncio.run(life())


def test_roots_are_where_files_can_come(tmp_path: Path) -> None:
    """A pattern is watched from its first fixed directory on, a directory as a whole, a file by its name."""
    assert [each.directory for each in roots(str(tmp_path / "a*" / "b.jsonl"))] == [tmp_path]
    assert roots(str(tmp_path))[0].names == frozenset()
    assert "x.json" in roots(str(tmp_path / "x.json"))[0].names


def salience_of(view: View, id_: str) -> float:
    """What the view has for an experience."""
    return view.saliences[view.keys.index(id_hash(id_))]


@pytest.mark.parametrize("is_single", [True, False])
def test_later_rating_counts(tmp_path: Path, is_single: bool) -> None:
    """A rating beside the file changes the salience whenever it comes, and its withdrawal changes it back."""
    files = Files(tmp_path, str(tmp_path / "log.jsonl" if is_single else tmp_path))
    files.write("log.jsonl", own(3))
    before = salience_of(files.read(), "e1")
    files.write("feedback.jsonl", [{"id": "e1", "rating": -1}, {"id": "e2", "salience": 0.9}])
    view = files.read()
    assert (salience_of(view, "e1"), salience_of(view, "e2")) == (REJECTED, 0.9)
    assert [one.salience for one in files.texts("e1", "e2")] == [REJECTED, 0.9]
    (tmp_path / "feedback.jsonl").unlink()
    assert salience_of(files.read(), "e1") == before


def test_rating_of_no_reply_is_told(tmp_path: Path) -> None:
    """Each line of feedback counts as unanswered until a reply is read that it names, by its id or by its number."""
    files = Files(tmp_path, str(tmp_path))
    messages = [{"role": role, "content": f"{role} {n}"} for n in range(2) for role in ("user", "assistant")]
    files.write("a/log.jsonl", own(2))
    files.write("b/talk.jsonl", [{"messages": messages, "conversation": "c1"}])
    named: list[dict[str, Any]] = [{"id": each} for each in ("e1", "e2")]
    named += [{"conversation": "c1", "turn": turn} for turn in (2, 3)]
    named += [{"conversation": "c1"}, {"conversation": "c2"}, {"id": "gone"}]
    files.write("feedback.jsonl", [{**one, "rating": 1} for one in named] + [{"id": "gone", "rating": 0}])
    files.write("b/feedback.jsonl", [{"id": "e1", "rating": 1}, {"conversation": "c1", "rating": 1}])  # e1 is in a/
    score = {"id": "s", "observation_id": "no-such", "name": "ok", "data_type": "NUMERIC", "value": 1}
    files.write("my-scores.jsonl", [score])  # what scores name may be no reply at all, such as a whole trace
    files.read()
    places = ["feedback.jsonl line 6", "feedback.jsonl line 4", "feedback.jsonl line 2", "b/feedback.jsonl line 1"]
    told = [str(tmp_path / each) for each in places]
    assert files.buffer.ratings_without_reply() == told
    with (tmp_path / "a/log.jsonl").open("a") as file:
        file.write(lines(own(1, start=2)))
    files.read()
    assert files.buffer.ratings_without_reply() == [told[0], told[1], told[3]]


@pytest.mark.parametrize(
    ("paths", "written", "saliences"),
    [
        ([""], {"feedback.jsonl": -1}, (REJECTED, REJECTED)),
        ([""], {"a/feedback.jsonl": -1}, (REJECTED, 0.7)),
        ([""], {"feedback.jsonl": -1, "a/b/feedback.jsonl": 1}, (REJECTED, 1.0)),
        (["**/*.jsonl"], {"feedback.jsonl": -1}, (REJECTED, REJECTED)),
        (["a/*.jsonl", "c"], {"feedback.jsonl": -1}, (0.7, 0.7)),
        (["a/x.jsonl", "c"], {"a/feedback.jsonl": -1}, (REJECTED, 0.7)),
        (["a/x.jsonl", "c/d/y.jsonl"], {"c/d/feedback.jsonl": -1}, (0.7, REJECTED)),
    ],
)
def test_ratings_count_below(
    tmp_path: Path, paths: list[str], written: dict[str, int], saliences: tuple[float, float]
) -> None:
    """Ratings count for their directory and for those below it that are read; the nearer rating counts."""
    files = Files(tmp_path, *(str(tmp_path / each) for each in paths))
    plain = [{"prompt": "Who?", "response": f"Martha {n}.", "id": f"e{n}"} for n in range(2)]
    files.write("a/x.jsonl", plain[:1])
    other = "a/b/y.jsonl" if "a/b/feedback.jsonl" in written else "c/d/y.jsonl"
    files.write(other, plain[1:])
    for name, rating in written.items():
        both = [{"id": f"e{n}", "rating": rating} for n in range(2)]
        files.write(name, both)
    view = files.read()
    assert (salience_of(view, "e0"), salience_of(view, "e1")) == saliences


def test_turn_of_a_conversation_is_rated(tmp_path: Path) -> None:
    """A reply without an id is named by its conversation and its number."""
    files = Files(tmp_path, str(tmp_path / "log.jsonl"))
    messages = [{"role": role, "content": f"{role} {n}"} for n in range(2) for role in ("user", "assistant")]
    files.write("log.jsonl", [{"messages": messages, "conversation": "c1"}])
    files.write("feedback.jsonl", [{"conversation": "c1", "turn": 2, "rating": "thumbs_down"}])
    assert [*files.read().saliences] == [0.7, REJECTED]


@pytest.mark.parametrize(
    "record",
    [
        {"request": {"messages": [{"role": "user", "content": [{"type": []}]}]}, "response": "hi"},
        {"messages": [{"role": "assistant", "content": "x", "id": {}, "tool_calls": [{"function": {"name": []}}]}]},
        {"type": [], "message": {"role": {}}},
    ],
)
def test_odd_record_costs_no_other(files: Files, record: dict[str, Any]) -> None:
    """A record whose parts are of impossible kinds teaches nothing; all others are read."""
    files.write("a.jsonl", [record, *own(2)])
    view = files.read()
    assert len(view.keys) == 2


@pytest.mark.parametrize(
    "more",
    [{"type": "chat", "sessionId": "s1"}, {"chat_metadata": {}}, {"messages": []}, {"instruction": "i", "output": "o"}],
)
def test_own_record_may_hold_any_key(files: Files, more: dict[str, Any]) -> None:
    """A record with a prompt and a reply is our own, whatever other keys the agent gives it."""
    files.write("a.jsonl", [{"prompt": "p", "response": "r", "salience": 0.9, **more}])
    view = files.read()
    assert ([*view.saliences], view.skipped_total) == ([0.9], 0)


def test_same_id_with_other_text_is_counted(files: Files) -> None:
    """Of two files that number their replies alike the second ones are counted as skipped."""
    files.write("a.jsonl", own(2))
    files.write("b.jsonl", [{**one, "id": f"e{n}"} for n, one in enumerate(experiences(2, start=9))])
    view = files.read()
    assert (len(view.keys), view.skipped_total) == (2, 2)


def test_records_of_one_conversation_are_all_read(files: Files) -> None:
    """Records that name one conversation and hold a reply each give all of them."""
    talks = [[{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}] for n in range(4)]
    files.write("a.jsonl", [{"conversation": "c1", "messages": each} for each in talks])
    view = files.read()
    assert (len(view.keys), view.skipped_total) == (4, 0)


def test_growing_record_keeps_ids(files: Files) -> None:
    """A record with an id that grows by a reply gives the new one an id of its own."""
    talk = [{"role": role, "content": f"{role} {n}"} for n in range(3) for role in ("user", "assistant")]
    files.write("a.jsonl", [{"id": "chat-17", "messages": talk[:4]}])
    before = [*files.read().keys]
    files.write("a.jsonl", [{"id": "chat-17", "messages": talk}])
    assert [*files.read().keys][:2] == before


def test_links_above_end_no_walk_late(tmp_path: Path) -> None:
    """A pattern over directories with links to one above finds each file once."""
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "a.jsonl").write_text(lines(own(1)))
    assert find_files([str(tmp_path / "**" / "*.jsonl")]) == [tmp_path / "a.jsonl"]


def test_broken_file_delays_no_texts(files: Files) -> None:
    """The texts of the other files are had, and a name that is no UTF-8 can be shown."""
    files.write("a.jsonl", own(1))
    files.write("b.json", own(1, start=1))
    (files.directory / os.fsdecode(b"caf\xe9.jsonl")).write_text('{"prompt": 5}\n')
    assert len(files.read().keys) == 2
    (files.directory / "b.json").write_text("[{")
    files.read()
    files.clock.advance(31)
    view = files.read()
    assert [one.id for one in files.texts("e0", "e1")] == ["e0"]
    assert any("xe9" in one.position for one in view.skipped)
