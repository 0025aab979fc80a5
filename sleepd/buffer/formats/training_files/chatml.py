"""ChatML: conversations as text, with ``<|im_start|>`` and ``<|im_end|>`` around each message.

Shape: a text file that begins with ``<|im_start|>``, or records with such a ``text``. In a file a system message
begins a conversation, and so does a message after a blank line. Tags of tools in the texts are read as ``hermes``
reads them.
Nothing becomes the salience. Left out and named: a message without its end, and text between two messages.
Source: https://github.com/openai/openai-python/blob/v0.28.1/chatml.md, and the chat template of Qwen
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sleepd.buffer.conversation import Conversation
from sleepd.buffer.formats.format import ROLES, Format, NotRead, Record, identifier_of, shown, text_of
from sleepd.protocol.chat_example import MessageRole

from .hermes import tagged_turns

START: Final = "<|im_start|>"
_END: Final = "<|im_end|>"


def conversations_of_file(data: bytes) -> Iterator[tuple[int, Record]]:
    """The conversations of a text file as records, each with the number of its first line."""
    before, *blocks = data.decode("utf-8", "surrogateescape").split(START)
    line = first = 1 + before.count("\n")
    conversation: list[str] = []
    is_apart = has_begun = False
    for block in blocks:
        is_system = block.startswith("system")
        if has_begun and (is_system or is_apart):
            yield first, {"text": "".join(conversation)}
            conversation, has_begun = [], False
        if not conversation:
            first = line
        has_begun = has_begun or not is_system
        conversation += [START, block]
        line += block.count("\n")
        gap = block.rpartition(_END)[2]
        is_apart = not gap.strip() and gap.count("\n") > 1
    if conversation:
        yield first, {"text": "".join(conversation)}


def _recognises(record: Record) -> bool:
    text = record.get("text")
    return isinstance(text, str) and text.lstrip().startswith(START)


def _conversations(record: Record) -> Iterator[Conversation | NotRead]:
    said: list[tuple[MessageRole, str]] = []
    problems = []
    for block in text_of(record["text"], "text").split(START)[1:]:
        kind, _, rest = block.partition("\n")
        content, end, after = rest.partition(_END)
        if not end:
            if rest.strip():
                problems.append(NotRead("text: a message has no <|im_end|>"))
            continue
        role = ROLES.get(kind.strip())
        if role is None:
            raise NotRead(f"text: expected the role system, user, assistant or tool, found {shown(kind)}")
        said.append((role, content))
        if after.strip():
            problems.append(NotRead("text: text stands between two messages"))
    turns, tools = tagged_turns(said)
    if not any(turn.message.role == "assistant" for turn in turns) and not problems:
        raise NotRead("text: expected a message of the assistant, found none")
    yield Conversation(turns=turns, id=identifier_of(record.get("id")), tools=tools)
    yield from problems


FORMAT = Format(
    name="chatml",
    title="ChatML text",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="a text file or a data set",
)
