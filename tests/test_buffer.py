"""Tests of reading the buffer: three forms, every way of writing, hostile content."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleepd.buffer import digest, learnables, parsing
from sleepd.buffer.digest import MOST_CHARACTERS, digest_whole
from sleepd.buffer.experience import Experience, content_hash, derived_id, hash_text, id_hash, parse
from sleepd.buffer.parsing import HalfWritten, decoded_line, records
from sleepd.buffer.reading import prefix_hash
from sleepd.buffer.reading.experience_buffer import ExperienceBuffer
from sleepd.buffer.reading.line_cutter import FirstBytes
from sleepd.buffer.reading.reader_process import Reading, ReadRequest, answer, read_digest
from sleepd.buffer.reading.view import View
from sleepd.errors import BufferUnreadable
from tests.agents import experiences, write_buffer
from tests.fakes import FakeClock

GOOD = {"id": "a", "prompt": "p", "response": "r", "salience": 0.7}


class Desk:
    """One buffer file and its reader."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.path = directory / "buffer.json"
        self.clock = FakeClock()
        self.buffer = ExperienceBuffer(self.path, patience_seconds=30.0, clock=self.clock, **options)

    def read(self) -> View:
        return asyncio.run(self.buffer.read())

    def texts(self, *identifiers: str) -> list[Experience]:
        return asyncio.run(self.buffer.extract([id_hash(each) for each in identifiers]))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def as_lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


FORMS = {
    "array": json.dumps,
    "object": lambda records: json.dumps({"experiences": records, "max_size": 1000}, indent=2),
    "lines": as_lines,
}


# --- one record ---


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": None}, "prompt: expected text, found nothing"),
        ({"prompt": 7}, "prompt: expected text, found 7"),
        ({"response": "  \n"}, "response: expected text, found nothing but white space"),
        ({"response": ["r"]}, "response: expected text, found list"),
        ({"response": "\ud800"}, "response: is not valid Unicode"),
        ({"salience": "0.7"}, "salience: expected a number, found '0.7'"),
        ({"salience": True}, "salience: expected a number, found True"),
        ({"salience": {"surprise": 0.5}}, "salience.total: expected a number, found nothing"),
        ({"salience": -0.1}, "salience: expected a number from 0 to 1, found -0.1"),
        ({"salience": float("nan")}, "salience: expected a number from 0 to 1, found nan"),
        ({"salience": {"total": float("inf")}}, "salience.total: expected a number from 0 to 1, found inf"),
        ({"salience": 10**400}, "salience: expected a number from 0 to 1, found a very large integer"),
        ({"id": []}, "id: expected text of at most 256 characters, found list"),
        ({"id": "x" * 300}, "id: expected text of at most 256 characters"),
    ],
)
def test_bad_record_is_skipped_with_reason(change: dict[str, Any], reason: str) -> None:
    """The reason names the field, what was expected and what came, in a bounded length."""
    found = parse(GOOD | change)
    assert isinstance(found, str)
    assert found.startswith(reason)
    assert len(found) < 200


def test_what_agents_write_is_accepted() -> None:
    """A bare number or an object with total as salience, a missing id, a numeric one, other keys."""
    assert parse(GOOD) == Experience(id="a", prompt="p", response="r", salience=0.7)
    whole = parse({**GOOD, "salience": {"total": 1, "novelty": "?"}, "session": 3, "metadata": {"x": [1]}})
    assert isinstance(whole, Experience)
    assert whole.salience == 1.0
    for missing in (None, ""):
        without = parse({**GOOD, "id": missing})
        assert isinstance(without, Experience)
        assert without.id == derived_id("p", "r") == "db3316501ff392dc"
    numeric = parse({**GOOD, "id": 7})
    assert isinstance(numeric, Experience)
    assert numeric.id == "7"


def test_hex_id_is_its_own_key() -> None:
    """Keys of usual ids can be read back as ids; others are hashed."""
    assert hash_text(id_hash("bcd6076335f8444f")) == "bcd6076335f8444f"
    assert id_hash("BCD6076335F8444F") != id_hash("bcd6076335f8444f")
    assert 0 <= id_hash("anything else") < 2**64


def test_copies_have_one_group() -> None:
    """Case, white space and compatibility forms make no difference; the boundary of prompt and reply does."""
    assert (
        content_hash("Hello  World", "ok") == content_hash("hello world ", "OK\n") == content_hash("ｈello world", "ok")
    )
    assert content_hash("a b", "c") != content_hash("a", "b c")


# --- three forms ---


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("large_bytes", [8 * 2**20, 100])
def test_the_form_is_told_by_content(tmp_path: Path, form: str, large_bytes: int) -> None:
    """Each form gives the same view, read in a thread or in the reader process."""
    desk = Desk(tmp_path, large_bytes=large_bytes)
    desk.path.write_text(FORMS[form](experiences(20)))
    view = desk.read()
    assert (view.form, len(view.keys), view.problem) == (form, 20, "")
    assert [hash_text(key) for key in view.keys] == [record["id"] for record in experiences(20)]
    assert set(view.saliences) == {0.8}
    wanted = [record["id"] for record in experiences(20)[3:6]]
    assert [each.id for each in desk.texts(*wanted, "gone")] == wanted


@pytest.mark.parametrize(
    ("content", "form"),
    [(b"", "empty"), (b" \n", "empty"), (b"[]", "array"), (b'{"experiences": [], "max_size": 1000}', "object")],
)
def test_an_empty_buffer_is_a_fact(desk: Desk, content: bytes, form: str) -> None:
    """Nothing in it is neither an error nor half-written."""
    desk.path.write_bytes(content)
    view = desk.read()
    assert (view.form, len(view.keys), view.problem) == (form, 0, "")


def test_absent_emptied_shrunk_and_back(desk: Desk) -> None:
    """The view follows the file wherever it goes, once it is sure that what was emptied or removed stays so."""
    assert desk.read().form == "absent"
    write_buffer(desk.path, experiences(9))
    assert len(desk.read().keys) == 9
    write_buffer(desk.path, experiences(4, start=5))
    assert len(desk.read().keys) == 4
    desk.path.write_text("")
    assert (len(desk.read().keys), desk.read().is_settling) == (4, True)
    desk.path.unlink()
    assert (len(desk.read().keys), desk.read().is_settling) == (4, True)
    desk.clock.advance(31)
    assert desk.read().form == "absent"
    write_buffer(desk.path, experiences(2))
    assert len(desk.read().keys) == 2
    desk.path.write_text("")
    desk.read()
    desk.clock.advance(31)
    assert (desk.read().form, desk.read().is_settling) == ("empty", False)


@pytest.mark.parametrize("second", [1_700_000_000, 4_000_000_000])
def test_unchanged_file_is_not_reread(desk: Desk, monkeypatch: pytest.MonkeyPatch, second: int) -> None:
    """The same view object comes back as long as the file is the same, even if its time lies in the future."""
    monkeypatch.setattr("sleepd.buffer.reading.open_file.FRESH_NANOSECONDS", 0)
    write_buffer(desk.path, experiences(9))
    os.utime(desk.path, (second, second))
    assert desk.read() is desk.read()
    write_buffer(desk.path, experiences(10))
    assert len(desk.read().keys) == 10


def test_changed_just_now_gives_same_view(desk: Desk) -> None:
    """Lines that were appended a moment ago are looked at again, and give the same view object where they are all."""
    desk.path.write_text("".join(json.dumps(one) + "\n" for one in experiences(9)))
    first = desk.read()
    assert desk.read() is first
    text = desk.path.read_text()
    desk.path.write_text(text.replace("tide", "pier"))
    assert desk.read() is not first, "as long as before, and another text"


def test_byte_order_mark_is_accepted(desk: Desk) -> None:
    """A file that an editor gave a BOM reads as without."""
    for form in FORMS:
        desk.path.write_bytes(b"\xef\xbb\xbf" + FORMS[form](experiences(3)).encode())
        assert len(desk.read().keys) == 3


@pytest.mark.parametrize("form", FORMS)
def test_bad_record_spares_the_others(desk: Desk, form: str) -> None:
    """Each bad record is set aside with its position; a repeated one counts once."""
    records = experiences(4)
    records.insert(2, {**GOOD, "salience": float("nan")})
    records.insert(3, {"note": "no experience"})
    records.append(dict(records[0]))
    records.append({**records[0], "response": "another text"})
    desk.path.write_text(FORMS[form](records))
    view = desk.read()
    assert len(view.keys) == 4
    name = "line" if form == "lines" else "record"
    assert [aside.position for aside in view.skipped] == [f"{name} 3", f"{name} 4", f"{name} 8"]
    assert "has another text" in view.skipped[2].reason


def test_stray_bytes_cost_their_record(desk: Desk) -> None:
    """Invalid UTF-8 in one reply sets that record aside."""
    text = json.dumps([*experiences(3), {**GOOD, "response": "XX"}]).encode().replace(b"XX", b"\xff\xfe")
    desk.path.write_bytes(text)
    view = desk.read()
    assert len(view.keys) == 3
    assert re.fullmatch("response: .* Unicode", view.skipped[0].reason)


# --- half-written ---


def test_half_file_is_error_after_patience(desk: Desk) -> None:
    """The last good view holds; after the patience it says why; a whole file heals it."""
    write_buffer(desk.path, experiences(9))
    good = desk.read()
    desk.path.write_text(json.dumps(experiences(12))[:700])
    assert desk.read() is good
    desk.clock.advance(29)
    assert desk.read().problem == ""
    desk.clock.advance(2)
    stale = desk.read()
    assert len(stale.keys) == 9
    assert "not whole" in stale.problem
    write_buffer(desk.path, experiences(12))
    healed = desk.read()
    assert (len(healed.keys), healed.problem) == (12, "")


@settings(max_examples=60)
@given(form=st.sampled_from(["array", "object"]), cut=st.integers(1, 400))
def test_any_cut_is_half_written(form: str, cut: int) -> None:
    """However far the writer has come, what is there is recognised as not whole, never as fewer experiences."""
    whole = FORMS[form](experiences(3)).encode()
    with pytest.raises(HalfWritten):
        digest_whole(whole[: max(1, len(whole) - cut)])


@settings(max_examples=200)
@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_give_a_view(data: bytes) -> None:
    """Nothing but HalfWritten comes out of hostile bytes."""
    try:
        digest = digest_whole(data)
    except HalfWritten:
        return
    assert len(digest.keys) == len(digest.groups) == len(digest.saliences)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
_RECORD = st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "prompt", "response", "salience"), _JSON))


@settings(max_examples=200)
@given(st.lists(_RECORD | _JSON, max_size=6))
def test_any_list_is_counted_whole(records: list[Any]) -> None:
    """Every record of a JSON array is used, repeated, or set aside; where none has a known key, that is said once."""
    try:
        digest = digest_whole(json.dumps(records).encode())
    except HalfWritten as error:
        assert str(error).startswith("this looks like no format")
        has_text = [
            isinstance(record, dict) and ("prompt" in record or not isinstance(record.get("response", {}), dict | list))
            for record in records
        ]
        assert not any(has_text)
        return
    assert len(digest.keys) + digest.skipped_total <= len(records)
    if digest.skipped_total == 0 and len({json.dumps(record) for record in records}) == len(records):
        assert len(digest.keys) == len(records)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"9" * 1_000_000 + b"]", b'{"experiences": 5}', b"{}", b"\x00" * 64],
)
def test_hostile_structure_is_skipped(desk: Desk, content: bytes) -> None:
    """Depth, huge numbers and wrong shapes end in a named problem or a set-aside record, without a traceback."""
    desk.path.write_bytes(content)
    desk.read()
    desk.clock.advance(60)
    view = desk.read()
    assert view.problem or view.skipped_total


# --- JSON lines from a cursor ---


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(1, 2000), max_size=8), small=st.booleans())
def test_appended_pieces_give_same_view(tmp_path_factory: pytest.TempPathFactory, cuts: list[int], small: bool) -> None:
    """Wherever an append is cut, the final view is that of one read, and no line is lost or doubled."""
    desk = Desk(tmp_path_factory.mktemp("lines"))
    whole = (as_lines(experiences(8)) + "broken\n\n" + as_lines(experiences(3, start=8))).encode()
    with desk.path.open("wb", buffering=0) as file:
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(whole)], strict=True):
            file.write(whole[start : max(start, end)])
            desk.read()
        desk.clock.advance(1)
        view = desk.read()
    assert [hash_text(key) for key in view.keys] == [record["id"] for record in experiences(11)]
    assert [aside.position for aside in view.skipped] == ["line 9"]


def test_only_what_was_appended_is_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first read the cursor is moved by the appended lines alone."""
    desk.path.write_text(as_lines(experiences(50)))
    desk.read()
    parsed: list[bytes] = []

    def spy(line: bytes) -> Any:
        parsed.append(line)
        return decoded_line(line)

    monkeypatch.setattr("sleepd.buffer.parsing.decoded_line", spy)
    added = as_lines(experiences(1, start=50))
    with desk.path.open("a") as file:
        file.write(added)
    assert len(desk.read().keys) == 51
    assert [line for line in parsed if line] == [added.encode().rstrip()]


@pytest.mark.parametrize("way", ["in place", "by rename", "truncated", "grown in place with equal line ends"])
def test_rewritten_lines_are_reread(desk: Desk, way: str) -> None:
    """Whatever stands before the cursor must be what was read, else the whole file is read again."""
    desk.path.write_text(as_lines(experiences(10)))
    assert len(desk.read().keys) == 10
    fresh = as_lines(experiences(12, start=100))
    match way:
        case "in place":
            with desk.path.open("r+") as file:
                file.write(fresh)
        case "by rename":
            desk.path.with_suffix(".new").write_text(fresh)
            desk.path.with_suffix(".new").rename(desk.path)
        case "grown in place with equal line ends":
            small = [{**GOOD, "id": f"{n:016x}", "metadata": "=" * 80} for n in range(112)]
            desk.path.write_text(as_lines(small[:10]))
            desk.read()
            fresh = as_lines([{**record, "prompt": "P"} for record in small[100:]])
            with desk.path.open("r+") as file:
                file.write(fresh)
        case "truncated":
            desk.path.write_text("")
            desk.read()
            desk.path.write_text(fresh)
    assert [hash_text(key) for key in desk.read().keys] == [record["id"] for record in experiences(12, start=100)]


@pytest.mark.parametrize(("whole", "new"), [(2**20, 0.85), (2**16, 0.5)])
@pytest.mark.parametrize("changed", [0, 0.5, 0.99])
def test_changed_salience_before_cursor_counts(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, whole: int, new: float, changed: float
) -> None:
    """A file that is written anew with another salience in one line, the same end and one more line is read again."""
    monkeypatch.setattr(prefix_hash, "WHOLE_BYTES", whole)
    count = 5000
    records = [{**GOOD, "id": f"{n:016x}", "salience": 0.75} for n in range(count + 1)]
    desk.path.write_text(as_lines(records[:count]))
    desk.read()
    place = int(changed * (count - 1))
    records[place]["salience"] = new
    with desk.path.open("r+") as file:
        file.write(as_lines(records))
    view = desk.read()
    assert (len(view.keys), view.saliences[place]) == (count + 1, new)


def test_endless_line_is_skipped_unheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line above the limit costs itself, not the others, nor the memory."""
    monkeypatch.setattr("sleepd.buffer.reading.line_cutter.MAX_LINE_BYTES", 2000)
    monkeypatch.setattr("sleepd.buffer.parsing.MAX_LINE_BYTES", 2000)
    for module in ("reader_process", "line_cutter"):
        monkeypatch.setattr(f"sleepd.buffer.reading.{module}.HEAD_BYTES", 1000)
    desk = Desk(tmp_path)
    long = json.dumps({**GOOD, "response": "x" * 50_000}) + "\n"
    desk.path.write_text(as_lines(experiences(2)) + long + as_lines(experiences(2, start=2)))
    view = desk.read()
    assert len(view.keys) == 4
    assert [(aside.position, aside.reason) for aside in view.skipped] == [("line 3", "longer than 2000 bytes")]


# --- the file itself ---


def test_other_file_kinds_are_refused(desk: Desk) -> None:
    """What is no regular file is named, and never waited for."""
    os.mkfifo(desk.path)
    with pytest.raises(BufferUnreadable, match="expected a regular file"):
        desk.read()
    desk.path.unlink()
    desk.path.symlink_to("/dev/zero")
    with pytest.raises(BufferUnreadable, match="expected a regular file"):
        desk.read()
    desk.path.unlink()
    desk.path.symlink_to(desk.path)
    with pytest.raises(BufferUnreadable, match="symbolic links"):
        desk.read()


def test_a_symbolic_link_is_followed(desk: Desk, tmp_path: Path) -> None:
    """A buffer behind a link is read like any other."""
    write_buffer(tmp_path / "real.json", experiences(3))
    desk.path.symlink_to("real.json")
    assert len(desk.read().keys) == 3


def test_broken_buffer_gives_no_texts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cycle does not start on half a file: after a few tries the reason is said."""
    monkeypatch.setattr("sleepd.buffer.reading.source_file.EXTRACT_PAUSE_SECONDS", 0.0)
    desk.path.write_text("[{")
    with pytest.raises(BufferUnreadable, match="not whole"):
        desk.texts("a")


def test_dead_reader_process_is_reported(tmp_path: Path) -> None:
    """When the reader has no memory left, the error says so with its exit status."""
    desk = Desk(tmp_path, large_bytes=10, python="/bin/false")
    write_buffer(desk.path, experiences(3))
    with pytest.raises(BufferUnreadable, match="ended with 1"):
        desk.read()


def test_stuck_reader_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed interpreter and a reader that outlives its time are errors with a hint, and no process stays."""
    desk = Desk(tmp_path, large_bytes=10, python="/nonexistent/python")
    write_buffer(desk.path, experiences(3))
    with pytest.raises(BufferUnreadable, match=": No such file") as caught:
        desk.read()
    assert caught.value.hint
    monkeypatch.setattr("sleepd.buffer.reading.reader_client.READER_SECONDS", 0.2)
    script = tmp_path / "slow"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    script.chmod(0o755)
    desk = Desk(tmp_path, large_bytes=10, python=str(script))
    with pytest.raises(BufferUnreadable, match="did not end within"):
        desk.read()
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_cancelled_read_kills_its_process(tmp_path: Path) -> None:
    """Nothing is left running when the daemon stops in the middle of a large read."""
    script = tmp_path / "slow"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/part && mv {tmp_path}/part {tmp_path}/pid\nexec sleep 1000\n")
    script.chmod(0o755)
    desk = Desk(tmp_path, large_bytes=10, python=str(script))
    write_buffer(desk.path, experiences(3))

    async def life() -> None:
        look = asyncio.create_task(desk.buffer.read())
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0)
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look

    asyncio.run(life())
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_cancelled_read_keeps_file_open(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread never reads from a descriptor whose number belongs to another file by then."""
    write_buffer(desk.path, experiences(3))
    begun, go_on = threading.Event(), threading.Event()
    read_from: list[os.stat_result] = []

    def slow(file: FirstBytes, _request: ReadRequest) -> Reading:
        begun.set()
        assert go_on.wait(30)
        read_from.append(os.fstat(file._file.fileno()))
        return Reading()

    monkeypatch.setattr("sleepd.buffer.reading.reader_client.answer", slow)

    async def life() -> None:
        look = asyncio.create_task(desk.buffer.read())
        await asyncio.to_thread(begun.wait, 30)
        look.cancel()
        await asyncio.sleep(0)
        other = os.open(os.devnull, os.O_RDONLY)  # gets the number of the buffer's descriptor if that is free
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await look
        os.close(other)

    asyncio.run(life())
    assert os.path.samestat(read_from[0], desk.path.stat())


def test_a_disk_error_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while reading ends in a sentence with the next step, not in a traceback."""

    def broken(*_: object) -> Reading:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sleepd.buffer.reading.reader_client.answer", broken)
    write_buffer(desk.path, experiences(3))
    with pytest.raises(BufferUnreadable, match="Input/output error") as caught:
        desk.read()
    assert "journalctl -k" in caught.value.hint


def test_lasting_half_file_is_not_reparsed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged half-written file costs one parse, however often it is looked at."""
    monkeypatch.setattr("sleepd.buffer.reading.open_file.FRESH_NANOSECONDS", 0)
    parsed: list[int] = []

    def spy(file: FirstBytes, request: ReadRequest) -> Reading:
        parsed.append(1)
        return answer(file, request)

    monkeypatch.setattr("sleepd.buffer.reading.reader_client.answer", spy)
    desk.path.write_text("[{")
    assert desk.read().is_settling
    desk.clock.advance(31)
    view = desk.read()
    assert (bool(view.problem), view.is_settling, len(parsed)) == (True, False, 1)


def test_patience_restarts_after_absence(desk: Desk) -> None:
    """Half a file now has nothing to do with half a file that was there an hour ago."""
    desk.read()
    desk.path.write_text("[{")
    desk.read()
    desk.path.unlink()
    assert not desk.read().is_settling
    desk.clock.advance(3600)
    desk.path.write_text("[{")
    assert desk.read().problem == ""


def test_torn_last_line_is_skipped_later(desk: Desk) -> None:
    """The complete lines are used at once; the torn one is waited for, named after the patience, and heals."""
    whole = as_lines(experiences(4))
    desk.path.write_text(whole[:-20])
    view = desk.read()
    assert (len(view.keys), view.skipped_total, view.problem) == (3, 0, "")
    desk.clock.advance(31)
    view = desk.read()
    assert [aside.position for aside in view.skipped] == ["line 4"]
    assert (len(view.keys), view.skipped_total, view.problem) == (3, 1, "")
    assert desk.read().skipped_total == 1
    with desk.path.open("a") as file:
        file.write(whole[-20:])
    view = desk.read()
    assert (len(view.keys), view.skipped_total) == (4, 0)


def test_appended_line_is_compared_with_all(desk: Desk) -> None:
    """A known id with another text is set aside the same way, whether it came in one read or was appended."""
    first = experiences(3)
    other = {**first[0], "response": "another text"}
    desk.path.write_text(as_lines([*first, other]))
    at_once = desk.read()
    desk.path.write_text(as_lines(first))
    desk.read()
    with desk.path.open("a") as file:
        file.write(as_lines([other]))
    appended = desk.read()
    assert appended.skipped == at_once.skipped
    assert appended.skipped[0].position == "line 4"


def test_edited_earlier_line_is_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size and the last lines are the same, and yet the file is read again as a whole."""
    monkeypatch.setattr(prefix_hash, "WHOLE_BYTES", 0)
    monkeypatch.setattr(prefix_hash, "SAMPLE_BYTES", 16)
    monkeypatch.setattr("sleepd.buffer.reading.open_file.FRESH_NANOSECONDS", 0)
    desk.path.write_text(as_lines(experiences(30)))
    os.utime(desk.path, (1_700_000_000, 1_700_000_000))
    desk.read()
    with desk.path.open("r+") as file:
        file.write(as_lines(experiences(1, start=7777)))
    assert hash_text(desk.read().keys[0]) == experiences(1, start=7777)[0]["id"]


def test_white_space_is_no_empty_buffer(desk: Desk) -> None:
    """What stands behind it is not passed over in silence."""
    desk.path.write_text(" " * 2**20 + json.dumps(experiences(3)))
    desk.read()
    desk.clock.advance(31)
    assert "white space" in desk.read().problem


def test_texts_come_from_one_file_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer that changes while its texts are read is read again."""
    desk = Desk(tmp_path)
    write_buffer(desk.path, experiences(3))
    monkeypatch.setattr("sleepd.buffer.reading.source_file.EXTRACT_PAUSE_SECONDS", 0.0)
    tries: list[int] = []

    def spy(file: FirstBytes, request: ReadRequest) -> Reading:
        reading = answer(file, request)
        if not tries:
            desk.path.write_text(json.dumps(experiences(2)))
        tries.append(1)
        return reading

    monkeypatch.setattr("sleepd.buffer.reading.reader_client.answer", spy)
    wanted = [record["id"] for record in experiences(3)]
    assert [each.id for each in desk.texts(*wanted)] == wanted[:2]
    assert len(tries) == 2


@pytest.mark.parametrize("head", ['{"experiences": [\n', '{"max_size": 9,\n"experiences": [\n'])
@pytest.mark.parametrize("count", [1, 3, 30])
def test_experience_lines_in_object_are_json(desk: Desk, head: str, count: int) -> None:
    """All its experiences are used, and none is set aside for the comma after it."""
    desk.path.write_text(head + ",\n".join(json.dumps(record) for record in experiences(count)) + "\n]}")
    view = desk.read()
    assert (view.form, len(view.keys), view.skipped_total) == ("object", count, 0)


@pytest.mark.parametrize(
    "broken",
    [
        '{"id": "x", "pro',
        '{"x": ',
        'rompt": "p", "response": "r"}',
        '"p", "response": "my \\"experiences\\""}',
        '{"messages": [{"role": "user", "content": "my experiences',
        '{"x": {"about": "experiences", ',
        '["r"], "x": 1}',
        '[{"role": "user"',
        "5, 6]}",
        "\N{SKULL}",
        "}",
    ],
)
@pytest.mark.parametrize("later", [b"", b"\xff{", b"{]"])
def test_broken_first_line_is_json_lines(desk: Desk, broken: str, later: bytes) -> None:
    """A torn first line costs itself only, and is named with its place, as a later one is."""
    desk.path.write_bytes(broken.encode()[1:] if broken == "\N{SKULL}" else broken.encode())
    with desk.path.open("ab") as file:
        file.write(
            b"\n" + as_lines(experiences(3)).encode() + later + b"\n" + as_lines(experiences(2, start=3)).encode()
        )
    view = desk.read()
    assert (view.form, len(view.keys)) == ("lines", 5)
    assert [one.position for one in view.skipped] == ["line 1", *(["line 5"] if later else [])]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("ends", [("[\n", ",\n", "\n]"), ("[", ",\n", "]"), ('{"experiences": [\n', ",\n", "\n]}")])
def test_one_experience_a_line_is_no_json_lines(desk: Desk, count: int, ends: tuple[str, str, str]) -> None:
    """A list that is written with one experience on each line is read as the list that it is."""
    start, between, end = ends
    desk.path.write_text(start + between.join(json.dumps(one) for one in experiences(count)) + end)
    view = desk.read()
    assert (view.form, len(view.keys), view.skipped_total) == ("object" if start[0] == "{" else "array", count, 0)


def test_long_first_line_is_json_lines(desk: Desk) -> None:
    """The form is told although the first line's end is out of sight."""
    desk.path.write_text(as_lines([{**GOOD, "response": "x" * 3 * 2**20}, *experiences(3)]))
    view = desk.read()
    assert (view.form, len(view.keys)) == ("lines", 4)


def test_half_file_avoids_slow_parser(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual half-written array is known by its end, without building everything in it."""
    monkeypatch.setattr("sleepd.buffer.parsing._tolerantly", lambda _: pytest.fail("parsed twice"))
    with pytest.raises(HalfWritten, match="not whole"):
        digest_whole(json.dumps(experiences(9))[:-5].encode())


def test_failing_reader_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that fails is started again after a minute, then after two; at once where the file became smaller."""
    desk = Desk(tmp_path, large_bytes=10, python="/bin/false")
    starts: list[int] = []
    start = asyncio.create_subprocess_exec

    def counted(*command: Any, **more: Any) -> Any:
        starts.append(1)
        return start(*command, **more)

    monkeypatch.setattr("sleepd.buffer.reading.reader_client.asyncio.create_subprocess_exec", counted)
    write_buffer(desk.path, experiences(3))
    tried = []
    for seconds in (0, 30, 31, 61, 60):
        desk.clock.advance(seconds)
        with pytest.raises(BufferUnreadable, match="ended with 1"):
            desk.read()
        tried.append(len(starts))
    write_buffer(desk.path, experiences(2))
    with pytest.raises(BufferUnreadable, match="ended with 1"):
        desk.read()
    assert [*tried, len(starts)] == [1, 1, 2, 2, 3, 4]


@pytest.mark.parametrize("form", ["array", "lines"])
def test_growing_file_is_read_to_size(tmp_path: Path, form: str) -> None:
    """What is appended after the look at the size is not read with it: a writer without end cannot hold the reader."""
    records = [json.dumps(record) for record in experiences(4)]
    text = "\n".join(records) + "\n" if form == "lines" else f"[{', '.join(records)}]"
    path = tmp_path / "buffer"
    path.write_text(text)
    with path.open("rb") as file, path.open("ab") as writer:
        size = path.stat().st_size
        writer.write(b"\n" + records[0].encode() * 100_000)
        writer.flush()
        reading = read_digest(FirstBytes(file, size), None)
        assert file.tell() == size
    assert len(reading.columns.keys) == 4


def test_long_texts_stay_in_the_file(tmp_path: Path) -> None:
    """For a list of previews no more characters come into the daemon than were asked for, and never a longer text
    than is trained, be the buffer read in a thread or in a process.
    """
    lengths = {"a": 6_000, "b": 5_000, "c": 3_000, "huge": MOST_CHARACTERS}
    records = [{"id": id_, "prompt": "p", "response": "r" * n, "salience": 0.5} for id_, n in lengths.items()]
    for large_bytes in (10, 10**8):
        desk = Desk(tmp_path, large_bytes=large_bytes)
        write_buffer(desk.path, records)
        keys = [id_hash(id_) for id_ in lengths]
        shown = asyncio.run(desk.buffer.extract(keys, characters=10_000))
        assert [len(text.response) for text in shown] == [6_000, 0, 3_000, 0]
        assert [len(text.response) for text in asyncio.run(desk.buffer.extract(keys))] == [6_000, 5_000, 3_000, 0]


def test_unfinished_string_is_scanned_once() -> None:
    """Behind a record nested too deeply, a string of quotes without an end is cut apart in one go, not once a quote."""
    data = b"[" + b"[" * 5_000 + b"]" * 5_000 + b', "' + b'\\"' * 500_000
    with pytest.raises(HalfWritten, match="does not end"):
        list(records(data, "array"))


@pytest.mark.parametrize("part", ["learnables.group_of", "parsing.msgspec.json.decode"])
def test_record_without_memory_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """One record that takes more memory than there is does not cost the others."""
    good = [json.dumps(record) for record in experiences(3)]
    huge = json.dumps({"id": "huge", "prompt": "p", "response": "huge", "salience": 0.5})
    plain = {"learnables.group_of": learnables.group_of}.get(part, parsing.msgspec.json.decode)

    def limited(*given: Any, **more: Any) -> Any:
        if any("huge" in str(one) for one in given):
            raise MemoryError
        return plain(*given, **more)

    monkeypatch.setattr(f"sleepd.buffer.{part}", limited)
    found = digest.Digest("lines")
    digest.digest_lines([line.encode() for line in (good[0], huge, *good[1:])], found, first=1)
    assert len(found.keys) == 3
    assert [(one.position, "more memory" in one.reason) for one in found.skipped] == [("line 2", True)]


# --- what a rotation or another encoding leaves ---


@pytest.mark.parametrize("hole", [1, 5000, 2**20, 20 * 2**20 + 7])
def test_lines_behind_nul_bytes_are_read(desk: Desk, hole: int) -> None:
    """Truncated under its writer, a file begins with NUL bytes: what follows is read, and the cause is named."""
    with desk.path.open("wb") as file:
        file.seek(hole)
        file.write(as_lines(experiences(3)).encode())
    view = desk.read()
    assert [hash_text(key) for key in view.keys] == [record["id"] for record in experiences(3)]
    assert (view.skipped_total, view.skipped[0].position) == (1, "line 1")
    assert view.skipped[0].reason.startswith(f"{hole} NUL bytes before it")
    assert "copytruncate" in view.skipped[0].reason
    with desk.path.open("a") as appended:
        appended.write(as_lines(experiences(2, start=3)))
    assert len(desk.read().keys) == 5
    assert [each.id for each in desk.texts(experiences(1)[0]["id"])] == [experiences(1)[0]["id"]]


def test_rotation_under_writer_is_survived(desk: Desk) -> None:
    """A writer that keeps its place after the file was truncated leaves a hole that the cursor does not trust."""
    with desk.path.open("w") as writer:
        writer.write(as_lines(experiences(4)))
        writer.flush()
        assert len(desk.read().keys) == 4
        os.truncate(desk.path, 0)
        writer.write(as_lines(experiences(2, start=10)))
        writer.flush()
        assert [hash_text(key) for key in desk.read().keys] == [record["id"] for record in experiences(2, start=10)]


@pytest.mark.parametrize("form", ["array", "object", "lines"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8-sig", ""),
        ("utf-16", "is UTF-16, expected UTF-8"),
        ("utf-16-le", "is UTF-16"),
        ("utf-16-be", "is UTF-16"),
    ],
)
def test_another_encoding_is_named(desk: Desk, form: str, encoding: str, said: str) -> None:
    """UTF-8 with a byte order mark is read; UTF-16 is called so, with the command that converts it."""
    desk.path.write_text(FORMS[form](experiences(3)), encoding=encoding)
    desk.read()
    desk.clock.advance(60)
    view = desk.read()
    assert said in view.problem
    assert len(view.keys) == (0 if said else 3)
    assert not said or "iconv" in view.problem


def test_line_in_other_encoding_is_named(desk: Desk) -> None:
    """UTF-16 appended to lines of UTF-8, as some shells do, is set aside by its name."""
    desk.path.write_bytes(as_lines(experiences(2)).encode() + as_lines(experiences(1, start=2)).encode("utf-16-le"))
    desk.read()
    desk.clock.advance(60)
    view = desk.read()
    assert len(view.keys) == 2
    assert "is UTF-16" in view.skipped[0].reason


def test_nul_file_is_named(desk: Desk) -> None:
    """Nothing to read on to: the problem says what they are."""
    desk.path.write_bytes(b"\0" * 3_000_000)
    desk.read()
    desk.clock.advance(60)
    assert "begins with 3000000 NUL bytes" in desk.read().problem


def test_newest_problem_is_shown(desk: Desk) -> None:
    """A fault that replaces another one is told in its own words, at once, while the last good view holds."""
    told = []
    for content in ('[{"prompt":"a"},]', "words", b"\xff\xfe[\0]\0", b"\0\0\0"):
        desk.path.write_bytes(content.encode() if isinstance(content, str) else content)
        desk.read()
        desk.clock.advance(60)
        told.append(desk.read().problem)
    assert len(set(told)) == len(told)
    assert "" not in told
