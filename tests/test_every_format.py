"""Tests that hold for every format that is read, and for files that are not: recognised, bounded, never an error."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.digest import digest_whole
from sleepd.buffer.experience import Experience
from sleepd.buffer.formats.known_formats import FORMATS
from sleepd.buffer.formats.recognition import format_of
from sleepd.buffer.formats.unread import unread_program
from sleepd.buffer.learnables import HalfWritten, Learnables, ReadSettings
from sleepd.buffer.own_record import own_record
from sleepd.buffer.parsing import TORN, decoded_line
from sleepd.buffer.rating.rating_names import REJECTED
from sleepd.buffer.reading.reader_process import read_digest
from tests.faults.mutations import mutated_json
from tests.format_samples import ANSWER, ASKED, SAMPLES, SYSTEM, learned, understood, understood_file

EVERY = list(SAMPLES)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


def check(found: list[Experience | str]) -> None:
    """Each outcome can be used, or is a short reason that can be shown."""
    for each in found:
        if isinstance(each, str):
            assert each.isprintable()
            assert 0 < len(each) < 250
            continue
        assert each.whole_response.strip()
        assert each.salience == REJECTED or (math.isfinite(each.salience) and 0 <= each.salience <= 1)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=Experience) == each
        assert not each.tools or isinstance(json.loads(each.tools), list)


def test_every_format_has_a_sample() -> None:
    """No format is listed without a sample, on which the tests and the fuzzing are built."""
    assert [one.name for one in FORMATS if one.name not in SAMPLES] == []
    assert len({one.name for one in FORMATS}) == len(FORMATS) == len(SAMPLES)


LONG_TALK = [
    {"role": role, "content": f"{role} {number} {'x' * 9_000}"}
    for number in range(40)
    for role in (*(["system"] * (number % 15 == 0)), "user", "assistant")
]


@pytest.mark.parametrize(
    "records", [*SAMPLES.values(), [{"conversation": "c", "messages": LONG_TALK}], [{"messages": LONG_TALK}]]
)
def test_import_keeps_what_was_understood(records: list[Any]) -> None:
    """A sample that is written as our own lines gives the same ids, texts, saliences and sides of the split."""

    def figures(records: list[Any]) -> dict[str, tuple[Any, ...]]:
        read = [each for _, each in Learnables().read((str(n), one) for n, one in enumerate(records))]
        found = [each for each in read if not isinstance(each, str) and each.salience != REJECTED]
        lines.extend(own_record(each) for each in found)
        return {each.id: (each.group, each.conversation, each.salience) for each in found}

    lines: list[Any] = []
    before = figures(records)
    written = [json.loads(json.dumps(line)) for line in lines]
    assert before
    assert figures(written) == before


@pytest.mark.parametrize("name", EVERY)
def test_sample_is_recognised_as_itself(name: str) -> None:
    """Each record of a sample is recognised as its own format, by content alone and by name."""
    for record in SAMPLES[name]:
        found = format_of(record)
        assert found is not None
        assert found.name == name
        assert format_of(record, name) == found
    assert any(isinstance(each, Experience) for each in understood(SAMPLES[name]))
    check(understood(SAMPLES[name]))


def test_own_form_loads_no_formats() -> None:
    """A record of our own short form is read without the modules of the other formats, which take longer to load."""
    record = {"prompt": "Open?", "response": "Yes."}
    program = (
        "import sys; from sleepd.buffer.learnables import Learnables; "
        f"print(len(list(Learnables().read([('1', {record!r})]))), "
        "'sleepd.buffer.formats.known_formats' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told == "1 False\n"


@pytest.mark.parametrize("name", EVERY)
def test_unknown_keys_change_nothing(name: str) -> None:
    """A key that the format does not know is passed over."""
    more = [{**record, "x_new": {"deep": [1, None]}} for record in SAMPLES[name]]
    assert understood(more) == understood(SAMPLES[name])


@pytest.mark.parametrize("name", EVERY)
def test_record_of_one_format_only(name: str) -> None:
    """With a format named, the records of another are no conversations of it, and have a reason or are our own."""
    for other in EVERY:
        for record in SAMPLES[other] if other != name else ():
            found = understood([record], ReadSettings(format=name))
            assert found, f"no word about a record of {other}"
            check(found)


@pytest.mark.parametrize("name", EVERY)
@given(seed=st.integers(0, 2**32))
def test_mutated_record_is_read_or_explained(name: str, seed: int) -> None:
    """A record in which anything was changed gives experiences and reasons, never an error."""
    random = Random(seed)
    record = decoded_line(mutated_json(random, json.dumps(random.choice(SAMPLES[name])).encode()).replace(b"\n", b" "))
    try:
        check(understood([record]))
    except HalfWritten as error:
        assert str(error).startswith("this looks like")


@pytest.mark.parametrize("name", EVERY)
@given(data=st.data())
def test_any_value_in_any_place(name: str, data: st.DataObject) -> None:
    """Whatever stands under a key of the format is read or explained."""
    record = dict(data.draw(st.sampled_from(SAMPLES[name])))
    for key in data.draw(st.lists(st.sampled_from(sorted(record)), min_size=1, max_size=2)):
        record[key] = data.draw(ANYTHING)
    try:
        check(understood([record]))
    except HalfWritten as error:
        assert str(error).startswith("this looks like")


def test_format_may_change_within_a_file() -> None:
    """Records of all formats one after another are each read as their own, with torn ones between them."""
    lines = [json.dumps(record).encode() for name in EVERY for record in SAMPLES[name]]
    torn = [line[: len(line) // 2] for line in lines]
    mixed = b"".join(part + b"\n" for pair in zip(lines, torn, strict=True) for part in pair)
    found = [each for _, each in understood_file(mixed)]
    whole = [each for record in SAMPLES.values() for each in understood(record)]
    good = {each.id for each in found if isinstance(each, Experience)}
    assert {each.id for each in whole if isinstance(each, Experience)} <= good
    assert sum(isinstance(each, str) and each.startswith("not JSON") for each in found) == len(lines)


def test_array_and_lines_say_the_same() -> None:
    """The same records as an array give what they give as lines."""
    for name in EVERY:
        array = understood_file(json.dumps(SAMPLES[name]).encode())
        lines = understood_file(b"".join(json.dumps(record).encode() + b"\n" for record in SAMPLES[name]))
        assert [each for _, each in array] == [each for _, each in lines] == understood(SAMPLES[name])


def test_each_format_fits_a_table() -> None:
    """Title, place and feedback stand in one line of a Markdown table, and the name is one that a file can hold."""
    for one in FORMATS:
        assert one.name.isidentifier()
        for text in (one.title, one.usual_place, one.feedback):
            assert "|" not in text
            assert "\n" not in text
        assert (one.conversations is None) != (one.session is None)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([SYSTEM, ANSWER], "expected a message of the user before the reply, found none"),
        ([ASKED, {"role": "assistant", "content": " "}], "expected a reply with text or a call of a tool, found an"),
        ([ANSWER, ASKED, {"role": "assistant"}], "expected a message of the user before the reply, found none"),
        ([ANSWER, ASKED, ANSWER], ""),
        ([ASKED, {**ANSWER, "weight": 0}], ""),
    ],
)
def test_record_without_example_is_named(said: list[Any], reason: str) -> None:
    """Where all replies of a record are empty, or answer nobody, one sentence says so; a greeting is no fault."""
    told = [each for each in understood([{"messages": said}]) if isinstance(each, str)]
    assert [each[: len(reason)] for each in told] == ([reason] if reason else [])


# --- what is not read ---


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"id": "m", "message_type": "user_message", "content": "Hi"}, "a Letta dump"),
        ({"agents": [], "blocks": [], "mcp_servers": []}, "a Letta agent file"),
        ({"v": 1, "channel_values": {}, "channel_versions": {}}, "a LangGraph checkpoint"),
        ({"values": {"messages": []}, "next": [], "config": {}}, "a LangGraph state"),
        ({"lc": 1, "type": "constructor", "id": ["langchain"], "kwargs": {}}, "a LangChain dump"),
        ({"type": "human", "data": {"content": "Hi"}}, "a LangChain message history"),
        ({"trace_id": "t", "observation_id": "o", "data_type": "NUMERIC", "value": 1}, "a Langfuse scores file"),
        ({"id": "a", "rating": 1}, "a feedback file"),
        ({"resourceLogs": []}, "a log file of OpenTelemetry"),
        ({"resourceMetrics": []}, "a metrics file of OpenTelemetry"),
    ],
)
def test_unread_program_is_named_once(record: Any, name: str) -> None:
    """A file of a program that is not read is named in one sentence with what to do, not record by record."""
    with pytest.raises(HalfWritten, match=f"^this looks like {name}, which is not read: ") as raised:
        digest_whole(json.dumps([record, record]).encode())
    assert str(raised.value).count(".") <= 4
    assert unread_program(record) == str(raised.value)


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({"event": "x", "payload": {}}, "a record with event, payload"),
        ({"key with a text": 1, "role": "user"}, "a record with role"),
        ([{"role": "user", "content": "Hi"}], "a record that is a list"),
    ],
)
def test_unknown_records_are_named_once(record: Any, what: str) -> None:
    """A file in which no record is of a known format is named in one sentence; beside a good record each is skipped."""
    with pytest.raises(HalfWritten, match=f"like no format .*, {what}: "):
        digest_whole(json.dumps([record] * 3).encode())
    digest = digest_whole(json.dumps([record, SAMPLES["alpaca"][0], record]).encode())
    assert (len(digest.keys), digest.skipped_total) == (2, 2)


def test_record_of_another_format_is_skipped() -> None:
    """Where the configuration names a format, a record of another one is skipped and not called unknown."""
    found = understood(SAMPLES["alpaca"], ReadSettings(format="codex"))
    assert found
    assert all(isinstance(each, str) and each.endswith("codex, found alpaca") for each in found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{\n"prompt": "a",\n"response": "b"\n}', ""),
        ('{\n"a": 1\n}\n{\n"a": 2\n}', "this looks like no format that is read, a record with a"),
        ('{\n"a": 1\n},\n{\n"a": 2\n}', "one object a line (jq -c . FILE)"),
        ('{\n"data": [{"a": 1}]\n}', "write the list alone (jq .data FILE)"),
        ('{\n"data": ' + "9" * 5000 + "\n}", "an object with 'data'"),
    ],
)
def test_indented_objects_are_explained(content: str, expected: str) -> None:
    """One indented record of ours is read; of several values, and of a list in an object, the next step is named."""
    if not expected:
        assert len(digest_whole(content.encode()).keys) == 1
        return
    with pytest.raises(HalfWritten, match=re.escape(expected)):
        digest_whole(content.encode())


@pytest.mark.parametrize(
    "content",
    [
        '[{"prompt": "a", "response": "b"}]\n{"prompt": "c", "response": "d"}\n',
        '{"experiences": [{"prompt": "a", "response": "b"}]}\n{"prompt": "c", "response": "d"}\n',
        '{"prompt": "a", "response": "b"}{"prompt": "c", "response": "d"}',
        '{"prompt": "a", "response": "b"}\r{"prompt": "c", "response": "d"}\r',
        '{\n"prompt": "a",\n"response": "b"\n}\n{\n"prompt": "c",\n"response": "d"\n}\n',
    ],
)
def test_values_one_after_another_are_read(content: str) -> None:
    """An array to which lines were appended, indented objects, and objects without line ends are read as records.

    What breaks off behind them is not guessed at: the whole is half-written, with the next step.
    """
    assert len(digest_whole(content.encode()).keys) == 2
    with pytest.raises(HalfWritten, match=r"^not whole: .*\(jq -c \. FILE\)$"):
        digest_whole(content.encode() + b'{"prompt": ')


def test_line_behind_nul_bytes_is_read() -> None:
    """What a crash left between two lines is named with its place, and the record behind it is read."""
    line = b'{"prompt": "%d", "response": "b"}\n'
    found = understood_file(line % 1 + b"\0" * 4096 + line % 2 + b"\0" * 9 + b"\n" + line % 3)
    assert [each.prompt for _, each in found if isinstance(each, Experience)] == ["1", "2", "3"]
    named = [(place, each[:17]) for place, each in found if isinstance(each, str)]
    assert named == [("line 2", "4096 NUL bytes be"), ("line 3", "begins with NUL b")]


def test_torn_last_line_is_named() -> None:
    """Who reads a file once is told of its last line, where that breaks off."""
    found = understood_file(json.dumps(SAMPLES["alpaca"][0]).encode() + b'\n{"prompt"')
    assert (len(found), found[-1]) == (3, ("line 2", TORN))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_wide_encoding_is_named(encoding: str) -> None:
    """A file in another encoding of Unicode is named with the command that converts it."""
    with pytest.raises(HalfWritten, match=re.escape(f"(iconv -f {encoding[:6].upper()} -t UTF-8)")):
        digest_whole('{"prompt": "How is the wind at Oban today?", "response": "b"}\n'.encode(encoding))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"SQLite format 3\0\x10\0", "an SQLite database"),
        (b"\x1f\x8b\x08\0", "a gzip file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PAR1\x15", "a Parquet file"),
        (b"\x28\xb5\x2f\xfd\x04", "a zstd file"),
    ],
)
def test_file_that_is_no_text_is_named(head: bytes, name: str) -> None:
    """A database and an archive are known by their first bytes, and the sentence says what to do."""
    with pytest.raises(HalfWritten, match=f"^this looks like {name}, which is not read: "):
        digest_whole(head + bytes(range(256)) * 8)


def test_stray_appended_record_is_skipped() -> None:
    """A record of another program that is appended to a good file is skipped, and the file stays readable."""
    good = json.dumps(SAMPLES["alpaca"][0]).encode() + b"\n"
    before = read_digest(io.BytesIO(good), None)
    after = read_digest(io.BytesIO(good + b'{"id":"a","rating":1}\n'), before)
    assert (after.half_written, len(after.columns.keys), after.skipped_total) == ("", 2, 1)


def test_collector_may_mix_signals() -> None:
    """Logs and metrics that a collector writes into the file of the spans lose none of them, and are named once."""
    others: list[Any] = [{"resourceLogs": []}, {"resourceMetrics": []}]
    found = understood([*others, *SAMPLES["otel_genai"], *others])
    assert [isinstance(each, str) for each in found] == [False, True]
    assert str(found[1]).startswith("this looks like a log file")


def test_stray_dump_record_is_skipped() -> None:
    """A record of another program behind good ones is skipped with a reason and loses none of them."""
    good = SAMPLES["alpaca"][0]
    found = understood([good, {"lc": 1, "type": "constructor"}, good])
    assert sum(isinstance(each, str) for each in found) == 1
    assert len(found) == 2 * len(learned([good])) + 1
