"""Files of programs that are not read: they are named in one sentence, instead of one complaint a record. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_CONVERT: Final = "convert the conversations into OpenAI messages (config/README.md, Formats)"


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda record: all(name in record for name in names)


def _is_history(record: Mapping[str, Any]) -> bool:
    return {"type", "data"} == set(record) and isinstance(record["data"], Mapping)


def _is_serialised(record: Mapping[str, Any]) -> bool:
    return "lc" in record and record.get("type") in ("constructor", "not_implemented", "secret")


_OWN_KEYS: Final = frozenset({"prompt", "salience"})
"""One of these, or a reply that is no body of a response, is in a record of our own short form, whatever is wrong."""
_OWN_REPLIES: Final = ("response", "completion")
_SHOWN_KEYS: Final = 5
_KEY: Final = re.compile(r"[A-Za-z_.-]{1,24}[0-9]{0,2}")
"""What is shown of an unknown record's keys: words, and no name, number or secret that a program uses as a key."""
_PROGRAMS: Final[tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool]], ...]] = (
    ("a Letta dump", f"ask the server for the agent's messages and {_CONVERT}", _has("message_type")),
    ("a Letta agent file", f"ask the server for the agent's messages and {_CONVERT}", _has("agents", "mcp_servers")),
    ("a LangGraph checkpoint", f"take the messages out with graph.get_state(…) and {_CONVERT}", _has("channel_values")),
    (
        "a LangGraph state",
        f"take the messages out with graph.get_state(…) and {_CONVERT}",
        _has("values", "next", "config"),
    ),
    ("a LangChain dump", f"use convert_to_openai_messages of langchain_core and {_CONVERT}", _is_serialised),
    ("a LangChain message history", f"use convert_to_openai_messages of langchain_core and {_CONVERT}", _is_history),
    (
        "a Langfuse scores file",
        "put it beside the exported observations as scores.jsonl, and let buffer.path name the observations",
        lambda record: "trace_id" in record and "data_type" in record and "value" in record,
    ),
    (
        "a feedback file",
        "put it beside the conversations that it rates as feedback.jsonl, and let buffer.path name the conversations",
        lambda record: "rating" in record and ("id" in record or "conversation" in record) and "messages" not in record,
    ),
    (
        "a log file of OpenTelemetry",
        "let the instrumentation put the messages on its spans, and let buffer.path name the file of the spans; "
        "evaluation results count as ratings where the log file stands beside it as scores.jsonl",
        _has("resourceLogs"),
    ),
    ("a metrics file of OpenTelemetry", "let buffer.path name the file of the spans", _has("resourceMetrics")),
)
_FILES: Final = (
    (
        b"SQLite format 3\0",
        "an SQLite database",
        "export it (llm: llm logs -n 0 --json --expand > FILE; Open WebUI: Export Chats in the settings)",
    ),
    (b"\x1f\x8b", "a gzip file", "unpack it (gunzip)"),
    (b"PK\x03\x04", "a zip archive", "unpack it (unzip)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it (unzstd)"),
    (b"BZh", "a bzip2 file", "unpack it (bunzip2)"),
    (b"\xfd7zXZ\0", "an xz file", "unpack it (unxz)"),
    (b"PAR1", "a Parquet file", "write it as JSON lines (with pandas: read_parquet, then to_json with lines=True)"),
    (b"Obj\x01", "an Avro file", "write it as JSON lines"),
)
"""By their first bytes."""


def unread_program(record: Any) -> str:
    """What a record looks like and what to do; empty: it looks like nothing that is known."""
    if not isinstance(record, Mapping):
        return ""
    return next((_sentence(name, step) for name, step, is_one in _PROGRAMS if is_one(record)), "")


def unknown_record(record: Any) -> str:
    """What a record is that is of no format, nor of a known program, and what to do; empty: it is of one."""
    if isinstance(record, Mapping):
        has_reply = any(not isinstance(record.get(name, {}), Mapping | list) for name in _OWN_REPLIES)
        if unread_program(record) or has_reply or not _OWN_KEYS.isdisjoint(record):
            return ""
        keys = [key for key in list(record)[:_SHOWN_KEYS] if _KEY.fullmatch(key)]
        what = f"with {', '.join(keys) or 'none of the keys that are known'}"
    elif isinstance(record, list):
        what = "that is a list"
    else:
        return ""
    return f"this looks like no format that is read, a record {what}: {_CONVERT}"


def unread_file(head: bytes) -> str:
    """What a file that is no text is, by its first bytes, and what to do; empty: it is nothing that is known."""
    return next((_sentence(name, step) for magic, name, step in _FILES if head.startswith(magic)), "")


def _sentence(name: str, step: str) -> str:
    return f"this looks like {name}, which is not read: {step}"
