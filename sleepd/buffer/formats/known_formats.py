"""Every format that is read, in the order in which a record is tried."""

from __future__ import annotations

from typing import Final

from .agent_logs import claude_code, codex, openclaw
from .call_logs import langfuse, litellm_log, otel_genai, request_log
from .chat_exports import chatgpt_export, librechat, open_webui, sillytavern, simonw_llm
from .format import Format
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
