"""Sessions that grow line by line: OpenClaw and pi, Claude Code, Codex, SillyTavern."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pytest

from tests.tree_samples import (
    SESSIONS,
    TREE_SAMPLES,
    as_lines,
    claude_code,
    codex,
    copied,
    entry,
    figures,
    gave,
    item,
    line,
    openclaw,
    part,
    read,
    shape,
    sillytavern,
    text,
    used,
)


def shapes(records: Any) -> list[str]:
    return [shape(one) for one in read(records)[0]]


def reasons(records: Any) -> list[str]:
    return [reason for _, reason in read(records)[1]]


UNDERSTOOD = {
    "openclaw": [
        ("quay/e2", 0.7, 'u > <think>|the table|</think>|||read({"path":"tide.txt"})'),
        ("quay/e4", 0.7, "uat > High water is at nine."),
        ("quay/e6", 0.7, "uatau > At three."),
    ],
    "claude_code": [
        ("pier/m1", 0.7, 'u > <think>|two tables|</think>||I look.|Read({"file":"t1"})|Read({"file":"t2"})'),
        ("pier/m2", 0.7, "uatt > Nine, or ten."),
        ("pier/m3", 0.7, "uattau > At three."),
    ],
    "codex": [
        ("mole#1", 0.7, 'suu > <think>|the table|</think>||I look.|shell({"command":["cat"]})'),
        ("mole#2", 0.7, "suuat > Nine."),
        ("mole#3", 0.7, "suuatau > Three."),
    ],
    "sillytavern": [
        ("weir#2", 0.8, "u > At nine."),
        ("weir#3", 0.7, "uau > <think>|hm|</think>||At three."),
    ],
}


@pytest.mark.parametrize("name", SESSIONS)
def test_session_is_understood(name: str) -> None:
    """Turns, supervised replies and salience of a sample are what its program's documents say."""
    replies, told = read(TREE_SAMPLES[name])
    assert [(one.id, one.salience, shape(one)) for one in replies] == UNDERSTOOD[name]
    assert told == []


@pytest.mark.parametrize("name", SESSIONS)
def test_growing_session_keeps_what_it_had(name: str) -> None:
    """Each beginning of a file, cut at any byte, gives the first replies of the whole: ids, hashes and conversation."""
    data = as_lines(TREE_SAMPLES[name])
    whole = figures(data)
    seen = set()
    for end in [*range(data.index(b"\n") + 1, len(data), 7), len(data)]:
        found = figures(data[:end])
        assert found == whole[: len(found)]
        seen.add(len(found))
    assert seen == set(range(len(whole) + 1))


# --- OpenClaw and pi ---


def test_openclaw_reads_the_branch_of_the_last_entry() -> None:
    """A branch that was left is not read; its summary is a message of the user."""
    records = [
        *openclaw(),
        entry("e7", "e4", None, type="branch_summary", fromId="e6", summary="Low water was asked for."),
        entry("e8", "e7", {"role": "user", "content": "Neap tide?"}),
        entry("e9", "e8", {"role": "assistant", "content": text("In a week.")}),
    ]
    replies, told = read(records)
    assert [one.id for one in replies] == ["quay/e2", "quay/e4", "quay/e9"]
    assert "Low water was asked for." in replies[-1].messages[-2].text
    assert told == []


def test_openclaw_summary_stands_in_for_missing_messages_only() -> None:
    """A compaction behind its messages is left out; one at the beginning is the first message."""
    compaction = entry("k", "e6", None, type="compaction", summary="Tides.", firstKeptEntryId="e5")
    more = [
        compaction,
        entry("e7", "k", {"role": "user", "content": "Neap?"}),
        entry("e8", "e7", {"role": "assistant", "content": text("Soon.")}),
    ]
    assert shapes([*openclaw(), *more])[-1] == "uatauau > Soon."
    alone = [openclaw()[0], {**compaction, "parentId": None}, *more[1:]]
    assert shapes(alone) == ["uu > Soon."]
    assert "<summary>\nTides.\n</summary>" in read(alone)[0][0].messages[0].text


def test_openclaw_failed_reply_is_no_context() -> None:
    """A reply that failed or was stopped is left out, as pi does; one cut off by a limit of tokens is context only."""
    for stop, expected in (("error", "uu > At three."), ("aborted", "uu > At three."), ("length", "uau > At three.")):
        records = [
            openclaw()[0],
            entry("a", None, {"role": "user", "content": "When is high water?"}),
            entry("b", "a", {"role": "assistant", "content": text("At"), "stopReason": stop}),
            entry("c", "b", {"role": "user", "content": "And low water?"}),
            entry("d", "c", {"role": "assistant", "content": text("At three.")}),
        ]
        assert shapes(records) == [expected]


def test_openclaw_linear_entries_are_read() -> None:
    """Entries of version 1 have no names and follow each other."""
    records = [{key: each[key] for key in each if key not in ("id", "parentId")} for each in openclaw()[1:]]
    assert shapes([{**openclaw()[0], "version": 1}, *records]) == shapes(openclaw())


def test_openclaw_image_is_not_learned_from() -> None:
    """A reply to an image, or to a result of a tool that is one, is not learned; the next question is."""
    records = openclaw()
    records[4]["message"]["content"].append({"type": "image", "data": "", "mimeType": "image/png"})
    assert [one.id for one in read(records)[0]] == ["quay/e2", "quay/e6"]


def test_openclaw_two_sessions_in_one_file() -> None:
    """A second header begins another conversation, whose entries may have the same names."""
    second = [copied(one) for one in openclaw()]
    second[0]["id"] = "ness"
    replies, told = read([*openclaw(), *second])
    assert [one.id for one in replies][3:] == ["ness/e2", "ness/e4", "ness/e6"]
    assert told == []


@pytest.mark.parametrize(
    ("name", "place", "change", "reason"),
    [
        ("openclaw", 0, {"version": 9}, "version: expected 1 to 3, found 9; the session is read as one of version 3"),
        ("claude_code", 1, {"version": "3.0.1"}, "version: expected 1 or 2, found 3; its lines are read as those of"),
    ],
)
def test_unknown_version_is_told(name: str, place: int, change: dict[str, Any], reason: str) -> None:
    """A version that is not known is told once, and what can be read of it is read."""
    records = [*TREE_SAMPLES[name]]
    records[place] = {**records[place], **change}
    assert [told[: len(reason)] for told in reasons(records)] == [reason]
    assert shapes(records) == shapes(TREE_SAMPLES[name])


# --- Claude Code ---


def test_claude_code_parts_are_one_message() -> None:
    """Lines of one message with results of its calls between them are one reply with all of its calls."""
    mixed = claude_code()
    mixed[5], mixed[6] = mixed[6], mixed[5]
    assert shapes(mixed) == shapes(claude_code())


def test_claude_code_unmarked_end_waits() -> None:
    """A reply whose end is not marked counts once the user, or the program, has written something behind it."""
    records = claude_code()
    records[-1]["message"]["stop_reason"] = None
    assert len(shapes(records)) == 2
    behind = line("d2", "d1", "system", None, subtype="turn_duration")
    assert len(shapes([*records, behind])) == 3
    assert len(shapes([*records, line("d2", "d1", "user", {"role": "user", "content": "Thanks."})])) == 3


def test_claude_code_subagent_is_a_conversation_of_its_own() -> None:
    """The lines of a subagent between those of the agent are read apart, and change nothing of the agent's."""
    side = {"isSidechain": True}
    inside = [
        line("s1", None, "user", {"role": "user", "content": "Find the table."}, **side),
        line("s2", "s1", "assistant", part("n1", {"type": "text", "text": "Found."}, "end_turn"), **side),
    ]
    records = claude_code()
    replies, told = read([*records[:6], *inside, *records[6:]])
    assert sorted(one.id for one in replies) == ["pier/m1", "pier/m2", "pier/m3", "pier/n1"]
    assert len({one.conversation for one in replies}) == 2
    assert told == []


def test_claude_code_goes_on_behind_a_compaction() -> None:
    """The chain goes on through ``logicalParentUuid``, and the summary of what stands in the file is left out."""
    more = [
        line("b", None, "system", None, subtype="compact_boundary", logicalParentUuid="d1"),
        line("b1", "b", "user", {"role": "user", "content": "Summary: tides."}, isCompactSummary=True),
        line("b2", "b1", "user", {"role": "user", "content": "Neap?"}),
        line("b3", "b2", "assistant", part("m4", {"type": "text", "text": "Soon."}, "end_turn")),
    ]
    assert shapes([*claude_code(), *more])[-1] == "uattauau > Soon."
    assert shapes(more) == ["uu > Soon."]


def test_claude_code_interrupted_reply_is_context() -> None:
    """A reply that the user interrupted, and an error that Claude Code wrote as the assistant, are not learned."""
    stopped = [{"type": "text", "text": "[Request interrupted by user]"}]
    error = {"id": "x", "role": "assistant", "model": "<synthetic>", "content": text("API Error: 529")}
    records = [
        line("u1", None, "user", {"role": "user", "content": "When is high water?"}),
        line("u2", "u1", "assistant", part("m1", {"type": "text", "text": "At"})),
        line("u3", "u2", "user", {"role": "user", "content": stopped}),
        line("u4", "u3", "user", {"role": "user", "content": "And low water?"}),
        line("u5", "u4", "assistant", error, isApiErrorMessage=True),
        line("u6", "u5", "assistant", part("m2", {"type": "text", "text": "At three."}, "end_turn")),
    ]
    assert shapes(records) == ["uauu > At three."]


def test_claude_code_result_without_call_is_named() -> None:
    """A tool's result that answers no call of the file is no context, and is named."""
    records = [
        line("u1", None, "user", {"role": "user", "content": "When is high water?"}),
        line("u2", "u1", "assistant", part("m1", used("t1"), "tool_use")),
        line("u3", "u2", "user", gave("t9", "nine")),
        line("u4", "u3", "assistant", part("m2", {"type": "text", "text": "At nine."}, "end_turn")),
    ]
    assert shapes(records)[-1] == "ua > At nine."
    assert [reason.partition(":")[0].rpartition(" ")[2] for reason in reasons(records)] == ["t9"]


def test_claude_code_copied_lines_say_nothing() -> None:
    """Lines that a resumed session copied change nothing; another text under one ``uuid`` is named."""
    assert read([*claude_code()[:4], *claude_code(), *claude_code()]) == read(claude_code())
    other = line("c9", "c8", "user", {"role": "user", "content": "Neap?"})
    assert [reason.partition(": ")[0] for reason in reasons([*claude_code(), other])] == ["message c9"]


# --- Codex ---


def test_codex_reads_items_alone() -> None:
    """Events repeat what items say, and change nothing; a rollout without marks of ends is read at once."""
    plain = [one for one in codex() if one["type"] != "event_msg"]
    assert shapes(plain) == shapes(codex())


def test_codex_reply_waits_for_its_end() -> None:
    """The text before a call is no reply of its own while the reply is being written."""
    records = codex()
    assert len(shapes(records[:8])) == 0
    assert len(shapes(records[:9])) == 0
    assert len(shapes(records[:10])) == 1


def test_codex_other_calls_are_read() -> None:
    """A custom tool's input, a local shell's command and a result in parts are understood."""
    output = {"content": [{"type": "input_text", "text": "done"}], "success": True}
    action = {"type": "exec", "command": ["ls"]}
    records = [
        *codex()[:5],
        item("response_item", type="custom_tool_call", name="apply_patch", input="*** Begin", call_id="k2"),
        item("response_item", type="local_shell_call", call_id="k3", status="completed", action=action),
        item("response_item", type="custom_tool_call_output", call_id="k2", output=output),
        item("response_item", type="function_call_output", call_id="k3", output="files"),
        item("response_item", type="message", role="assistant", content=text("Ready.")),
        item("event_msg", type="task_complete"),
    ]
    calls = 'suu > apply_patch({"input":"*** Begin"})|local_shell({"command":["ls"]})'
    assert shapes(records) == [calls, "suuatt > Ready."]


def test_codex_fork_is_one_conversation() -> None:
    """The header that a fork copied with the history is passed over; an unrelated one begins another conversation."""
    copy, other = codex(), codex()
    fork = item("session_meta", id="groyne", forked_from_id="mole")
    other[0]["payload"]["id"] = "cape"
    assert {one.id.split("#")[0] for one in read([fork, *copy])[0]} == {"groyne"}
    assert {one.id.split("#")[0] for one in read([*copy, *other])[0]} == {"mole", "cape"}


def test_codex_forks_stand_beside_their_origin() -> None:
    """A fork before or behind the rollout that it was copied from is a conversation of its own, and so is that one."""
    header = item("session_meta", id="groyne", forked_from_id="mole", base_instructions="You are Robin.")
    fork = [header, *codex()]
    for records in ([*fork, *codex()], [*codex(), *fork]):
        replies, told = read(records)
        assert sorted(one.id for one in replies) == [f"{name}#{n}" for name in ("groyne", "mole") for n in (1, 2, 3)]
        assert {shape(one) for one in replies} == set(shapes(codex()))
        assert told == []


@pytest.mark.parametrize("first", [3, 8, 15])
def test_codex_repeated_rollout_is_read_once(first: int) -> None:
    """A rollout whose beginning, or the whole of which, stands in the file already gives each reply once."""
    grown = item("response_item", type="message", role="assistant", content=text("And at nine again."))
    records = [*codex(), item("response_item", type="message", role="user", content=text("Then?")), grown]
    records.append(item("event_msg", type="task_complete"))
    found = figures([*codex()[:first], *records])
    assert list(dict.fromkeys(found)) == figures(records)
    assert len(figures(records)) == 4


def without_header() -> list[dict[str, Any]]:
    """A rollout whose header was cut off, with a time for each record."""
    times = (f"2026-11-02T08:00:{second:02}.500Z" for second in range(60))
    return [{**record, "timestamp": at} for record, at in zip(codex()[1:], times, strict=False)]


@pytest.mark.parametrize("first", [4, 9, 14])
def test_codex_repeated_rollout_without_header_is_read_once(first: int) -> None:
    """A rollout without a header, whose beginning or the whole of which stands in the file already, goes back to the
    time of its first record: each reply is given once, with the context that it had.
    """
    whole = without_header()
    found = figures([*whole[:first], *whole, *whole])
    assert list(dict.fromkeys(found)) == figures(whole)
    assert len(figures(whole)) == 3


@pytest.mark.parametrize("times", [(), ("then",), ["", *"abcdefghij"], [f"at {number}" for number in range(30)]])
def test_codex_same_words_without_header_are_said_again(times: Sequence[str]) -> None:
    """What is said again in the same words goes on where no time goes back: nothing tells a copy from it there."""
    one = [{key: value for key, value in record.items() if key != "timestamp"} for record in codex()[4:]]
    at = cycle(times)
    more = [{**record, "timestamp": next(at)} if times else record for record in (*one, *one)]
    assert len({shape.partition(" > ")[0] for shape in shapes(more)}) == 6


def test_codex_resumed_rollout_goes_on() -> None:
    """A second header with other records behind it is the same conversation, which goes on."""
    more = [
        {**item("response_item", type="message", role="user", content=text("Then?")), "timestamp": "2026-11-03T08:00Z"},
        item("response_item", type="message", role="assistant", content=text("At nine again.")),
        item("event_msg", type="task_complete"),
    ]
    assert shapes([*codex(), codex()[0], *more])[-1] == "suuatauau > At nine again."


@pytest.mark.parametrize(
    ("count", "left"), [(1, "suuatau"), (2, "suu"), (10**12, "suu"), (0, "suuatauau"), (-1, "suuatauau")]
)
def test_codex_question_taken_back_is_gone(count: int, left: str) -> None:
    """What the user took back is neither learned nor context; what Codex said first stays."""
    behind = [
        item("response_item", type="message", role="user", content=text("Then?")),
        item("response_item", type="message", role="assistant", content=text("At nine again.")),
        item("event_msg", type="task_complete"),
    ]
    found = shapes([*codex(), item("event_msg", type="thread_rolled_back", num_turns=count), *behind])
    assert found[-1] == f"{left} > At nine again."


def test_codex_unknown_item_cuts() -> None:
    """A damaged question is named, and no reply is learned as the answer to the one before it."""
    records = codex()
    records[12]["payload"]["role"] = 5
    replies, told = read(records)
    assert [one.id for one in replies] == ["mole#1", "mole#2"]
    assert [(line, why.partition(":")[0]) for line, why in told] == [("line 13", "payload.role")]


# --- SillyTavern ---


def test_sillytavern_calls_are_read() -> None:
    """The calls of tools that a hidden message holds are the character's; a picture is not learned from."""
    called = {"id": "k1", "name": "tide", "parameters": '{"on":1}', "result": "nine"}
    hidden = {"name": "ST", "is_user": False, "is_system": True, "mes": "", "extra": {"tool_invocations": [called]}}
    records = sillytavern()
    assert shapes([*records[:3], hidden, *records[3:4]]) == ['u > tide({"on":1})', "uat > At nine."]
    records[2]["extra"] = {"image": "x.png"}
    assert [one.id for one in read(records)[0]] == ["weir#3"]


def test_sillytavern_chats_in_one_file_stay_apart() -> None:
    """Each header begins a chat: the same one again gives each reply once, another one is a conversation of its own."""
    other = [copied(one) for one in sillytavern()]
    other[0]["chat_metadata"] = {"integrity": "lock"}
    found = figures([*sillytavern(), *sillytavern(), *other])
    assert list(dict.fromkeys(found))[:2] == figures(sillytavern())
    assert [one[0] for one in dict.fromkeys(found)][2:] == ["lock#2", "lock#3"]
    assert len({one[2] for one in found}) == 2


def test_greeting_alone_is_no_fault() -> None:
    """A chat in which nobody asked anything yet has nothing to learn, and nothing to complain of."""
    assert read(sillytavern()[:2]) == ([], [])
