"""Trees of messages: the way to the current one, circles, missing messages, and very many of them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sleepd.buffer.conversation import Turn
from sleepd.buffer.formats.shared_parts.message_tree import (
    MessageTree,
    answered,
    beside,
    chosen,
    last_of_each,
    read_path,
    turn_id,
)
from sleepd.protocol.chat_example import Message, ToolCall

MANY = 100_000


def grown(*links: tuple[str, str]) -> MessageTree:
    tree = MessageTree()
    for name, parent in links:
        tree.add(name, parent)
    return tree


def turn(role: str, text: str = "x", **more: object) -> Turn:
    return Turn(message=Message(role=role, text=text, **more))


def test_path_leaves_branches_out() -> None:
    """The way from the first message to the leaf holds neither siblings nor their children."""
    tree = grown(("a", ""), ("b", "a"), ("c", "a"), ("d", "b"), ("e", "c"))
    assert tree.settle() == (dict.fromkeys("abcde", "a"), [])
    assert tree.path("e") == ["a", "c", "e"]


def test_circle_is_cut_and_told() -> None:
    """A circle becomes a way that begins with the message of it that came first, and the reason names that one."""
    tree = grown(("a", "c"), ("b", "a"), ("c", "b"), ("d", "c"))
    firsts, problems = tree.settle()
    assert set(firsts.values()) == {"a"}
    (problem,) = problems
    assert re.match("message a: .* circle", str(problem))
    assert tree.path("d") == ["a", "b", "c", "d"]


def test_message_that_follows_itself_is_read() -> None:
    """The shortest circle is one message."""
    tree = grown(("a", "a"), ("b", "a"))
    _, problems = tree.settle()
    assert len(problems) == 1
    assert tree.path("b") == ["a", "b"]


def test_message_may_be_called_nothing() -> None:
    """A message whose name is empty is one like the others, and no parent of those that have none."""
    tree = grown(("", ""), ("a", ""), ("b", "a"))
    assert tree.settle() == ({"": "", "a": "a", "b": "a"}, [])
    assert tree.path("") == [""]
    assert tree.path("b") == ["a", "b"]


def test_missing_message_is_told() -> None:
    """What follows a message that is not there hangs together, and the reason names both."""
    tree = grown(("a", ""), ("c", "b"), ("d", "c"))
    firsts, problems = tree.settle()
    assert firsts == {"a": "a", "c": "c", "d": "c"}
    (problem,) = problems
    assert re.match("message c: .*, b,", str(problem))
    assert last_of_each("acd", firsts) == ["a", "d"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 31)), max_size=60))
def test_any_links_make_ways(links: list[tuple[int, int]]) -> None:
    """Whatever follows what, each message lies on one finite way that begins where its tree does."""
    tree = grown(*((str(name), str(parent)) for name, parent in links))
    firsts, _ = tree.settle()
    for name, first in firsts.items():
        path = tree.path(name)
        assert path[0] == first
        assert path[-1] == name
        assert len(set(path)) == len(path)


def test_long_chain_needs_no_recursion() -> None:
    """A chain of 100,000 messages is walked, and so is a circle of as many."""
    tree = grown(*((str(number), str(number - 1)) for number in range(MANY)))
    _, problems = tree.settle()
    assert len(tree.path(str(MANY - 1))) == MANY
    assert len(problems) == 1  # the first follows "-1"
    circle = grown(*((str(number), str((number - 1) % MANY)) for number in range(MANY)))
    _, problems = circle.settle()
    assert len(problems) == 1
    assert len(circle.path(str(MANY - 1))) == MANY


def test_rated_branches_are_bounded() -> None:
    """Rated replies beside a long path are read while their ways are short altogether; the others are named."""
    links = [(f"p{number}", f"p{number - 1}" if number else "") for number in range(10_000)]
    tree = grown(*links, *((f"s{number}", "p9998") for number in range(100)))
    tree.settle()
    ways, problems = beside(tree, tree.path("p9999"), [f"s{number}" for number in range(100)])
    assert len(ways) + len(problems) == 100
    assert sum(map(len, ways)) < 250_000
    assert re.match("message s20: .* rated", str(problems[0]))


def test_chosen_branch_counts_to_the_next_question() -> None:
    """All replies of the chosen branch are 0.8 up to the next message of the user; a rated one keeps its rating."""
    turns = {
        "q": [turn("user")],
        "a": [turn("assistant")],
        "t": [turn("tool")],
        "b": [Turn(message=Message(role="assistant", text="x"), salience=1.0)],
        "r": [turn("user")],
        "c": [turn("assistant")],
    }
    found = chosen(turns, turns, {"a"})
    assert [found[name][0].salience for name in "atbc"] == [0.8, 0.8, 1.0, None]


def test_unread_message_cuts_the_conversation() -> None:
    """No reply is learned as the answer to the message before the one that it answers."""
    turns = {"a": [turn("user")], "b": [turn("assistant")], "d": [turn("assistant")]}
    found = list(read_path("abcd", turns, "k", system="S"))
    assert [[one.message.role for one in part.turns] for part in found] == [
        ["system", "user", "assistant"],
        ["system", "assistant"],
    ]


def test_result_without_call_is_named() -> None:
    """A tool's result counts only behind the call that it answers."""
    asked = turn("assistant", calls=(ToolCall(name="read", id="k1"),))
    whole, orphans = answered([turn("tool", call_id="k1"), asked, turn("tool", call_id="k1"), turn("tool")])
    assert [one.message.role for one in whole] == ["assistant", "tool"]
    assert ["k1" in str(one) for one in orphans] == [True, False]
    assert {str(one).partition(": ")[2] for one in orphans} == {"no call before it"}


def test_names_are_unique_over_files() -> None:
    """A message's name holds its conversation's; where one is missing, or they are too long, there is none."""
    assert turn_id("s", "a") == "s/a"
    assert turn_id("", "a") == turn_id("s", None) == turn_id("s" * 200, "a" * 200) == ""
