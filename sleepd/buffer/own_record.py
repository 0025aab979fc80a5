"""One experience as a line of our own: the opposite of reading one. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from sleepd.protocol.chat_example import Message, as_openai

from .learnables import Learnable
from .rating.rating_names import REJECTED, conversation_named


def own_record(found: Learnable) -> dict[str, Any]:
    """The record that is read as that experience again.

    Of a reply that was rated down the weight is 0: it is context, and is not learned. Where nothing was said of the
    salience, the default of whoever reads the record counts.
    """
    one = found.experience()
    record: dict[str, Any] = {"id": one.id, "messages": [as_openai(each) for each in one.messages]}
    record["messages"].append(as_openai(Message(role="assistant", text=one.response, calls=one.calls)))
    if one.salience == REJECTED:
        record["messages"][-1]["weight"] = 0
    elif found.is_salience_given:
        record["salience"] = one.salience
    if one.tools:
        record["tools"] = msgspec.json.decode(one.tools)
    if one.said_under is not None:
        record["said_under"] = one.said_under
    if one.said_at is not None:
        record["timestamp"] = one.said_at
    if one.conversation:
        record["conversation_hash"] = one.conversation
    if one.rated_as and (name := conversation_named(one.rated_as[-1])):
        record["conversation"] = name
    return {**record, "supervised": "last"}
