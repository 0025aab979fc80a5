"""Every format that is read, in the order in which a record is tried."""

from __future__ import annotations

from typing import Final

from .agent_logs import claude_code, codex, openclaw
from .call_logs import langfuse, litellm_log, otel_genai, request_log
from .chat_exports import chatgpt_export, librechat, open_webui, sillytavern, simonw_llm
from .format import Format, Record
from .training_files import alpaca, chatml, hermes, openai_messages, openai_preference, sharegpt, trl

FORMATS: Final[tuple[Format, ...]] = (
    otel_genai.FORMAT,
    litellm_log.FORMAT,
    langfuse.FORMAT,
    simonw_llm.FORMAT,
    codex.FORMAT,
    claude_code.FORMAT,
    openclaw.FORMAT,
    open_webui.CHATS,
    open_webui.FEEDBACK,
    chatgpt_export.FORMAT,
    librechat.FORMAT,
    sillytavern.FORMAT,
    openai_preference.FORMAT,
    hermes.FORMAT,
    sharegpt.FORMAT,
    trl.FORMAT,
    alpaca.FORMAT,
    chatml.FORMAT,
    request_log.FORMAT,
    openai_messages.FORMAT,
)
"""The first that recognises a record reads it. Our own short form (``experience.parse``) takes what is left."""


LIKE_OUR_OWN: Final = (simonw_llm.FORMAT, trl.FORMAT)
"""They have a prompt and a reply, too. With these two texts a record is none of the others, whatever else it holds."""


def format_of(record: Record, name: str = "auto") -> Format | None:
    """The format of a record: the named one, or the first that recognises it; None: none of them."""
    if name != "auto":
        return next((one for one in FORMATS if one.name == name and one.recognises(record)), None)
    reply = record.get("response", record.get("completion"))
    is_short = isinstance(record.get("prompt"), str) and isinstance(reply, str)
    return next((one for one in (LIKE_OUR_OWN if is_short else FORMATS) if one.recognises(record)), None)
