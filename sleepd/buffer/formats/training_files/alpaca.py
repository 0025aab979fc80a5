"""Alpaca: an instruction and its output.

Shape: ``instruction``, ``input``, ``output``; ``system``; ``history``, a list of pairs of question and answer. The
input follows the instruction on a new line. All answers are learned, those of the history too.
Left out: nothing. Source: https://github.com/hiyouga/LLaMA-Factory (data/README.md, Alpaca format)
"""

from __future__ import annotations

from collections.abc import Iterator

from sleepd.buffer.conversation import Conversation, Turn
from sleepd.buffer.formats.format import Format, NotRead, Record, identifier_of, list_of, openai_tools, shown, text_of
from sleepd.protocol.chat_example import Message


def _recognises(record: Record) -> bool:
    return "instruction" in record and "output" in record


def _asked(record: Record) -> str:
    parts = [text_of(record.get(name), name) for name in ("instruction", "input")]
    return "\n".join(part for part in parts if part)


def _conversations(record: Record) -> Iterator[Conversation]:
    messages = []
    if system := text_of(record.get("system"), "system"):
        messages.append(Message(role="system", text=system))
    for pair in list_of(record.get("history"), "history"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise NotRead("history: expected pairs of question and answer")
        messages.append(Message(role="user", text=text_of(pair[0], "history")))
        messages.append(Message(role="assistant", text=text_of(pair[1], "history")))
    output = text_of(record["output"], "output")
    if not output.strip():
        raise NotRead(f"output: expected text, found {shown(record['output'])}")
    messages.append(Message(role="user", text=_asked(record)))
    turns = [Turn(message=message) for message in messages]
    reply = Turn(message=Message(role="assistant", text=output), id=identifier_of(record.get("id")))
    yield Conversation(turns=[*turns, reply], tools=openai_tools(record.get("tools")))


FORMAT = Format(
    name="alpaca",
    title="Alpaca",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="a data set",
)
