"""LiteLLM's standard logging payload, one call a record.

Shape: ``messages`` and ``response`` as sent and received, ``model_parameters.tools``, ``status``, ``cache_hit``. A
streamed response stands there put together. Each call repeats what was said before: only its response is learned.
Nothing becomes the salience: ``request_tags`` and ``end_user`` say nothing about the reply.
Left out and named: calls that failed, and calls whose texts LiteLLM has redacted or left out. Left out without a word:
calls that are no chat (embeddings, images), and responses out of the cache, which give an earlier reply again.
Source: https://docs.litellm.ai/docs/proxy/logging_spec
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from sleepd.buffer.conversation import Conversation
from sleepd.buffer.experience import said_under
from sleepd.buffer.formats.format import Format, NotRead, Record, identifier_of, openai_tools
from sleepd.buffer.formats.shared_parts.api_bodies import reply_turn, request_turns
from sleepd.buffer.reply_origin import origin_of

_REDACTED: Final = "redacted-by-litellm"
_CALLS: Final = ("completion", "responses", "messages")
"""In the names of the calls that are a chat: ``acompletion``, ``anthropic_messages`` …"""


def _recognises(record: Record) -> bool:
    return "call_type" in record and "model_parameters" in record and ("response" in record or "messages" in record)


def _session(metadata: Any) -> str:
    """The program's name of the conversation. LiteLLM's own trace id is one of a single request."""
    for found in (metadata, metadata.get("requester_metadata") if isinstance(metadata, Mapping) else None):
        if isinstance(found, Mapping):
            for name in ("session_id", "session", "conversation_id"):
                if session := identifier_of(found.get(name)):
                    return session
    return ""


def _conversations(record: Record) -> Iterator[Conversation]:
    if not any(name in str(record["call_type"]) for name in _CALLS) or record.get("cache_hit") is True:
        return
    if record.get("status") == "failure":
        raise NotRead("status: the call failed, it has no reply")
    messages, response = record.get("messages"), record.get("response")
    if not messages:
        raise NotRead("messages: expected those of the request, found none: let LiteLLM log them")
    if _REDACTED in (response, response.get("text") if isinstance(response, Mapping) else None) or _is_redacted(
        messages
    ):
        raise NotRead("messages: LiteLLM has redacted them (turn_off_message_logging), nothing can be learned")
    given = record["model_parameters"]
    parameters = given if isinstance(given, Mapping) else {}
    request = {"messages": messages} if isinstance(messages, list) else {"input": messages}
    instructions = {name: parameters[name] for name in ("system", "instructions") if name in parameters}
    reply = reply_turn(response)
    metadata = record.get("metadata")
    origin = origin_of(record.get("model"), record.get("endTime"), record.get("startTime"))
    if under := said_under(metadata):
        origin = msgspec.structs.replace(origin, under=under)
    yield Conversation(
        turns=[
            *request_turns({**request, **instructions}),
            msgspec.structs.replace(
                reply,
                id=reply.id or identifier_of(record.get("id")),
                is_id_unique=False,
                origin=origin,
            ),
        ],
        id=_session(metadata),
        tools=openai_tools(parameters.get("tools")),
        is_whole=False,
    )


def _is_redacted(messages: Any) -> bool:
    return isinstance(messages, list) and any(
        isinstance(each, Mapping) and each.get("content") == _REDACTED for each in messages
    )


FORMAT = Format(
    name="litellm",
    title="LiteLLM standard logging payload",
    recognises=_recognises,
    conversations=_conversations,
    usual_place="the file or bucket of a LiteLLM callback",
)
