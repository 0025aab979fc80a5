"""The data sets of TRL: preferences, prompts with completions, and completions with a label.

Shapes: ``chosen`` and ``rejected`` with a ``prompt`` or ``messages`` before them, or as whole conversations;
``prompt`` and ``completion`` as lists of messages; ``prompt``, ``completion`` and ``label`` (true or false). Each
part is a list of messages or a text. The replies of ``chosen`` are learned with the salience of a chosen reply, a
label becomes thumbs up or down. What stands before them is context.
Left out: ``rejected``.
Source: https://huggingface.co/docs/trl/dataset_formats
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import CHOSEN, Format, Record, openai_tools, text_of
from sleepd.buffer.formats.shared_parts.api_bodies import completed, turns_of_messages
from sleepd.buffer.rating.rating_names import REJECTED
from sleepd.protocol.chat_example import Message, MessageRole


def _recognises(record: Record) -> bool:
    if "chosen" in record and "rejected" in record:
        return True
    if not ("prompt" in record and "completion" in record):
        return False
    return isinstance(record["prompt"], list) or isinstance(record.get("label"), bool)


def _turns(value: Any, name: str, role: MessageRole) -> list[Turn]:
    if isinstance(value, str):
        return [Turn(message=Message(role=role, text=text_of(value, name)), is_supervised=False)]
    return turns_of_messages(value, name)


def _parts(record: Record) -> tuple[list[Turn], list[Turn], float | None]:
    """What is context, what is learned, and its salience."""
    before = _turns(record.get("prompt", record.get("messages")), "prompt", "user")
    if "chosen" not in record:
        label = record.get("label")
        salience = (1.0 if label else REJECTED) if isinstance(label, bool) else None
        return before, _turns(record["completion"], "completion", "assistant"), salience
    chosen = _turns(record["chosen"], "chosen", "assistant")
    if not before:
        # Two whole conversations, which differ in the last reply.
        return chosen[:-1], chosen[-1:], CHOSEN
    return before, chosen, CHOSEN


def _conversations(record: Record) -> Iterator[Conversation]:
    before, learned, salience = _parts(record)
    conversation = completed(record, before, learned, "chosen, completion", salience=salience)
    yield msgspec.structs.replace(conversation, tools=openai_tools(record.get("tools")))


FORMAT = Format(
    name="trl",
    title="TRL preferences and completions",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="a data set",
    feedback="`chosen`: 0.8; `label`",
)
