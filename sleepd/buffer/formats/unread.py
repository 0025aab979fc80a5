"""Files of programs that are not read: they are named in one sentence, instead of one complaint a record. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

_TO_DO: Final = "which is not read: export the conversations as OpenAI messages (config/README.md, Formats)"


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda record: all(name in record for name in names)


_PROGRAMS: Final[tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...]] = (
    ("a Letta dump", lambda record: "message_type" in record),
    ("a LangGraph checkpoint", _has("channel_values")),
    ("a LangChain dump", lambda record: record.get("lc") == 1),
    (
        "a LangChain message history",
        lambda record: {"type", "data"} == set(record) and isinstance(record["data"], Mapping),
    ),
    ("a Langfuse scores file, which belongs beside the observations", _has("observation_id", "trace_id", "value")),
)


def unread_program(record: Any) -> str:
    """What a record looks like and what to do; empty: it looks like nothing that is known."""
    if not isinstance(record, Mapping):
        return ""
    name = next((name for name, is_one in _PROGRAMS if is_one(record)), "")
    return f"this looks like {name}, {_TO_DO}" if name else ""
