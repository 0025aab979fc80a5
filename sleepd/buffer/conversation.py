"""From a conversation to what can be learned of it: one example for each supervised reply, with its context. Pure.

Rules
-----
1. A reply is learned once, however often a log repeats it: its id is the program's own, or follows from the texts. What
   a server calls a reply may be the name of others too: then the texts are part of the id.
2. All replies of a conversation are on one side of the split, so that no held-out reply stands in a trained context. A
   long conversation is cut into sections, each a conversation of its own; no context reaches across a cut.
3. A conversation that grows keeps what it had: cuts, ids and sides follow from what stands before a reply alone.
4. A context is bounded: its oldest messages go first, never the leading system messages, never the last system message
   before what stays, and never the last message of the user. It begins with a message of the user.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from typing import Final

import msgspec

from sleepd.protocol.chat_example import Message

from .experience import (
    Experience,
    content_hash,
    derived_id,
    group_of_digests,
    hash_text,
    id_hash,
    message_digest,
    said_digest,
    without_thought,
)
from .rating.rating_names import WHOLE, rating_names
from .reply_origin import UNKNOWN, ReplyOrigin
from .said_before import SaidBefore

SECTION_REPLIES: Final = 16
"""So many replies, and a section ends at the next message of the user."""
CONTEXT_CHARACTERS: Final = 64_000
"""More than the longest examples hold (2,048 to 8,192 tokens)."""
CONTEXT_MESSAGES: Final = 200
_OPAQUE: Final = (
    "it or what it answers is not there as text (an image, a file, a shortened part): it is not learned, nor is what "
    "follows it up to the next message of the user"
)
_LONGEST_GIVEN: Final = 240
"""Characters of an id to which others are added."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One message, with what the program noted beside it."""

    message: Message
    id: str = ""
    """The program's own; empty: none."""
    is_id_unique: bool = True
    """No other reply has it. A model server may give one id to many."""
    rated_as: str = ""
    """Another name by which a rating may name it; empty: none."""
    salience: float | None = None
    """0 to 1, or ``rating_names.REJECTED``; None: nothing was said."""
    is_supervised: bool = True
    """Of a reply: it is learned. Else it is context only."""
    origin: ReplyOrigin = UNKNOWN
    """Of a reply."""
    is_opaque: bool = False
    """It holds an image or another thing that is no text, so that it cannot be learned, nor what follows it up to the
    next message of the user."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation, as a program wrote it."""

    turns: Sequence[Turn]
    id: str = ""
    """The program's own; empty: none."""
    tools: str = ""
    """See ``ChatExample.tools``."""
    is_whole: bool = True
    """It begins where it began. A request to a model may hold the end of a longer one."""
    side: int | None = None
    """See ``SupervisedReply.conversation_hash``, where an import has kept it; None: it follows from the rest."""
    is_only: bool = True
    """No other record is of the same conversation, so that its name and a reply's number name the reply."""


class SupervisedReply:
    """One reply that is learned: its figures, and its texts when they are asked for."""

    def __init__(
        self,
        conversation: Conversation,
        places: Sequence[int],
        reply: int,
        *,
        number: int,
        group: int,
        side: int,
        content: int,
    ) -> None:
        self._conversation = conversation
        self._places = places
        self._reply = reply
        self._content = content
        self.number = number
        """Of the conversation's replies, counted from 1."""
        self.group = group
        """See ``experience.group_of``."""
        self.conversation_hash = side
        """Equal for all that must be on one side of the split."""

    @property
    def turn(self) -> Turn:
        """The reply itself."""
        return self._conversation.turns[self._reply]

    @property
    def rated_as(self) -> tuple[str, ...]:
        """See ``ChatExample``. Only in a whole conversation the number is known."""
        given = ("" if self.turn.is_id_unique else self.turn.id, self.turn.rated_as)
        return tuple(filter(None, given)) + rating_names(
            self._conversation.id, self.number if self._conversation.is_whole else WHOLE
        )

    @property
    def said(self) -> int | None:
        """See ``SaidBefore``; None: its conversation is known by its name, or is whole."""
        return None if self._conversation.is_whole else self._content

    @cached_property
    def id(self) -> str:
        """The program's own, or the conversation's with the number of the reply, or one that follows from the texts."""
        if self.turn.id and not self.turn.is_id_unique:
            return f"{self.turn.id[:_LONGEST_GIVEN]}:{hash_text(self.group)[:8]}"
        if self.turn.id:
            return self.turn.id
        if self._conversation.id and self._conversation.is_whole and self._conversation.is_only:
            return f"{self._conversation.id}#{self.number}"
        turns, said = self._conversation.turns, [place for place in self._places if not self._is_system(place)]
        if len(said) == 1 and not self.turn.message.calls:
            return derived_id(turns[said[0]].message.text, self.turn.message.text)
        digests = [message_digest(turns[place].message) for place in (*said, self._reply)]
        return hash_text(group_of_digests(digests, ""))

    def _is_system(self, place: int) -> bool:
        return self._conversation.turns[place].message.role == "system"

    @property
    def key(self) -> int:
        """See ``experience.id_hash``."""
        return id_hash(self.id)

    def experience(self, default_salience: float, served_as: str = "") -> Experience:
        """With its texts; ``served_as``: the model name under which the engine in service answers."""
        turns, reply = self._conversation.turns, self.turn
        context = tuple(turns[place].message for place in self._places)
        is_plain = len(context) == 1 and not self._conversation.tools and not reply.message.calls
        return Experience(
            id=self.id,
            prompt=next((one.text for one in reversed(context) if one.role == "user"), ""),
            response=reply.message.text,
            context=() if is_plain else context,
            calls=reply.message.calls,
            tools=self._conversation.tools,
            salience=default_salience if reply.salience is None else reply.salience,
            said_under=reply.origin.under,
            said_at=reply.origin.served_at(served_as),
            conversation="" if self.conversation_hash == self.group else hash_text(self.conversation_hash),
            rated_as=self.rated_as,
        )


class _Walk:
    """What is known of each message of a conversation, worked out once."""

    def __init__(self, conversation: Conversation) -> None:
        messages = [turn.message for turn in conversation.turns]
        self.roles = [one.role for one in messages]
        self.digests = [message_digest(one) for one in messages]
        self.lengths = list(accumulate((len(one.whole_text) for one in messages), initial=0))
        self.head = next((place for place, role in enumerate(self.roles) if role != "system"), len(messages))
        """Where the leading system messages end."""
        self._later_system = [place for place, role in enumerate(self.roles) if role == "system" and place > self.head]

    def context(self, start: int, asked: int, reply: int) -> list[int]:
        """The places of the messages before ``reply``: the system messages that govern it, and what is recent enough.

        Args:
            start: where the section begins.
            asked: of the last message of the user.
            reply: of the reply.
        """
        enough = bisect_left(self.lengths, self.lengths[reply] - CONTEXT_CHARACTERS)
        first = max(start, enough, reply - CONTEXT_MESSAGES)
        if first <= asked:
            first = next(place for place in range(first, asked + 1) if self.roles[place] == "user")
            recent = [*range(first, reply)]
        else:
            # The user asked long ago, and tools were called ever since. A result without its call means nothing.
            # The last call stays with its results, however long they are.
            last = next((place for place in range(reply - 1, asked, -1) if self.roles[place] == "assistant"), asked)
            called = next((place for place in range(first, reply) if self.roles[place] == "assistant"), last)
            called = max(called, asked + 1)
            recent = [asked, *self._governing(asked, called), *range(called, reply)]
        return [*range(self.head), *self._governing(self.head, recent[0]), *recent]

    def _governing(self, after: int, place: int) -> list[int]:
        """The last system message between two messages, if there is one."""
        number = bisect_left(self._later_system, place)
        return self._later_system[number - 1 : number] if number and self._later_system[number - 1] > after else []


def supervised_replies(conversation: Conversation, before: SaidBefore | None = None) -> Iterator[SupervisedReply | str]:
    """The replies that are learned, in order, and why others are not. One that answers no message of the user is none.

    ``before``: what the log has held so far, which tells conversations apart that begin alike.
    """
    walk, turns, sides = _Walk(conversation), conversation.turns, _Sides(conversation, before or SaidBefore())
    start, asked, replies, number, section = walk.head, -1, 0, 0, 0
    is_opaque = is_told = False
    for place, turn in enumerate(turns):
        is_opaque = turn.is_opaque or (is_opaque and turn.message.role != "user")
        if turn.message.role == "user":
            asked, is_told = place, False
            if replies >= SECTION_REPLIES:
                start, section, replies = place, section + 1, 0
        if turn.message.role != "assistant":
            continue
        number, replies = number + 1, replies + 1
        if asked < 0:
            continue
        sides.add(turns[asked], turn)
        if not turn.is_supervised or not (turn.is_opaque or turn.message.whole_text.strip()):
            continue
        if is_opaque:
            if not is_told:
                yield f"reply {number}: {_OPAQUE}"
            is_told = True
            continue
        places = walk.context(start, asked, place)
        yield SupervisedReply(
            conversation,
            places,
            place,
            number=number,
            group=_group(walk, conversation, places, place),
            side=_of_section(sides.side, section),
            content=sides.content,
        )


def nothing_to_learn(conversation: Conversation) -> str:
    """Why nothing is learned of a conversation of which ``supervised_replies`` gives none; empty: it has no fault."""
    said = [turn.message for turn in conversation.turns if turn.message.role == "assistant" and turn.is_supervised]
    if any(message.whole_text.strip() for message in said):
        return "expected a message of the user before the reply, found none"
    return "expected a reply with text or a call of a tool, found an empty one" if said else ""


def _group(walk: _Walk, conversation: Conversation, places: Sequence[int], reply: int) -> int:
    turns = conversation.turns
    if len(places) == 1 and not conversation.tools and not turns[reply].message.calls:
        return content_hash(turns[places[0]].message.text, turns[reply].message.text)
    return group_of_digests([walk.digests[place] for place in (*places, reply)], conversation.tools)


class _Sides:
    """Of a conversation as a whole: by its name, or by how it begins.

    Of the end of a conversation only how that begins is known: by its name, a conversation that never ends would be on
    one side for ever. ``policy.selecting.context_cut`` keeps held-out replies out of such contexts.
    """

    def __init__(self, conversation: Conversation, before: SaidBefore) -> None:
        self._before = before
        self._is_whole = conversation.is_whole
        self._named: int | None = None
        self._root: int | None = None
        self.content = 0
        """Of the last supervised reply with what it answers: equal for copies, however a log writes it."""
        if conversation.side is not None:
            self._named = conversation.side
        elif conversation.id and conversation.is_whole:
            name = blake2b(b"conversation\0" + conversation.id.encode(), digest_size=8)
            self._named = int.from_bytes(name.digest(), "big")

    @property
    def side(self) -> int:
        """Of the supervised replies so far."""
        found = self._root if self._named is None else self._named
        assert found is not None
        return found

    def add(self, asked: Turn, reply: Turn) -> None:
        """The next reply, and the message of the user before it."""
        if (self._named is not None and self._is_whole) or (self._root is not None and not reply.is_supervised):
            return
        # The history of the next request often has it without its thought.
        said = said_digest(reply.message).hex() if reply.message.calls else without_thought(reply.message.text)
        self.content = content_hash(asked.message.text, said)
        is_first = self._is_whole or reply.is_supervised or self._before.begins(self.content)
        if self._root is None and is_first:
            self._root = self.content


def _of_section(side: int, section: int) -> int:
    if not section:
        return side
    return int.from_bytes(blake2b(side.to_bytes(8, "big") + section.to_bytes(8, "big"), digest_size=8).digest(), "big")
