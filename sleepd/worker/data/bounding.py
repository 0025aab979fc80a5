"""What of a conversation stays where all of it is longer than the limit.

The oldest turns go first, whole: what remains begins with a message of the user. Where the last turn alone is too long,
its oldest calls go with their results, and then the starts of the longest texts. The system messages at the start, the
last one before what stays, the tools, the last message of the user and the last results stay. The end of the reply goes
last, elsewhere (``examples``).

How much each message takes is read off one rendering, so that few more are needed, however many messages there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from sleepd.protocol.chat_example import Message

from .chat_format import ChatFormat
from .messages import Context, Said, labels
from .rendered_conversation import RenderedConversation

_CUTS = 8
"""How often a text is cut anew: what is left of it may have other tokens at its start."""
_RENDERINGS = 4
"""After so many renderings the rest of what may go goes at once."""
_SURELY_FITS = 8
"""Below so many characters for each token of the limit, a conversation is rendered before any of it is left out."""


@dataclass(frozen=True)
class Bounded:
    """A conversation as token ids, and what was cut of what stands before the reply."""

    context: Context
    written: RenderedConversation
    ids: list[int]
    prompt_tokens: int
    reply_end: int
    """How many tokens stand before the end of the reply's turn."""
    is_cut: bool = False
    lost_messages: int = 0


def bounded(chat: ChatFormat, context: Context, reply: Said, max_tokens: int) -> Bounded:
    """A conversation in at most ``max_tokens`` tokens, if what may be cut suffices for that.

    Raises:
        Refused: it cannot be written as what it is.
    """
    whole = len(context.messages)
    context = _without_far_turns(chat, context, max_tokens)
    found = _encoded(chat, context, reply)
    for rendering in range(whole):
        excess = len(found.ids) - max_tokens
        cuts = _cuts(found.context.messages)
        if excess <= 0 or not cuts:
            break
        cut = cuts[-1] if rendering >= _RENDERINGS else _enough(chat, found, cuts, excess)
        found = _encoded(chat, _without(found.context, cut), reply)
    lost = whole - len(found.context.messages)
    is_long = lost > 0 or len(found.ids) > max_tokens
    return replace(_with_shorter_texts(chat, found, reply, max_tokens), is_cut=is_long, lost_messages=lost)


def _encoded(chat: ChatFormat, context: Context, reply: Said) -> Bounded:
    written = chat.conversation(context, reply)
    return Bounded(context, written, *chat.encode(written))


# Whole messages

Cut = tuple[int, int]
"""Messages that may go: from the first number up to, and without, the second."""


def _cuts(messages: Sequence[Message]) -> list[Cut]:
    """What may go, each one more than the one before."""
    first = _behind_system(messages, 0)
    users = [number for number, one in enumerate(messages) if one.role == "user"]
    if turns := [(first, number) for number in users if number > first]:
        return turns
    behind = _behind_system(messages, users[-1] + 1 if users else 0)
    replies = [number for number, one in enumerate(messages) if one.role == "assistant" and number > behind]
    return [(behind, number) for number in replies]


def _behind_system(messages: Sequence[Message], start: int) -> int:
    return next((number for number in range(start, len(messages)) if messages[number].role != "system"), len(messages))


def _without(context: Context, cut: Cut) -> Context:
    """Without these messages; the last system message among them stays, because it holds for what follows."""
    start, end = cut
    messages = context.messages
    governing = [one for one in messages[start:end] if one.role == "system"][-1:]
    return replace(context, messages=(*messages[:start], *governing, *messages[end:]))


def _enough(chat: ChatFormat, found: Bounded, cuts: Sequence[Cut], excess: int) -> Cut:
    """The first cut that takes ``excess`` tokens away; the last one where none does."""
    before = _tokens_before(chat, found)
    return next((cut for cut in cuts if before[cut[1]] - before[cut[0]] >= excess), cuts[-1])


def _tokens_before(chat: ChatFormat, given: Bounded) -> list[int]:
    """How many tokens stand before each message; one that has no text counts as part of the one before it."""
    known: dict[str, int] = {}
    for label, tokens in chat.tokens_before(given.written).items():
        name = label.partition(",")[0]
        known[name] = min(tokens, known.get(name, tokens))
    found: list[int] = []
    following = 10**9
    for label in reversed(labels(given.context.messages)):
        following = min(following, known.get(label, following))
        found.append(following)
    return found[::-1]


def _without_far_turns(chat: ChatFormat, context: Context, max_tokens: int) -> Context:
    """Without messages behind which there are twice as many tokens as there is room for."""
    if sum(len(one.whole_text) for one in context.messages) <= _SURELY_FITS * max_tokens:
        return context
    behind, number = 0, len(context.messages)
    while number > 0 and behind <= 2 * max_tokens:
        number -= 1
        behind += chat.count(context.messages[number].whole_text)
    far = number
    while far and (cuts := _cuts(context.messages)):
        start, end = next((cut for cut in cuts if cut[1] > far), cuts[-1])
        before = len(context.messages)
        context = _without(context, (start, end))
        # Where whole turns did not suffice, calls of the last one may go too.
        far = far - before + len(context.messages) if end <= far else 0
    return context


# The start of texts


def _with_shorter_texts(chat: ChatFormat, found: Bounded, reply: Said, max_tokens: int) -> Bounded:
    given = found.context.messages
    texts = {number: one.text for number, one in enumerate(given) if one.role != "system" and one.text}
    if len(found.ids) <= max_tokens or not texts:
        return found
    sizes = {number: chat.count(text) for number, text in texts.items()}
    excess = 0
    for _ in range(_CUTS):
        if len(found.ids) <= max_tokens or not any(found.context.messages[number].text for number in texts):
            break
        excess += max(1, len(found.ids) - max_tokens)
        level = _level(sorted(sizes.values(), reverse=True), excess)
        messages = [*given]
        for number, text in texts.items():
            if sizes[number] > level:
                shorter = chat.cut(text, sizes[number] - level)
                messages[number] = msgspec.structs.replace(given[number], text=shorter)
        found = _encoded(chat, replace(found.context, messages=tuple(messages)), reply)
    return found


def _level(sizes: Sequence[int], excess: int) -> int:
    """What the longest texts are cut down to, so that together they lose ``excess``. ``sizes``: the longest first."""
    total = level = 0
    for number, size in enumerate(sizes, start=1):
        total += size
        level = (total - excess) // number
        if number == len(sizes) or level >= sizes[number]:
            break
    return level
