"""A log of the requests to a model and its responses, as proxies and agents of one's own write it.

Shape: a record with the body of the request and that of the response, under one of several pairs of names
(``request``/``response``, ``req``/``res``, ``input``/``output`` …), as objects or as JSON text, also below ``body``;
or ``messages`` beside a ``response``. The bodies are those of OpenAI's chat completions and responses and of
Anthropic's messages (``api_bodies``); the response may be the list of server-sent events.
Each request repeats what was said before, so that only the response is learned: each reply once. Some servers give the
same id to many responses: the texts are part of the reply's id.
Salience: ``salience``, ``rating`` or ``feedback`` beside the bodies, where an agent of one's own writes one.
Left out: a status other than 2xx, an error, a reply that broke off, other choices than the first.
Source: the API references of OpenAI (chat completions, responses) and Anthropic (messages).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from sleepd.buffer.conversation import Conversation
from sleepd.buffer.experience import said_under, salience_of
from sleepd.buffer.formats.format import (
    Format,
    NotRead,
    Record,
    identifier_of,
    json_value,
    object_of,
    openai_tools,
    rated,
    shown,
)
from sleepd.buffer.formats.shared_parts.api_bodies import reply_turn, request_turns
from sleepd.buffer.reply_origin import origin_of

_PAIRS: Final = (
    ("request", "response"),
    ("req", "res"),
    ("request_body", "response_body"),
    ("requestBody", "responseBody"),
    ("reqPayload", "respPayload"),
    ("input", "output"),
)
_REPLIES: Final = ("response", "output", "completion", "reply")
"""Beside ``messages``."""
_MOST_ENVELOPES: Final = 3
_STATUS: Final = ("status", "status_code", "statusCode")
_TIMES: Final = ("timestamp", "created_at", "time", "ts")
_SESSIONS: Final = ("conversation", "conversation_id", "session", "session_id")


def _pair(record: Record) -> tuple[Any, Any] | None:
    if isinstance(record.get("messages"), list):
        return next(((record, record[name]) for name in _REPLIES if name in record), None)
    for request, response in _PAIRS:
        if request in record and response in record and _is_request(record[request]):
            return record[request], record[response]
    return None


def _is_request(value: Any) -> bool:
    if isinstance(value, str):
        return value.lstrip().startswith("{") and ('"messages"' in value or '"input"' in value)
    return isinstance(value, Mapping) and any(name in value for name in ("messages", "input", "body"))


def _recognises(record: Record) -> bool:
    return _pair(record) is not None


def _body(value: Any) -> Any:
    """What was sent, without its envelopes, which may be JSON text."""
    for _ in range(_MOST_ENVELOPES):
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = json_value(value) or value
        if not isinstance(value, Mapping) or "body" not in value or not {"messages", "choices"}.isdisjoint(value):
            break
        value = value["body"]
    return value


def _check_status(record: Any) -> None:
    if not isinstance(record, Mapping):
        return
    for value in (record.get(name) for name in _STATUS):
        code = (
            int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3 else value
        )
        if isinstance(code, int) and not isinstance(code, bool) and not 200 <= code < 300:
            raise NotRead(f"status: expected 200, found {code if 0 <= code < 1000 else shown(code)}")


def _salience(record: Record) -> float | None:
    if record.get("salience") is None:
        return rated(record.get("rating", record.get("feedback")))
    found = salience_of(record["salience"], "salience")
    if isinstance(found, str):
        raise NotRead(found)
    return found


def _conversations(record: Record) -> Iterator[Conversation]:
    pair = _pair(record)
    assert pair is not None
    request = object_of(_body(pair[0]), "request")
    _check_status(record)
    _check_status(pair[1])
    response = _body(pair[1])
    reply = reply_turn(response)
    identifier = reply.id or identifier_of(record.get("id")) or identifier_of(record.get("request_id"))
    made = response if isinstance(response, Mapping) else {}
    times = (made.get("created"), made.get("created_at"), *(record.get(name) for name in _TIMES))
    origin = origin_of(request.get("model") or made.get("model"), *times)
    if under := said_under(record.get("metadata")):
        origin = msgspec.structs.replace(origin, under=under)
    session = next((found for name in _SESSIONS if (found := identifier_of(record.get(name)))), "")
    reply = msgspec.structs.replace(reply, id=identifier, is_id_unique=False, salience=_salience(record), origin=origin)
    yield Conversation(
        turns=[*request_turns(request), reply],
        id=session,
        tools=openai_tools(request.get("tools")),
        is_whole=False,
    )


FORMAT = Format(
    name="request_log",
    title="Log of requests and responses",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="the file of a proxy or of an agent of one's own",
    feedback="`salience`, or `rating` of 1 or -1",
)
