"""Exports of chats with branches and ratings: Open WebUI, ChatGPT, LibreChat; and one object as a whole file."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sleepd.buffer.learnables import HalfWritten
from tests.tree_samples import (
    DETAILS,
    TREE_SAMPLES,
    chatgpt_export,
    letter,
    librechat,
    node,
    note,
    open_webui,
    open_webui_feedback,
    parts,
    read,
    shape,
)

TABLE = "<think>|the table|</think>||"
RATED = [
    ("dock/w2:1", 1.0, f'su > {TABLE}|tide({{"on": 1}})'),
    ("dock/w2", 1.0, "suat > High water is at nine."),
    ("dock/w5", 0.8, "suatau > At three."),
    ("dock/w8", -1.0, "suatauau > No."),
    ("dock/w6", 1.0, "suatau > Around three."),
]
UNDERSTOOD = {
    "open_webui": RATED,
    "open_webui_feedback": [("dock/w5", 1.0, one[2]) if one[0] == "dock/w5" else one for one in RATED],
    "chatgpt_export": [
        ("slip/g4", 0.7, 'su > python({"input":"tide()"})'),
        ("slip/g6", 0.7, "suat > At nine."),
        ("slip/g9", 0.8, "suatau > At three."),
    ],
    "librechat": [
        ("ford/l3:1", 0.8, f'su > {TABLE}|tide({{"on":1}})'),
        ("ford/l3", 0.8, "suat > At nine."),
        ("ford/l5", -1.0, "suatau > At four."),
        ("ford/l2", 1.0, "su > At ten."),
    ],
}


def saliences(record: Any) -> dict[str, float]:
    return {one.id.split("/")[1]: one.salience for one in read([record])[0]}


def chat_of(*messages: Any, current: Any = None) -> dict[str, Any]:
    """A chat of Open WebUI with these messages, the last of which is the current one."""
    history = {"currentId": current or messages[-1]["id"], "messages": {one["id"]: one for one in messages}}
    return {"id": "dock", "chat": {"history": history}}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_export_is_understood(name: str) -> None:
    """Turns, supervised replies and salience of a sample are what its program's documents say."""
    replies, told = read(TREE_SAMPLES[name])
    assert [(one.id, one.salience, shape(one)) for one in replies] == UNDERSTOOD[name]
    assert told == []
    assert len({one.conversation for one in replies}) == 1
    assert replies[0].messages[0].text in ("You are Robin.", "Be brief.")


@pytest.mark.parametrize("name", UNDERSTOOD)
@pytest.mark.parametrize("indent", [None, 1])
def test_export_may_be_one_object(name: str, indent: int | None) -> None:
    """A file that is one record, on one line or on many, gives what the record gives in a list."""
    record = TREE_SAMPLES[name][0]
    assert read(json.dumps(record, indent=indent).encode()) == read(json.dumps([record], indent=indent).encode())


def test_object_with_empty_parts_is_one_record() -> None:
    """A line of an indented object that is an object itself does not make JSON lines of the file."""
    record = {**librechat(), "messages": [{**one, "metadata": [{}]} for one in librechat()["messages"]]}
    assert len(read(json.dumps(record, indent=1).encode())[0]) == 4


def test_large_object_on_one_line_is_read() -> None:
    """An export of more than a megabyte on one line is a record, and so is the first of long JSON lines."""
    record = {**librechat(), "title": "x" * 2**21}
    assert len(read(json.dumps(record).encode())[0]) == 4
    second = {**librechat(), "conversationId": "beck"}
    assert len(read(json.dumps(record).encode() + b"\n" + json.dumps(second).encode() + b"\n")[0]) == 8


def test_unknown_object_is_refused() -> None:
    """An object that no format recognises is named with its keys, or with the program that wrote it."""
    with pytest.raises(HalfWritten, match="'title, year'"):
        read(json.dumps({"title": "x", "year": 1}, indent=1).encode())
    with pytest.raises(HalfWritten, match=" LangGraph "):
        read(json.dumps({"channel_values": {}}, indent=1).encode())


# --- Open WebUI ---


def test_rating_alone_in_details_counts() -> None:
    """Without thumbs, 6 to 10 in ``details`` is thumbs up and 1 to 5 thumbs down, as Open WebUI asks for them."""
    asked = note("a", None, "user", "Tide?")
    for fine, expected in ((10, 1.0), (6, 1.0), (5, -1.0), (None, 0.7)):
        said = note("b", "a", "assistant", "Nine.", annotation={"rating": None, "details": {"rating": fine}})
        assert saliences(chat_of(asked, said)) == {"b": expected}


def test_rejected_reply_beside_is_not_read() -> None:
    """A reply beside the current one that was rated down, or not at all, is not learned."""
    record = open_webui()
    record["chat"]["history"]["messages"]["w6"]["annotation"]["rating"] = -1
    assert set(saliences(record)) == {"w2:1", "w2", "w5", "w8"}


def test_feedback_outside_the_snapshot_changes_nothing() -> None:
    """A rating of a message that the chat does not hold leaves the chat's own ratings."""
    record = open_webui_feedback()
    record["meta"]["message_id"] = "elsewhere"
    assert saliences(record) == saliences(open_webui())


def test_feedback_without_a_chat_is_named() -> None:
    """A feedback whose chat was not exported has nothing to learn from, and says so."""
    replies, told = read([{**open_webui_feedback(), "snapshot": None}])
    assert replies == []
    assert [(line, why.partition(":")[0]) for line, why in told] == [("line 1", "snapshot")]


@pytest.mark.parametrize(
    "content",
    [
        '<details type="tool_calls" done="false" id="k" name="tide">\n<summary>Executing...</summary>\n</details>\n',
        '<details type="tool_calls" done="true">\n<summary>Tool Executed</summary>\n</details>\nNine.',
        '<details type="tool_calls" done="true" id="k" name="tide"',
        '<details type="reasoning" done="false">\n<summary>Thinking</summary>\n> hm',
        '<details type="code_interpreter" done="true" output="1">\n```python\n1\n```\n</details>\nNine.',
    ],
)
def test_call_that_cannot_be_read_is_not_learned(content: str) -> None:
    """A reply with a call that is unfinished or cannot be read is context only, up to the next question."""
    first = [note("a", None, "user", "Tide?"), note("b", "a", "assistant", content)]
    found = saliences(chat_of(*first, note("c", "b", "user", "Low?"), note("d", "c", "assistant", "Three.")))
    assert found == {"d": 0.7}


def test_result_may_stand_in_the_body() -> None:
    """A tool's result is read from the attribute, or from the body of the block where newer versions write it."""
    body = DETAILS.replace(' result="&quot;nine&quot;"', "").replace(
        "Executed</summary>\n", "Executed</summary>\nnine\n"
    )
    asked = note("w1", None, "user", "When is high water?")
    found = [read([chat_of(asked, note("w2", "w1", "assistant", content))])[0] for content in (DETAILS, body)]
    assert [one.messages[-1].text for one in found[0]] == ["When is high water?", "nine"]
    assert [shape(one) for one in found[0]] == [shape(one) for one in found[1]]
    assert found[1][1].messages[-1].text == "nine"


@pytest.mark.parametrize(
    "content",
    [
        '<details type="reasoning">' * 200_000,
        '<details type="reasoning"' * 200_000,
        '<details type="tool_calls"' + "a" * 2_000_000 + ">" + " " * 2_000_000 + "</details>",
    ],
)
def test_many_openings_take_linear_work(content: str) -> None:
    """A text of many beginnings without an end, and a long one of nothing, are gone through once."""
    asked = note("a", None, "user", "Tide?")
    assert read([chat_of(asked, note("b", "a", "assistant", content))]) == ([], [])


def test_files_and_failures_are_not_learned() -> None:
    """A reply to a file, one that failed and one that is still being written are not learned."""
    asked, files = note("a", None, "user", "Tide?"), note("a", None, "user", "Tide?", files=[{"type": "image"}])
    said = note("b", "a", "assistant", "Nine.")
    assert saliences(chat_of(asked, said)) == {"b": 0.7}
    assert saliences(chat_of(files, said)) == {}
    assert saliences(chat_of(asked, {**said, "done": False})) == {}
    assert saliences(chat_of(asked, {**said, "error": {"content": "no model"}})) == {}


def test_unknown_current_message_is_told() -> None:
    """Where ``currentId`` names nothing, the way to the last message is read and the reason says so."""
    record = open_webui()
    record["chat"]["history"]["currentId"] = "gone"
    replies, told = read([record])
    assert [one.id for one in replies][-1] == "dock/w6"
    ((_, reason),) = told
    assert re.match("chat.history.currentId: .* 4 char", reason)


def test_flat_messages_are_read() -> None:
    """A chat without a tree, as old versions wrote it, is read in order."""
    messages = [note("a", None, "user", "Tide?"), note("b", None, "assistant", "Nine.")]
    assert saliences({"id": "dock", "chat": {"messages": messages}}) == {"b": 0.7}


# --- ChatGPT ---


def test_chatgpt_summed_thoughts_are_left_out() -> None:
    """Thoughts and recaps are another model's summaries; texts of the assistant in a row are one reply."""
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "x", "content": "y"}]}
    more = [
        node("h1", "g9", "user", parts("Neap?")),
        node("h2", "h1", "assistant", thoughts),
        node("h3", "h2", "assistant", {"content_type": "reasoning_recap", "content": "Thought for 2s"}),
        node("h4", "h3", "assistant", parts("Let me see.")),
        node("h5", "h4", "assistant", parts("Soon.")),
    ]
    record = chatgpt_export()
    record["mapping"] |= {one["id"]: one for one in more}
    record["current_node"] = "h5"
    assert shape(read([record])[0][-1]) == "suatauau > Let me see.||Soon."


def test_chatgpt_weight_and_pictures_are_not_learned() -> None:
    """``weight`` 0 is context only; a reply to a picture or to a file is not learned."""
    record = chatgpt_export()
    record["mapping"]["g6"]["message"]["weight"] = 0
    assert saliences(record) == {"g4": 0.7, "g9": 0.8}
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    record["mapping"]["g3"]["message"]["content"] = {"content_type": "multimodal_text", "parts": [picture, "Tide?"]}
    assert saliences(record) == {"g9": 0.8}
    record["mapping"]["g7"]["message"]["metadata"] = {"attachments": [{"id": "file-x"}]}
    assert saliences(record) == {}


# --- LibreChat ---


def test_librechat_tree_is_read() -> None:
    """An export with children inside of their parents gives what the flat one gives."""
    first, liked, chosen, low, last = librechat()["messages"]
    tree = [{**first, "children": [liked, {**chosen, "children": [{**low, "children": [last]}]}]}]
    record = {key: value for key, value in librechat().items() if key != "messages"}
    assert read([{**record, "recursive": True, "messagesTree": tree}])[0] == read([librechat()])[0]


def test_librechat_newest_message_is_the_current_one() -> None:
    """With dates, the newest message of an export with branches is the current one, wherever it stands."""
    record = librechat()
    for minute, one in zip((0, 9, 1, 2, 3), record["messages"], strict=True):
        one["createdAt"] = f"2026-11-02T08:0{minute}:00.000Z"
    assert saliences(record) == {"l2": 1.0}


def test_librechat_unfinished_reply_is_not_learned() -> None:
    """A reply that failed or is unfinished is context only."""
    record = librechat()
    record["messages"].append(letter("l6", "l5", True, "Neap?"))
    record["messages"].append(letter("l7", "l6", False, "Soo", unfinished=True))
    assert "l7" not in saliences(record)
    del record["messages"][-1]["unfinished"]
    assert "l7" in saliences(record)
