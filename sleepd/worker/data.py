"""From an experience to token ids: the model's own chat format, the supervised part, truncation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sleepd.job import Lesson

from .channel import Channel
from .foreign_code import bounded_template

_SENTINEL = "\N{WHITE SQUARE}reply\N{WHITE SQUARE}"
"""Stands for a reply when a template is asked what it writes around one."""


@dataclass(frozen=True)
class Encoded:
    """One exchange as token ids. Supervised are ``ids[prompt_tokens:]``: the reply and the end of its turn."""

    id: str
    ids: tuple[int, ...]
    prompt_tokens: int
    weight: float = 1.0
    """What one of its tokens counts for in the loss, beside those of others."""
    is_truncated: bool = False
    sampling_share: float = 1.0
    """Share of the epochs that it is in."""
    order: int = 0
    """See ``Lesson.order``."""

    @property
    def supervised(self) -> int:
        """Number of supervised tokens."""
        return len(self.ids) - self.prompt_tokens


def total_tokens(sequences: Iterable[Encoded]) -> int:
    """Tokens of all of them, prompts included."""
    return sum(len(one.ids) for one in sequences)


@dataclass
class ChatFormat:
    """How this model writes a conversation: its chat template, or a plain form where it has none.

    The plain form is ``system``, an empty line, ``User: prompt``, a line ``Assistant:`` and the reply.
    """

    tokenizer: Any
    system_prompt: str
    lead: str = field(init=False, default=" ")
    """What stands between the prompt and the reply's first character."""
    end_of_turn: tuple[int, ...] = field(init=False)
    folds_system: bool = field(init=False, default=False)
    """Whether the template knows no system role, so that the system prompt opens the user's turn."""

    def __post_init__(self) -> None:
        end = self.tokenizer.eos_token_id
        self.end_of_turn = () if end is None else (end,)
        if self.has_template:
            self._read_template()

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer came with a chat template."""
        return bool(self.tokenizer.chat_template)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Everything before the reply, exactly as when the model is asked."""
        return self.talk_ids([prompt])

    def talk_ids(self, turns: Sequence[str]) -> list[int]:
        """Everything before the next reply of a talk. ``turns``: prompt, reply, prompt, … and a prompt last."""
        if self.has_template:
            return self._tokens(self._render(turns, asks=True))
        opening = self.tokenizer.bos_token or ""
        system = f"{self.system_prompt}\n\n" if self.system_prompt else ""
        said = [f"User: {turn}\nAssistant:" if i % 2 == 0 else f" {turn}\n\n" for i, turn in enumerate(turns)]
        return self._tokens(f"{opening}{system}{''.join(said)}")

    def reply_ids(self, reply: str) -> list[int]:
        """The reply, without the end of its turn."""
        return self._tokens(self.lead + reply.strip())

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, turns: Sequence[str], *, asks: bool) -> str:
        roles = ("user", "assistant")
        messages = [{"role": roles[number % 2], "content": turn} for number, turn in enumerate(turns)]
        if self.system_prompt and self.folds_system:
            messages[0]["content"] = f"{self.system_prompt}\n\n{turns[0]}"
        elif self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        # A template that thinks aloud is asked not to; the others do not look at the flag.
        with bounded_template():
            return str(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=asks, enable_thinking=False
                )
            )

    def _read_template(self) -> None:
        """Learn what the template writes around a reply, by giving it one."""
        from jinja2 import TemplateError

        try:
            whole = self._render(["prompt", _SENTINEL], asks=False)
        except TemplateError:
            # "System role not supported", as some templates raise.
            self.folds_system = True
            whole = self._render(["prompt", _SENTINEL], asks=False)
        before, _, after = whole.partition(_SENTINEL)
        asked = self._render(["prompt"], asks=True)
        self.lead = before[len(asked) :] if before.startswith(asked) else ""
        special = set(self.tokenizer.all_special_ids)
        tail = self._tokens(after)
        if tail and tail[0] in special:
            self.end_of_turn = (tail[0],)


def encode_exchange(
    chat: ChatFormat, id_: str, prompt: str, reply: str, max_tokens: int, *, weight: float = 1.0
) -> Encoded | None:
    """One exchange, at most ``max_tokens`` long; None where no reply token is left to supervise.

    A longer one loses the start of the user's prompt first, then the end of its reply. A reply that was cut is not
    followed by an end of turn: the model is not to learn to stop in the middle.
    """
    reply_ids = chat.reply_ids(reply)
    if not reply.strip() or not reply_ids:
        return None
    ending = [*reply_ids, *chat.end_of_turn]
    opening = chat.prompt_ids(prompt)
    excess = len(opening) + len(ending) - max_tokens
    if excess > 0:
        opening = _cut_prompt(chat, prompt, excess)
    room = max_tokens - len(opening)
    if room < 1:
        return None
    return Encoded(
        id=id_,
        ids=(*opening, *ending[:room]),
        prompt_tokens=len(opening),
        weight=weight,
        is_truncated=excess > 0,
    )


def _cut_prompt(chat: ChatFormat, prompt: str, excess: int) -> list[int]:
    """The prompt's ids with its first ``excess`` tokens of text left out; the template around it stays whole."""
    ids = chat.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return chat.prompt_ids(chat.tokenizer.decode(ids[excess:]) if excess < len(ids) else "")


def encode_lessons(chat: ChatFormat, lessons: Iterable[Lesson], max_tokens: int, channel: Channel) -> list[Encoded]:
    """Every lesson that has something to supervise, with notices on what was cut and what was left out.

    The weight is the salience; lessons without any salience weigh alike.
    """
    encoded: list[Encoded] = []
    dropped: list[str] = []
    for lesson in lessons:
        channel.beat()
        one = encode_exchange(
            chat, lesson.id, lesson.prompt, lesson.response, max_tokens, weight=max(lesson.salience, 0.0)
        )
        if one is None:
            dropped.append(lesson.id)
        else:
            encoded.append(replace(one, sampling_share=lesson.sampling_share, order=lesson.order))
    cut = [one.id for one in encoded if one.is_truncated]
    if cut:
        channel.notice(
            "experiences_truncated", f"{len(cut)} longer than {max_tokens} tokens were cut: {_some(cut)}", warning=True
        )
    if dropped:
        channel.notice(
            "experiences_left_out", f"{len(dropped)} have no reply token to learn from: {_some(dropped)}", warning=True
        )
    return encoded


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
