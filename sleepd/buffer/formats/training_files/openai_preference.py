"""OpenAI's file for preference fine-tuning, one comparison a record.

Shape: ``input`` with ``messages`` and ``tools``, ``preferred_output`` and ``non_preferred_output``, both lists of
messages. The replies of the preferred output are learned with the salience of a chosen reply. What stands in
``input`` is context.
Left out: the output that was not preferred.
Source: https://platform.openai.com/docs/guides/direct-preference-optimization
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sleepd.buffer.conversation import Conversation
from sleepd.buffer.formats.format import CHOSEN, Format, Record, object_of, openai_tools
from sleepd.buffer.formats.shared_parts.api_bodies import completed, request_turns, turns_of_messages


def _recognises(record: Record) -> bool:
    return "preferred_output" in record and "input" in record


def _conversations(record: Record) -> Iterator[Conversation]:
    asked = object_of(record["input"], "input")
    preferred = turns_of_messages(record["preferred_output"], "preferred_output")
    conversation = completed(record, request_turns(asked), preferred, "preferred_output", salience=CHOSEN)
    yield msgspec.structs.replace(conversation, tools=openai_tools(asked.get("tools")))


FORMAT = Format(
    name="openai_preference",
    title="OpenAI preference fine-tuning",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="the agent's own file",
    feedback="the preferred output: 0.8",
)
