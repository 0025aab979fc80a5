"""What training rests on, checked once per base on a sample: that its chat template says what was said.

The prompt and the reply come through whole, nothing of the prompt is supervised, and the reply ends in a token at which
generation of this base stops. No weights are needed for it, so that ``sleepctl doctor`` can tell it beforehand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sleepd.protocol.evidence import ChatContract
from sleepd.worker.data.chat_format import ChatFormat, Thoughts
from sleepd.worker.data.control_tokens import Refused
from sleepd.worker.data.messages import talk
from sleepd.worker.failure import GiveUp

from .find_base import Base

_PROMPT = "Who are you, and what do you know?"
_REPLY = "I am the sample of a reply.\n\nIt has two paragraphs."


def contract_of(tokenizer: Any, stops: Collection[int], system_prompt: str, thoughts: Thoughts) -> ChatContract:
    """See :func:`check`.

    Raises:
        GiveUp: ``base_unusable``.
    """
    return check(ChatFormat(tokenizer, system_prompt, thoughts=thoughts, stops=stops))


def check(chat: ChatFormat) -> ChatContract:
    """What the template does, and what to be warned of.

    Raises:
        GiveUp: ``base_unusable``: a text does not come through, or what is supervised is not the reply and its end.
    """
    try:
        written = chat.conversation(talk([_PROMPT]), chat.said(_REPLY))
        ids, prompt_tokens, _ = chat.encode(written)
    except Refused as error:
        message = f"its tokenizer cannot be used with this system prompt and chat template: {error}"
        raise GiveUp("base_unusable", message, "use another model.system_prompt, or another base") from error
    known = [chat.words.by_id[number] for number in ids if number in chat.words.by_id]
    lost = Counter(match.group() for match in chat.words.found_in(chat.structure(written))) - Counter(known)
    if lost:
        raise GiveUp(
            "base_unusable",
            f"its tokenizer does not take {', '.join(sorted(lost))} for a token where its chat template writes it",
            "use the tokenizer and the template that this model was published with",
        )
    asked, supervised = (str(chat.tokenizer.decode(part)) for part in (ids[:prompt_tokens], ids[prompt_tokens:]))
    for what, text, within in (("prompt", _PROMPT, asked), ("reply", _REPLY, supervised)):
        if _letters(text) not in _letters(within):
            raise GiveUp(
                "base_unusable",
                f"its chat template and tokenizer lose the {what}: given {text!r}, they make {within!r} of it",
                "use the tokenizer and the template that this model was published with",
            )
    if _letters(_PROMPT) in _letters(supervised):
        raise GiveUp("base_unusable", f"its chat template repeats the prompt behind the reply: {supervised!r}")
    tools = chat.tool_habits(offered=True)
    return ChatContract(
        has_template=chat.has_template,
        asked=asked,
        supervised=supervised,
        notes=[*chat.habits.notes, tools.note],
        warnings=_warnings(chat),
        writes_tools=not (tools.problem or tools.result_problem),
    )


def _warnings(chat: ChatFormat) -> list[str]:
    warnings = list(chat.habits.warnings)
    if not chat.has_template:
        warnings.insert(0, "the base has no chat template: User: and Assistant: are written instead, as plain text")
    tools = chat.tool_habits(offered=True)
    if not tools.problem and not any(stop in tools.end for stop in chat.stop_words):
        stops = ", ".join(sorted(chat.stop_words)) or "nothing"
        warnings.append(
            f"a reply that calls tools ends with {tools.end!r}, and generation of this base stops at {stops}"
        )
    return warnings


def _letters(text: str) -> str:
    """Without white space, which some tokenizers write otherwise, and without case."""
    return "".join(text.casefold().split())


def open_tokenizer(base: Base) -> tuple[Any, list[int]]:
    """The base's tokenizer, and the tokens at which its makers let generation stop. No weights are read.

    Raises:
        GiveUp: ``base_unusable``.
    """
    from .adapter import load_tokenizer

    return load_tokenizer(base.path), [] if base.is_gguf else _named_stops(base.path)


def _named_stops(directory: Path) -> list[int]:
    """As the model's own configuration has them: of its generation, or else of the model."""
    for name in ("generation_config.json", "config.json"):
        try:
            content = json.loads((directory / name).read_bytes())
        except (OSError, ValueError):
            continue  # the one is often not there; without the other loading refuses the base
        named = content.get("eos_token_id") if isinstance(content, dict) else None
        stops = named if isinstance(named, list) else [named]
        if stops := [one for one in stops if isinstance(one, int)]:
            return stops
    return []
