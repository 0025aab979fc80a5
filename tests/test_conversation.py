"""Tests of what can be learned of a conversation: one example a reply, its context, its side of the split."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer import said_before
from sleepd.buffer.conversation import (
    CONTEXT_CHARACTERS,
    CONTEXT_MESSAGES,
    SECTION_REPLIES,
    Conversation,
    SupervisedReply,
    Turn,
    supervised_replies,
)
from sleepd.buffer.experience import (
    Experience,
    content_hash,
    content_hash_of,
    conversation_of,
    derived_id,
    group_of,
    hash_text,
)
from sleepd.buffer.masking import masked_example
from sleepd.buffer.reply_digest import answer_of
from sleepd.buffer.said_before import SaidBefore
from sleepd.policy.selecting.context_cut import without_held_out
from sleepd.protocol.chat_example import Message, MessageRole, ToolCall
from tests.kept import kept

SHORT: dict[str, MessageRole] = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def turn(text: str, **more: object) -> Turn:
    """``u: Who?`` as a turn; of the assistant ``a!: look`` calls a tool of that name."""
    head, _, said = text.partition(": ")
    calls = (ToolCall(name=said),) if head.endswith("!") else ()
    message = Message(role=SHORT[head[0]], text="" if calls else said, calls=calls)
    return Turn(message=message, **more)


def talk(*texts: str, **more: object) -> Conversation:
    """A conversation of such turns."""
    return Conversation(turns=[turn(text) for text in texts], **more)


def replies(conversation: Conversation) -> list[SupervisedReply]:
    """What can be learned of it."""
    return [each for each in supervised_replies(conversation) if not isinstance(each, str)]


def long_talk(count: int, **more: object) -> Conversation:
    """So many questions with their answers."""
    return talk(*(line for n in range(count) for line in (f"u: question {n}", f"a: answer {n}")), **more)


def contexts(found: Sequence[SupervisedReply]) -> list[list[str]]:
    """The texts before each reply."""
    return [[one.whole_text for one in reply.experience(0.7).messages] for reply in found]


def test_two_messages_are_plain_experience() -> None:
    """One prompt and one reply have the id, the group and the side that the short form has."""
    (found,) = replies(talk("u: Who?", "a: Martha."))
    one = found.experience(0.7)
    assert (one.context, one.prompt, one.response, one.salience) == ((), "Who?", "Martha.", 0.7)
    assert (found.id, found.group) == (derived_id("Who?", "Martha."), content_hash("Who?", "Martha."))
    assert found.conversation_hash == found.group == group_of(one) == conversation_of(one)


def test_each_reply_has_what_stood_before() -> None:
    """System message, earlier turns, calls and results stand in the context, in their order."""
    found = replies(
        talk("s: You are Robin.", "u: When?", "a!: look", "t: 06:12", "a: At 06:12.", "u: Sure?", "a: Yes.")
    )
    assert contexts(found) == [
        ["You are Robin.", "When?"],
        ["You are Robin.", "When?", "look({})", "06:12"],
        ["You are Robin.", "When?", "look({})", "06:12", "At 06:12.", "Sure?"],
    ]
    assert [one.experience(0.7).whole_response for one in found] == ["look({})", "At 06:12.", "Yes."]


def test_context_only_replies_are_not_learned() -> None:
    """A reply that is not supervised, is empty, answers nothing or answers an image is context at most."""
    turns = [
        turn("a: Hello!"),
        turn("u: Hi"),
        turn("a: Go away.", is_supervised=False),
        turn("u: Please"),
        turn("a:  "),
    ]
    turns += [turn("u: (image)", is_opaque=True), turn("a!: look"), turn("t: cats"), turn("a: A cat.")]
    turns += [turn("u: Thanks"), turn("a: Welcome.")]
    assert [one.turn.message.text for one in replies(Conversation(turns=turns))] == ["Welcome."]
    (reason,) = [each for each in supervised_replies(Conversation(turns=turns)) if isinstance(each, str)]
    assert reason == kept("unseen-question", reason)


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["s: A", "s: B", "u: q", "a: r", "s: C", "u: q2", "a: r2"], ["A", "B", "q", "r", "C", "q2"]),
        (["s: A", *(["u: q", "a: r"] * 16), "s: B", "u: last", "a: end"], ["A", "B", "last"]),
        (["s: A", "u: q", "a: r", "s: B", *(["u: q", "a: r"] * 15), "u: last", "a: end"], ["A", "B", "last"]),
        (["s: A", "u: q", "a: r", "s: B", "s: C", *(["u: q", "a: r"] * 15), "u: last", "a: end"], ["A", "C", "last"]),
        (
            ["s: A", "u: q", "a: r", "s: B", f"u: {'x' * CONTEXT_CHARACTERS}", "a: r", "u: last", "a: end"],
            ["A", "B", "last"],
        ),
    ],
)
def test_governing_system_message_stays(lines: list[str], kept: list[str]) -> None:
    """After a cut the system messages at the start stay, and the last one before what is kept."""
    assert contexts(replies(talk(*lines)))[-1] == kept


def test_system_message_in_a_loop_of_tools_stays() -> None:
    """Where calls of tools were cut away, the last system message among them stays."""
    calls = [f"a!: look{n}" if n % 2 else f"t: {'x' * 900}" for n in range(1, 2 * CONTEXT_MESSAGES)]
    found = contexts(replies(talk("s: A", "u: Go.", *calls[:10], "s: B", *calls[10:], "a: end")))[-1]
    assert found[:3] == ["A", "Go.", "B"]
    assert found[3].startswith("look")


OPENING = ("s: You are Robin.", "u: example", "a: shown")


@pytest.mark.parametrize(
    ("requests", "sides"),
    [
        # An opening that all share is context; what follows it tells the conversations apart.
        ([("u: p", "a: P"), ("u: q", "a: Q"), ("u: p", "a: P", "u: p2", "a: P2")], [0, 1, 0]),
        (
            [("u: p", "a: P"), ("u: p", "a: P", "u: p2", "a: P2"), ("u: p", "a: P", "u: p2", "a: P2", "u: 3", "a: 3")],
            [0, 0, 0],
        ),
        # A log that begins in the middle: what it does not hold is an opening.
        ([("u: o", "a: O", "u: p", "a: P"), ("u: o", "a: O", "u: p", "a: P", "u: q", "a: Q")], [0, 0]),
    ],
)
@pytest.mark.parametrize("opening", [(), OPENING])
def test_shared_opening_is_no_conversation(
    requests: list[tuple[str, ...]], sides: list[int], opening: tuple[str, ...]
) -> None:
    """Requests that begin with the same examples are different conversations, and each keeps its side as it grows."""
    before, found = SaidBefore(), []
    for lines in requests:
        turns = [turn(each, is_supervised=False) for each in (*opening, *lines)]
        turns[-1] = turn(lines[-1])
        (reply,) = replies_after(before, Conversation(turns=turns, is_whole=False))
        found.append(reply.conversation_hash)
        before = SaidBefore(before.entries())
    assert [list(dict.fromkeys(found)).index(side) for side in found] == sides


def replies_after(before: SaidBefore, conversation: Conversation) -> list[SupervisedReply]:
    """What can be learned of a request, and is known afterwards."""
    found = [each for each in supervised_replies(conversation, before) if not isinstance(each, str)]
    for each in found:
        assert each.said is not None
        before.add(each.said, each.key)
    return found


def test_greeting_of_many_begins_no_conversation() -> None:
    """A first reply that several conversations have, under ids of their own, does not put them all on one side."""
    before = SaidBefore()
    greeting = [turn("u: hi"), turn("a: Hello!", is_supervised=False)]
    for number in range(2):
        hello = [turn("u: hi"), turn("a: Hello!", id=f"chat-{number}", is_id_unique=False)]
        replies_after(before, Conversation(turns=hello, is_whole=False))
    sides = [
        replies_after(before, Conversation(turns=[*greeting, turn(f"u: {n}"), turn(f"a: {n}")], is_whole=False))
        for n in range(9)
    ]
    assert len({each[0].conversation_hash for each in sides}) == 9


def test_known_replies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept, whether a log is read at once or piece by piece."""
    monkeypatch.setattr(said_before, "MOST_REPLIES", 3)
    at_once, again = SaidBefore(), SaidBefore()
    for number in range(1, 9):
        at_once.add(number, number)
        again = SaidBefore(again.entries())
        again.add(number, number)
    assert list(at_once.entries()) == list(again.entries()) == [6, 6, 7, 7, 8, 8]


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        (("u: p", "a: P"), ("u: q", "a: Q"), 2),
        (("u: p", "a: P"), ("u: p", "a: P"), 1),
        (("u: p", "a: P", "u: y", "a: ok"), ("u: q", "a: Q", "u: y", "a: ok"), 2),
    ],
)
def test_repeated_server_id_loses_no_reply(one: tuple[str, ...], other: tuple[str, ...], count: int) -> None:
    """Of replies to which a server gave one id each counts; the same reply in the same context is one."""
    ids = set()
    for lines in (one, other):
        turns = [turn(each, is_supervised=False) for each in lines[:-1]]
        turns.append(turn(lines[-1], id="chatcmpl-0", is_id_unique=False))
        (reply,) = replies(Conversation(turns=turns, is_whole=False))
        ids.add(reply.id)
        assert reply.rated_as[0] == "chatcmpl-0"
    assert len(ids) == count


def test_long_conversation_is_cut_into_sections() -> None:
    """Sections are sides of their own, and no context reaches across a cut."""
    found = replies(long_talk(3 * SECTION_REPLIES))
    sides = [one.conversation_hash for one in found]
    assert [sides.count(side) for side in dict.fromkeys(sides)] == [SECTION_REPLIES] * 3
    assert contexts(found)[SECTION_REPLIES] == [f"question {SECTION_REPLIES}"]
    assert len(contexts(found)[2 * SECTION_REPLIES - 1]) == 2 * SECTION_REPLIES - 1


@given(st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_growth_changes_nothing_before(count: int, more: int, is_named: bool) -> None:
    """A conversation that grows keeps the ids, groups and sides of what it had."""
    name = "c1" if is_named else ""
    before, after = replies(long_talk(count, id=name)), replies(long_talk(count + more, id=name))
    figures = [(one.id, one.group, one.conversation_hash) for one in after]
    assert figures[:count] == [(one.id, one.group, one.conversation_hash) for one in before]


def test_repeated_history_is_learned_once() -> None:
    """Requests that repeat the history have, without any ids, one id a reply and one side for all."""
    requests = [long_talk(count, is_whole=False) for count in (1, 2, 3)]
    found = [replies(request)[-1] for request in requests]
    assert len({one.conversation_hash for one in found}) == 1
    assert [one.id for one in found] == [one.id for one in replies(requests[-1])]


@pytest.mark.parametrize("size", [10, 2_000, CONTEXT_CHARACTERS])
def test_context_is_bounded(size: int) -> None:
    """However much stands before a reply, its context is bounded and begins with the system and a user's message."""
    lines = ["s: You are Robin.", "u: Go."]
    for number in range(CONTEXT_MESSAGES):
        lines += [f"a!: look{number}", f"t: {'x' * size}"]
    *_, last = replies(talk(*lines))
    messages = last.experience(0.7).messages
    assert [one.role for one in messages[:3]] == ["system", "user", "assistant"]
    assert len(messages) <= CONTEXT_MESSAGES + 2
    assert [one.role for one in messages[-2:]] == ["assistant", "tool"]
    assert sum(len(one.whole_text) for one in messages[2:]) <= max(CONTEXT_CHARACTERS, size + 20)


def test_group_is_that_of_what_is_trained() -> None:
    """The group that the reader gives is that of the experience with its texts; a changed context changes it."""
    one, other = (replies(talk(f"s: {who}", "u: Hi", "a: Yes?", "u: When?", "a: Now."))[-1] for who in ("A", "B"))
    assert one.group == group_of(one.experience(0.5)) != other.group
    assert one.id == other.id  # a system message with a clock makes no other reply


def test_held_out_replies_leave_trained_contexts() -> None:
    """A context is cut behind the last held-out reply in it; a reply with nothing left to answer is not trained."""
    window = talk("u: b", "a: B", "u: c", "a: C", "u: d", "a: D", is_whole=False)
    held_out = {answer_of(replies(talk("u: c", "a: C"))[0].experience(0.7))}
    trained = replies(window)[-1].experience(0.7)
    cut = without_held_out(trained, held_out)
    assert cut is not None
    assert [one.text for one in cut.context] == ["d"]
    assert (cut.unmasked, cut.conversation) == (hash_text(group_of(trained)), trained.conversation)
    assert cut.answers == ()
    alone = without_held_out(msgspec.structs.replace(trained, conversation=""), held_out)
    assert alone is not None
    assert alone.conversation == hash_text(content_hash_of(trained))
    assert without_held_out(trained, set()) is trained
    tools = replies(talk("u: c", "a!: look", "t: r", "a: R"))
    assert without_held_out(tools[1].experience(0.7), {answer_of(tools[0].experience(0.7))}) is None


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_cut_of_masked_context_knows_its_replies(masks: bool, again: bool) -> None:
    """A context whose personal data were masked, once or twice, is cut where the texts before were held out."""
    asked = ("u: Mail to anna.berg@example.org?", "a: Sent to anna.berg@example.org.")
    window = talk(*asked, "u: And bob.kidd@example.org?", "a: Sent to bob.kidd@example.org.", "u: Sure?", "a: Yes.")
    trained = replies(window)[-1].experience(0.7)
    for _ in range(masks + (masks and again)):
        trained, _ = masked_example(trained)
    assert ("anna" in trained.context[1].text) == (not masks)
    first, second = (one.experience(0.7) for one in replies(window)[:2])
    cut = without_held_out(trained, {answer_of(first)})
    assert cut is not None
    assert [one.role for one in cut.context] == ["user", "assistant", "user"]
    cut = without_held_out(cut, {answer_of(second)})
    assert cut is not None
    assert [one.text for one in cut.context] == ["Sure?"]


def test_cut_at_held_out_reply_keeps_system_message() -> None:
    """The system messages at the start stay, and the last one before what is kept."""
    window = talk("s: A", "u: a", "a: A", "s: B", "s: C", "u: b", "a: B", "u: c", "a: C")
    held_out = {answer_of(replies(window)[1].experience(0.7))}
    cut = without_held_out(replies(window)[-1].experience(0.7), held_out)
    assert cut is not None
    assert [one.text for one in cut.context] == ["A", "C", "c"]


def test_thought_in_a_log_changes_no_side() -> None:
    """A reply that is logged with its thought and repeated without it is on one side, and is found in contexts."""
    first = talk("u: q1", "a: <think>hm</think>A", is_whole=False)
    later = talk("u: q1", "a: A", "u: q2", "a: B", is_whole=False)
    assert len({one.conversation_hash for one in replies(first) + replies(later)}) == 1
    held_out = {answer_of(replies(first)[0].experience(0.7))}
    cut = without_held_out(replies(later)[-1].experience(0.7), held_out)
    assert cut is not None
    assert [one.text for one in cut.context] == ["q2"]


def test_names_of_arguments_change_no_answer() -> None:
    """The same arguments in another order, or with other blanks, are the same answer."""
    calls = [(ToolCall(name="f", arguments=text),) for text in ('{"a":1,"b":2}', '{"b": 2, "a": 1}')]
    asked = Message(role="user", text="q")
    one, other = (
        answer_of(Experience(id="x", salience=1, prompt="q", response="", context=(asked,), calls=each))
        for each in calls
    )
    assert one == other
