"""Conversations that are trees: each message names the one that it follows. Pure.

A person who edits a message, or has a reply written again, begins a branch. The way from the current message back to
the first one is the conversation; the other branches were given up. Nothing here recurses, and each message is visited
a fixed number of times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import CHOSEN, NotRead, identifier_of
from sleepd.protocol.chat_example import Message

_MOST_BESIDE: Final = 200_000
"""Messages of all ways together that lead to rated replies beside the current one: their number may grow with the
square of the chat's length."""

_NAME: Final = 64
"""Characters of a name in a reason."""

Turns = Mapping[str, Sequence[Turn]]
"""What each message holds, by its name; a message that could not be read is missing."""


NO_LINK: Final = object()
"""The link of a message that has none, not even one that says that it is the first."""


class MessageTree:
    """The links between messages. What the messages hold stays with the caller."""

    def __init__(self) -> None:
        self._parents: dict[str, str | None] = {}
        self._broken: list[str] = []
        """The messages whose link cannot be read."""

    def add(self, name: str, parent: object) -> None:
        """Take in a message and what the program says of the one before it; nothing: it is the first. The first link
        of a name counts.
        """
        known = identifier_of(parent) or None
        if parent not in (None, "") and known is None:
            self._broken.append(name)
        self._parents.setdefault(name, known)

    def __contains__(self, name: str) -> bool:
        return name in self._parents

    def path(self, leaf: str) -> list[str]:
        """The way from the first message to ``leaf``. There must be no circles: see ``settle``."""
        way = []
        here: str | None = leaf
        while here is not None and here in self._parents:
            way.append(here)
            here = self._parents[here]
        return way[::-1]

    def settle(self) -> tuple[dict[str, str], list[NotRead]]:
        """Cut every circle at the message of it that came first.

        Returns:
            The first message of each message's tree; and the circles and the missing messages, for the operator.
        """
        firsts: dict[str, str] = {}
        problems = [
            NotRead(f"{place_of(name)}: the name of the one before it cannot be read; a conversation begins with it")
            for name in self._broken
        ]
        order = {name: place for place, name in enumerate(self._parents)}
        for name in order:
            trail, here = dict[str, None](), name
            while here not in firsts:
                if here in trail:
                    members = list(trail)
                    here = min(members[members.index(here) :], key=order.__getitem__)
                    self._parents[here] = None
                    firsts[here] = here
                    problems.append(
                        NotRead(f"{place_of(here)}: it follows itself in a circle; it is read as the first")
                    )
                    break
                trail[here] = None
                parent = self._parents[here]
                if parent is None or parent not in self._parents:
                    firsts[here] = here
                    if parent is not None:
                        gap = f"{place_of(here)}: the one before it, {identifier_of(parent)[:_NAME]}, is not there"
                        problems.append(NotRead(f"{gap}; a conversation begins with it"))
                    break
                here = parent
            for one in trail:
                firsts[one] = firsts[here]
        return firsts, problems

    def regenerated(self, replies: Iterable[str]) -> set[str]:
        """Those of the replies that follow the same message as another one does."""
        listed = list(replies)
        followed = Counter(self._parents[name] for name in listed)
        return {name for name in listed if self._parents[name] is not None and followed[self._parents[name]] > 1}


def last_of_each(names: Iterable[str], firsts: Mapping[str, str]) -> list[str]:
    """The last message of each tree, in the order in which the trees begin."""
    last = {}
    for name in names:
        last[firsts[name]] = name
    return list(last.values())


def read_path(
    path: Iterable[str], turns: Turns, conversation: str, *, system: str = ""
) -> Iterator[Conversation | NotRead]:
    """The conversation along a path. A message that could not be read cuts it in two: no reply is learned as the answer
    to another message than its own.

    Args:
        path: names of messages.
        turns: what they hold.
        conversation: its name.
        system: the text of the system message that is not in the tree.
    """
    head = [Turn(message=Message(role="system", text=system))] if system.strip() else []
    stretch: list[Turn] = []
    for name in path:
        if name in turns:
            stretch.extend(turns[name])
        elif stretch:
            yield from _conversation([*head, *stretch], conversation)
            stretch = []
    if stretch:
        yield from _conversation([*head, *stretch], conversation)


def _conversation(turns: list[Turn], name: str) -> Iterator[Conversation | NotRead]:
    whole, orphans = answered(turns)
    yield from orphans
    yield Conversation(turns=whole, id=name)


def answered(turns: Iterable[Turn]) -> tuple[list[Turn], list[NotRead]]:
    """Without the results of tools that nobody called, which would mean nothing to the model; and these."""
    called, whole, orphans = set[str](), list[Turn](), list[NotRead]()
    for turn in turns:
        message = turn.message
        called.update(call.id for call in message.calls)
        if message.role == "tool" and message.call_id not in called:
            which = f"of the call {message.call_id[:_NAME]}" if message.call_id else "without the name of a call"
            orphans.append(NotRead(f"tool result {which}: no call before it"))
        else:
            whole.append(turn)
    return whole, orphans


def beside(tree: MessageTree, path: Iterable[str], rated: Iterable[str]) -> tuple[list[list[str]], list[NotRead]]:
    """The ways to the rated replies on branches beside the current path; and those replies that are too many."""
    on_path, ways, problems, total = set(path), list[list[str]](), list[NotRead](), 0
    for name in rated:
        if name in on_path:
            continue
        way = tree.path(name) if total < _MOST_BESIDE else []
        if way:
            ways.append(way)
            total += len(way)
        else:
            problems.append(NotRead(f"{place_of(name)}: it is rated, but too many stand beside the current replies"))
    return ways, problems


def only_last(way: Sequence[str], turns: Turns) -> dict[str, Sequence[Turn]]:
    """The turns along a way, of which the last message alone is learned."""
    before = {name: [replace(turn, is_supervised=False) for turn in turns[name]] for name in way[:-1] if name in turns}
    return {**before, way[-1]: turns[way[-1]]}


def chosen(path: Iterable[str], turns: Turns, regenerated: set[str]) -> dict[str, Sequence[Turn]]:
    """The turns along the path; the replies of a branch that was chosen among several, and not rated, as ``CHOSEN``."""
    is_chosen, found = False, dict[str, Sequence[Turn]]()
    for name in path:
        if name not in turns:
            continue
        is_chosen = name in regenerated or (is_chosen and all(turn.message.role != "user" for turn in turns[name]))
        found[name] = [
            replace(turn, salience=CHOSEN) if is_chosen and turn.salience is None else turn for turn in turns[name]
        ]
    return found


def place_of(name: str) -> str:
    """A message for a reason: by its name, which may be long and anything."""
    return f"message {identifier_of(name)[:_NAME] or 'without a name'}"


def turn_id(conversation: str, own: object) -> str:
    """A message's name that is unique over files; empty where the program gives none that can be used."""
    name = identifier_of(own)
    whole = f"{conversation}/{name}" if conversation and name else ""
    return whole if len(whole) <= 256 else ""
