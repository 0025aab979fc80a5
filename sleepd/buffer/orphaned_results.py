"""Results of tools that nobody called: they mean nothing to the model, so that they are neither context nor learned.

Pure. A program may leave the names of calls out: then any call before a result may be its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from .conversation import Conversation, Turn

_NAME = 40
"""Characters of a call's name in a reason."""


def without_orphans(conversation: Conversation) -> tuple[Conversation, list[str]]:
    """The conversation without such results, and a reason for each. What is the end of a longer one stays as it is: the
    call may stand in what is not there.
    """
    turns = conversation.turns
    orphans = list(_orphans(turns)) if conversation.is_whole else []
    if not orphans:
        return conversation, []
    gone = frozenset(orphans)
    left = [turn for place, turn in enumerate(turns) if place not in gone]
    return msgspec.structs.replace(conversation, turns=left), [_reason(turns[place]) for place in orphans]


def _orphans(turns: Sequence[Turn]) -> Iterator[int]:
    called, has_unnamed = set[str](), False
    for place, turn in enumerate(turns):
        for call in turn.message.calls:
            called.add(call.id)
            has_unnamed = has_unnamed or not call.id
        name = turn.message.call_id
        # One that is no text stays: the reply may be about what it showed.
        is_result = turn.message.role == "tool" and not turn.is_opaque
        if is_result and not has_unnamed and (name not in called if name else not called):
            yield place


def _reason(turn: Turn) -> str:
    name = turn.message.call_id[:_NAME]
    return f"tool result {f'of the call {name}' if name else 'without the name of a call'}: no call before it"
