"""From an experience to token ids: the model's own chat format, the supervised part, truncation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from sleepd.protocol.chat_example import ChatExample
from sleepd.protocol.job import TrainingExample
from sleepd.worker.channel import Channel

from .bounding import Bounded, bounded
from .chat_format import ChatFormat
from .control_tokens import Refused
from .messages import ANY_REPLY, Context, Said
from .template_limits import TemplateExceeded

_REASONS = 5
"""Why experiences are left out, in so many notices."""


@dataclass(frozen=True)
class Encoded:
    """One chat example as token ids. Supervised are ``ids[prompt_tokens:]``: the reply and the end of its turn."""

    id: str
    ids: tuple[int, ...]
    prompt_tokens: int
    weight: float = 1.0
    """What one of its tokens counts for in the loss, beside those of others."""
    is_truncated: bool = False
    lost_messages: int = 0
    """How many of its oldest messages were left out."""
    sampling_share: float = 1.0
    """Share of the epochs that it is in."""
    order: int = 0
    """See ``TrainingExample.order``."""
    conversation: str = ""
    """See ``ChatExample.conversation``."""

    @property
    def supervised(self) -> int:
        """Number of supervised tokens."""
        return len(self.ids) - self.prompt_tokens


def total_tokens(sequences: Iterable[Encoded]) -> int:
    """Tokens of all of them, prompts included."""
    return sum(len(one.ids) for one in sequences)


def encode_chat(
    chat: ChatFormat, id_: str, example: ChatExample, max_tokens: int, *, weight: float = 1.0
) -> Encoded | None:
    """As :func:`encode_or_refuse`; None where it cannot be trained, or where no reply token is left to supervise."""
    try:
        return encode_or_refuse(chat, example, max_tokens, id_=id_, weight=weight)
    except Refused:
        return None


def encode_or_refuse(
    chat: ChatFormat, example: ChatExample, max_tokens: int, *, id_: str = "", weight: float = 1.0
) -> Encoded:
    """One chat example, at most ``max_tokens`` long.

    A longer one loses of what stands before its reply first (``bounding``), then the end of its reply. A reply that was
    cut is not followed by an end of turn: the model is not to learn to stop in the middle.

    Raises:
        Refused: it cannot be trained as what it is; the message says why.
    """
    if not example.response.strip() and not example.calls:
        raise Refused("it has no reply")
    found = _bounded(chat, *chat.split(example), max_tokens)
    ids = found.ids if len(found.ids) <= max_tokens else found.ids[: min(max_tokens, found.reply_end)]
    if len(ids) <= found.prompt_tokens:
        raise Refused(f"it has no reply token within {max_tokens} tokens")
    return Encoded(
        id=id_,
        ids=tuple(ids),
        prompt_tokens=found.prompt_tokens,
        weight=weight,
        is_truncated=found.is_cut,
        lost_messages=found.lost_messages,
    )


def _bounded(chat: ChatFormat, context: Context, reply: Said, max_tokens: int) -> Bounded:
    try:
        return bounded(chat, context, reply, max_tokens)
    except TemplateExceeded as error:
        # The contract's sample came through: it is this text.
        chat.note_excess(error)
        raise Refused(error.message) from error


def asked_ids(chat: ChatFormat, example: ChatExample, max_tokens: int) -> list[int]:
    """What a model is asked with for a reply to what stands before this one, at most ``max_tokens`` long.

    Raises:
        Refused: as :func:`encode_or_refuse`.
    """
    found = _bounded(chat, chat.split(example)[0], ANY_REPLY, max_tokens)
    return found.ids[: found.prompt_tokens]


def encode_generated(chat: ChatFormat, id_: str, example: ChatExample, text: str, max_tokens: int) -> Encoded | None:
    """What a model generated as the reply. A thought that it did not come to close is no answer, and has no end."""
    try:
        chat.said(text)
    except Refused:
        ids, prompt_tokens = chat.continuation(chat.split(example)[0], text)
        is_whole = prompt_tokens < len(ids) <= max_tokens
        return Encoded(id=id_, ids=tuple(ids), prompt_tokens=prompt_tokens) if is_whole else None
    return encode_chat(chat, id_, msgspec.structs.replace(example, response=text), max_tokens)


def encode_examples(
    chat: ChatFormat, examples: Iterable[TrainingExample], max_tokens: int, channel: Channel
) -> list[Encoded]:
    """Every example that has something to supervise, with notices on what was cut and what was left out.

    The weight is the salience; examples without any salience weigh alike.
    """
    encoded: list[Encoded] = []
    refused: dict[str, list[str]] = {}
    forged: list[str] = []
    unshown: list[str] = []
    for example in examples:
        channel.beat()
        weight = max(example.salience, 0.0)
        try:
            one = encode_or_refuse(chat, example, max_tokens, id_=example.id, weight=weight)
        except Refused as error:
            refused.setdefault(str(error), []).append(example.id)
        else:
            share, conversation = example.sampling_share, example.conversation
            encoded.append(replace(one, sampling_share=share, order=example.order, conversation=conversation))
            forged += [example.id] * chat.holds_control_words(example)
            unshown += [example.id] * chat.hides_tools(example)
    if cut := [one for one in encoded if one.is_truncated]:
        channel.notice("experiences_truncated", _cut_text(cut, max_tokens), warning=True)
    if unshown:
        text = f"{len(unshown)} offer tools that the chat template of this base does not write: {_some(unshown)}"
        channel.notice("tools_not_shown", text)
    if forged:
        text = f"{len(forged)} hold control words of this model, encoded as plain characters: {_some(forged)}"
        channel.notice("control_words_in_texts", text)
    for reason, ids in _fewest(refused):
        channel.notice(
            "experiences_left_out", f"{len(ids)} not trained or measured ({_some(ids)}): {reason}", warning=True
        )
    return encoded


def _cut_text(cut: list[Encoded], max_tokens: int) -> str:
    ids = [one.id for one in cut]
    lost = sum(one.lost_messages > 0 for one in cut)
    turns = f"; {lost} of them lost whole messages, the oldest ones" if lost else ""
    return f"{len(cut)} longer than {max_tokens} tokens were cut: {_some(ids)}{turns}"


def _fewest(refused: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    """The most frequent reasons; the others, which may quote as many texts, are one."""
    ranked = sorted(refused.items(), key=lambda one: -len(one[1]))
    rest = [id_ for _, ids in ranked[_REASONS:] for id_ in ids]
    return ranked[:_REASONS] + ([("other reasons: sleepctl tokens ID says which", rest)] if rest else [])


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
