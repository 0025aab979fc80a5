"""The response of a model that came piece by piece (server-sent events), put together. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sleepd.buffer.formats.format import NotRead, Record, json_value, list_of, object_of, text_of

_END = "[DONE]"


def whole_response(pieces: Iterable[Any]) -> Record:
    """The body that the server would have sent at once; of several choices the first.

    Args:
        pieces: lines as they were sent (``data: {…}``), several of them in one text, or the decoded events.

    Raises:
        NotRead: an event is damaged, or the stream broke off.
    """
    completion, message = _Completion(), _AnthropicMessage()
    for event in _events(pieces):
        kind = event.get("type") if isinstance(event, Mapping) else ""
        if event == _END:
            completion.is_whole = True
        elif not isinstance(event, Mapping):
            raise NotRead("stream: expected events that are objects")
        elif event.get("error"):
            raise NotRead("response: the server answered with an error")
        elif "choices" in event:
            completion.add(event)
        elif kind in ("response.completed", "response.incomplete"):
            return object_of(event.get("response"), "stream.response")
        elif isinstance(kind, str):
            message.add(kind, event)
    if completion.is_whole and completion.has_begun:
        return completion.body()
    if message.is_whole:
        return message.body()
    raise NotRead("stream: it breaks off before its end")


def _events(pieces: Iterable[Any]) -> Iterator[Any]:
    for piece in pieces:
        if not isinstance(piece, str):
            yield piece
            continue
        for line in piece.replace("\r", "\n").split("\n"):  # splitlines would cut within texts, at U+2028
            name, _, value = line.partition(":")
            if name != "data":
                continue  # the name of an event, which the event repeats; a comment; an empty line
            data = value.strip()
            event = data if data == _END else json_value(data)
            if event is None:
                raise NotRead("stream: an event is no JSON")
            yield event


class _Completion:
    """The chunks of OpenAI's chat completions."""

    def __init__(self) -> None:
        self.is_whole = False
        self.has_begun = False
        self._id: Any = None
        self._finish: Any = None
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, event: Record) -> None:
        self._id = event.get("id") or self._id
        for value in list_of(event.get("choices"), "stream.choices"):
            choice = object_of(value, "stream.choices")
            if choice.get("index", 0) != 0:
                continue
            self.has_begun = True
            delta = object_of(choice.get("delta") or {}, "stream.delta")
            for name in ("content", "reasoning_content", "reasoning"):
                if delta.get(name) is not None:
                    self._texts[name].append(text_of(delta[name], f"stream.{name}"))
            for call in list_of(delta.get("tool_calls"), "stream.tool_calls"):
                self._add_call(object_of(call, "stream.tool_calls"))
            if choice.get("finish_reason"):
                self._finish, self.is_whole = choice["finish_reason"], True

    def _add_call(self, piece: Record) -> None:
        index = piece.get("index", 0)
        if not isinstance(index, int):
            raise NotRead("stream.tool_calls.index: expected a number")
        call = self._calls.setdefault(index, {"id": None, "name": None, "arguments": []})
        function = object_of(piece.get("function") or {}, "stream.tool_calls.function")
        call["id"] = piece.get("id") or call["id"]
        call["name"] = function.get("name") or call["name"]
        call["arguments"].append(text_of(function.get("arguments"), "stream.arguments"))

    def body(self) -> Record:
        calls = [
            {"id": call["id"], "function": {"name": call["name"], "arguments": "".join(call["arguments"]) or "{}"}}
            for _, call in sorted(self._calls.items())
        ]
        texts = {name: "".join(found) for name, found in self._texts.items()}
        message = {"role": "assistant", **texts, "tool_calls": calls}
        return {"id": self._id, "choices": [{"message": message, "finish_reason": self._finish}]}


class _AnthropicMessage:
    """The events of Anthropic's messages."""

    def __init__(self) -> None:
        self.is_whole = False
        self._id: Any = None
        self._stop: Any = None
        self._blocks: list[dict[str, Any]] = []
        self._pieces: list[list[str]] = []

    def add(self, kind: str, event: Record) -> None:
        if kind == "message_start":
            self._id = object_of(event.get("message"), "stream.message").get("id")
        elif kind == "content_block_start":
            self._blocks.append(dict(object_of(event.get("content_block"), "stream.content_block")))
            self._pieces.append([])
        elif kind == "content_block_delta":
            self._add_delta(object_of(event.get("delta"), "stream.delta"))
        elif kind == "message_delta":
            self._stop = object_of(event.get("delta"), "stream.delta").get("stop_reason")
        elif kind == "message_stop":
            self.is_whole = True

    def _add_delta(self, delta: Record) -> None:
        name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}.get(
            str(delta.get("type"))
        )
        if name is None:
            return  # a signature
        if not self._pieces:
            raise NotRead("stream: a piece comes before the block that it belongs to")
        self._pieces[-1].append(text_of(delta.get(name), f"stream.{name}"))

    def body(self) -> Record:
        for block, pieces in zip(self._blocks, self._pieces, strict=True):
            text = "".join(pieces)
            if block.get("type") == "tool_use":
                block["input"] = text or block.get("input")
            elif block.get("type") in ("text", "thinking"):
                block[block["type"]] = text
        return {"id": self._id, "role": "assistant", "content": self._blocks, "stop_reason": self._stop}
