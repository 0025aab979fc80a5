"""Damaged sessions and exports: what is whole is read, the rest is named with its place, and nothing is an error."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.learnables import HalfWritten
from sleepd.buffer.reading.reader_process import read_digest
from tests.tree_samples import SESSIONS, TREE_SAMPLES, as_lines, copied, entry, figures, open_webui, read, text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
GONE = object()
MEANT = {"done", "isSidechain", "isApiErrorMessage", "weight", "annotation", "feedback", "error", "unfinished", "files"}
"""Keys that say whether a message is learned."""


OPAQUE = {"content", "parts", "metadata"}
"""Where a part that is no text means that the replies to it are not learned."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and every index inside of a value."""
    found = [] if not path else [path]
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found += places(value[key], (*path, key))
    return found


def changed(records: list[Any], path: tuple[Any, ...], value: Any) -> list[Any]:
    """The records with another value at one place, or without it."""
    records = copied(records)
    target: Any = records
    for key in path[:-1]:
        target = target[key]
    if value is GONE:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return records


@pytest.mark.parametrize("name", TREE_SAMPLES)
@given(data=st.data())
def test_any_change_is_read_or_told(name: str, data: st.DataObject) -> None:
    """With any key deleted or replaced by anything, nothing fails; a reply of another message is lost with a reason."""
    records = TREE_SAMPLES[name]
    path = data.draw(st.sampled_from(places(records)))
    value = data.draw(st.just(GONE) | JSON)
    try:
        replies, told = read(as_lines(changed(records, path, value)))
    except HalfWritten as error:
        assert str(error).startswith(("this looks like", "begins with", "expected", "not whole"))
        return
    assert all(place and reason and len(reason) < 250 and reason.isprintable() for place, reason in told)
    lost = {one.whole_response: one.id for one in read(as_lines(records))[0]}
    for one in replies:
        lost.pop(one.whole_response, None)
    is_meant = path[-1] in MEANT or (value is GONE and not isinstance(path[-1], str)) or value in (None, "", [], {})
    is_meant = is_meant or bool(OPAQUE & set(path)) or len(path) == len(records) == 1
    others = [id_ for id_ in lost.values() if not is_of(id_, name, records, path)]
    assert told or is_meant or not others


def is_of(id_: str, name: str, records: list[Any], path: tuple[Any, ...]) -> bool:
    """Whether a reply is of the message in which something was changed."""
    if name in SESSIONS:
        whole = records[path[0]]
        own = whole.get("message", {}).get("id") or whole.get("id") or id_
    elif name == "librechat":
        own = records[0]["messages"][path[2]]["messageId"] if len(path) > 2 and path[1] == "messages" else ""
    else:
        own = next((key for key in path if str(key)[:1] in "wg" and str(key)[1:].isdigit()), "")
    return str(own) == id_ or id_.partition("/")[2].partition(":")[0] == own


@pytest.mark.parametrize("name", SESSIONS)
def test_torn_line_is_named(name: str) -> None:
    """A torn line is named with its place; what stands before it is read, and what hangs together behind it."""
    lines = as_lines(TREE_SAMPLES[name]).splitlines(keepends=True)
    torn = b"".join([*lines[:3], lines[3][:40] + b"\n", *lines[4:]])
    replies, told = read(torn)
    assert told[0][0] == "line 4"
    assert told[0][1].startswith("not JSON")
    whole = read(b"".join(lines))[0]
    assert {one.id for one in replies} <= {one.id for one in whole} or name == "sillytavern"
    assert replies


def test_two_roots_are_two_conversations() -> None:
    """Entries that begin twice are read twice, under one name and on one side of the split."""
    records = [
        TREE_SAMPLES["openclaw"][0],
        entry("a", None, {"role": "user", "content": "When is high water?"}),
        entry("b", "a", {"role": "assistant", "content": text("At nine.")}),
        entry("c", None, {"role": "user", "content": "And low water?"}),
        entry("d", "c", {"role": "assistant", "content": text("At three.")}),
    ]
    replies, told = read(records)
    assert [(one.id, len(one.messages)) for one in replies] == [("quay/b", 1), ("quay/d", 1)]
    assert len({one.conversation for one in replies}) == 1
    assert told == []


def test_circle_is_read_and_told() -> None:
    """A circle of entries loses nothing: it is cut where the file begins it, and the reason names the entry."""
    records = copied(TREE_SAMPLES["openclaw"])
    records[1]["parentId"] = "e6"
    replies, told = read(records)
    assert [one.id for one in replies] == ["quay/e2", "quay/e4", "quay/e6"]
    assert [reason.partition(":")[0] for _, reason in told] == ["message e0"]


def test_missing_role_cuts_the_chat() -> None:
    """A message without a role is named; the replies before it are read, and those behind the next question."""
    record = open_webui()
    del record["chat"]["history"]["messages"]["w3"]["role"]
    replies, told = read([record])
    assert [one.id for one in replies] == ["dock/w2:1", "dock/w2", "dock/w8"]
    assert [(line, why.split(": ")[:2]) for line, why in told if "w3" in why] == [("line 1", ["message w3", "role"])]


@pytest.mark.parametrize("name", SESSIONS)
@pytest.mark.parametrize("other", ["openclaw", "codex", "librechat"])
def test_format_may_change_in_the_middle(name: str, other: str) -> None:
    """Records of another program behind those of a session are read as that program's."""
    if name == other:
        return
    both = read([*TREE_SAMPLES[name], *TREE_SAMPLES[other]])
    assert {one.id for one in both[0]} == {one.id for each in (name, other) for one in read(TREE_SAMPLES[each])[0]}
    assert both[1] == []


@pytest.mark.parametrize("name", SESSIONS)
def test_other_encodings_are_refused(name: str) -> None:
    """UTF-16 is refused in words; a byte order mark changes nothing; stray bytes lose their line alone."""
    data = as_lines(TREE_SAMPLES[name])
    with pytest.raises(HalfWritten, match="is UTF-16"):
        read(data.decode().encode("utf-16"))
    assert figures(b"\xef\xbb\xbf" + data) == figures(data)
    lines = data.splitlines(keepends=True)
    last = lines[-1].replace(b"T", b"\xff").replace(b"t", b"\xff")
    assert len(read(b"".join([*lines[:-1], last]))[0]) >= 1


@pytest.mark.parametrize("name", TREE_SAMPLES)
def test_unknown_keys_are_passed_over(name: str) -> None:
    """Keys that a newer version adds change nothing."""
    more = json.loads(json.dumps(TREE_SAMPLES[name]), object_hook=lambda one: {**one, "x-new": {"deep": [1, None]}})
    if name in ("open_webui", "open_webui_feedback", "chatgpt_export"):
        more = [{**record, "x-new": {"deep": [1, None]}} for record in TREE_SAMPLES[name]]
    found = read(more)
    assert [one.id for one in found[0]] == [one.id for one in read(TREE_SAMPLES[name])[0]]
    assert found[1] == []


@pytest.mark.parametrize("name", ["openclaw", "chatgpt_export", "librechat", "open_webui"])
def test_endless_conversations_are_read(name: str) -> None:
    """A conversation of 100,000 turns (of other programs 20,000) is read without recursion; each reply is learned."""
    turns = 100_000 if name == "chatgpt_export" else 20_000
    reading = read_digest(io.BytesIO(as_lines(long_one(name, turns))), None)
    assert len(reading.columns.keys) == turns // 2
    assert reading.skipped_total == 0


def test_many_calls_after_one_question_are_read() -> None:
    """An agent that calls tools 20,000 times after one question has 20,000 replies to learn from."""
    records = [TREE_SAMPLES["openclaw"][0], entry("r0", None, {"role": "user", "content": "Read all."})]
    for at in range(20_000):
        call = {"type": "toolCall", "id": f"k{at}", "name": "read", "arguments": {"page": at}}
        result = {"role": "toolResult", "toolCallId": f"k{at}", "toolName": "read", "content": "x" * 300}
        records.append(entry(f"c{at}", f"r{at}", {"role": "assistant", "content": [call]}))
        records.append(entry(f"r{at + 1}", f"c{at}", result))
    reading = read_digest(io.BytesIO(as_lines(records)), None)
    assert len(reading.columns.keys) == 20_000
    assert reading.skipped_total == 0


def long_one(name: str, turns: int) -> list[Any]:
    """A conversation of so many short turns."""
    said = [("user" if number % 2 == 0 else "assistant", f"{number}?") for number in range(turns)]
    above = [None, *(f"n{number}" for number in range(turns))]
    if name == "openclaw":
        header = TREE_SAMPLES[name][0]
        return [
            header,
            *(entry(f"n{at}", above[at], {"role": role, "content": one}) for at, (role, one) in enumerate(said)),
        ]
    if name == "librechat":
        keys = ("messageId", "parentMessageId", "isCreatedByUser", "text")
        rows = [(f"n{at}", above[at], role == "user", one) for at, (role, one) in enumerate(said)]
        return [{"conversationId": "long", "messages": [dict(zip(keys, row, strict=True)) for row in rows]}]
    if name == "open_webui":
        messages = {
            f"n{at}": {"parentId": above[at], "role": role, "content": one} for at, (role, one) in enumerate(said)
        }
        return [{"id": "long", "chat": {"history": {"currentId": f"n{turns - 1}", "messages": messages}}}]
    mapping = {
        f"n{at}": {
            "parent": above[at],
            "message": {"author": {"role": role}, "content": {"content_type": "text", "parts": [one]}},
        }
        for at, (role, one) in enumerate(said)
    }
    return [{"conversation_id": "long", "current_node": f"n{turns - 1}", "mapping": mapping}]
