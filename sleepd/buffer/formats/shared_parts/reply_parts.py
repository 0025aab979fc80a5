"""A reply that a program wrote as one, and that calls of tools cut into several messages. Pure."""

from __future__ import annotations

from sleepd.buffer.conversation import Turn
from sleepd.buffer.formats.format import with_thought
from sleepd.buffer.reply_origin import ReplyOrigin
from sleepd.protocol.chat_example import Message, ToolCall


class ReplyParts:
    """Takes in the thoughts, texts and calls of one reply, in order, and gives its messages.

    What is said after the result of a call is a message of its own.
    """

    def __init__(self) -> None:
        self._thoughts: list[str] = []
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._results: list[Message] = []
        self._messages: list[Message] = []
        self.is_opaque = False
        """It holds a part that is no text."""

    def thought(self, text: str) -> None:
        """What the model thought."""
        if text.strip():
            self._after_results()
            self._thoughts.append(text.strip())

    def text(self, text: str) -> None:
        """What the model said."""
        if text.strip():
            self._after_results()
            self._texts.append(text)

    def call(self, call: ToolCall, result: str | None = None) -> None:
        """A tool that the model called, and what came back; None: that stands elsewhere, or nothing came."""
        self._calls.append(call)
        if result is not None:
            self._results.append(Message(role="tool", text=result, call_id=call.id, name=call.name))

    def _after_results(self) -> None:
        if self._results:
            self._end()

    def _end(self) -> None:
        text = with_thought("\n\n".join(self._thoughts), "\n".join(self._texts))
        if text or self._calls:
            self._messages.append(Message(role="assistant", text=text, calls=tuple(self._calls)))
        self._messages.extend(self._results)
        self._thoughts, self._texts, self._calls, self._results = [], [], [], []

    def turns(self, id_: str, *, salience: float | None, is_supervised: bool, origin: ReplyOrigin) -> list[Turn]:
        """Its messages as turns. The last reply has the name, those before it have it with their number."""
        self._end()
        replies = [place for place, message in enumerate(self._messages) if message.role == "assistant"]
        names = {place: f"{id_}:{number}" for number, place in enumerate(replies, 1)} | dict.fromkeys(replies[-1:], id_)
        return [
            Turn(
                message=message,
                id=names.get(place, "") if id_ else "",
                salience=salience,
                is_supervised=is_supervised,
                origin=origin,
                is_opaque=self.is_opaque,
            )
            for place, message in enumerate(self._messages)
        ]
