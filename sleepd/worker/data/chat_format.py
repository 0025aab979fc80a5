"""The one place that turns a conversation into token ids and says which of them are supervised.

The whole conversation goes through the base's own template once and is tokenised once. Supervised is what the model
would have to generate: all that stands behind the generation prompt, up to the end of the reply's turn.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from typing import Any, Literal

from sleepd.worker.failure import GiveUp

from .chat_template import (
    PROMPT,
    REPLY,
    THOUGHT,
    THOUGHT_TAGS,
    ChatTemplate,
    Rendering,
    Said,
    require_template,
    template_source,
)
from .control_tokens import Coder, ControlWords, Refused, Span, Tokens
from .template_limits import LESS_SECONDS, SOME, TEXT_SECONDS, TemplateExceeded
from .template_probing import Habits, learn, tags_in

RENDERING = 3
"""Changes with the code that renders, so that answers which were kept under another one are made again."""
Thoughts = Literal["as_written", "drop"]
_ANY_REPLY = Said("…")


@dataclass(frozen=True)
class Conversation:
    """A conversation up to the end of its last reply's turn, as text."""

    text: str
    texts: tuple[Span, ...]
    """What in it people and the model said."""
    prompt: Span | None
    """Where the first prompt stands; None: it is empty."""
    start: int
    """Where what is supervised begins."""
    reply_end: int


class ChatFormat:
    """How this base writes a conversation: by its chat template, or in a plain form where it has none.

    Args:
        tokenizer: of the base, with its template.
        system_prompt: what the agent runs with; empty: the template's own default.
        thoughts: whether a thought before a reply is trained as it was written, or left out.
        stops: tokens at which generation of this base stops, beside the tokenizer's own end of a sequence.
        day: for a template that writes the date; None: today.

    Raises:
        GiveUp: ``base_unusable``.
    """

    def __init__(
        self,
        tokenizer: Any,
        system_prompt: str,
        *,
        thoughts: Thoughts = "as_written",
        stops: Collection[int] = (),
        day: date | None = None,
    ) -> None:
        require_template(tokenizer)
        if not tokenizer.is_fast:
            raise GiveUp(
                "base_unusable",
                f"its tokenizer ({type(tokenizer).__name__}) does not tell where in a text each token stands",
                "it needs a fast one: a tokenizer.json beside the base",
            )
        self.tokenizer = tokenizer
        self.thoughts = thoughts
        self.words = ControlWords(tokenizer, template_source(tokenizer))
        self.template = ChatTemplate(tokenizer, system_prompt, self.words, day or datetime.now().astimezone().date())
        ends = (tokenizer.eos_token_id, *stops)
        self.stops = frozenset(number for number in ends if number is not None)
        words = {str(tokenizer.convert_ids_to_tokens(number)) for number in self.stops}
        self.habits: Habits = learn(self.template, self.words, words, has_system=bool(system_prompt.strip()))
        self._coder = Coder(tokenizer, self.words)
        self.template.most_seconds = TEXT_SECONDS
        self.exceeded: list[TemplateExceeded] = []
        """What the template took too long or too much memory for, experience by experience."""

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer came with a chat template."""
        return bool(self.tokenizer.chat_template)

    @cached_property
    def end_of_turn(self) -> tuple[int, ...]:
        """What ends a reply's turn."""
        return tuple(self._coder.encode(self.habits.end, ()).ids)

    @property
    def stop_id(self) -> int | None:
        """The token of it at which a reply ends; None: it has no control token."""
        structural = [number for number in self.end_of_turn if number in self.words.by_id]
        return next((number for number in structural if number in self.stops), structural[0] if structural else None)

    @cached_property
    def digest(self) -> str:
        """Changes with the template and with how it is rendered."""
        whole = f"{RENDERING}\0{self.template.source}"
        return hashlib.sha256(whole.encode()).hexdigest()

    # Asking

    def prompt_ids(self, prompt: str) -> list[int]:
        """Everything before the reply, exactly as it stands before one that is trained."""
        return self.talk_ids([prompt])

    def talk_ids(self, turns: Sequence[str]) -> list[int]:
        """Everything before the next reply of a talk. ``turns``: prompt, reply, prompt, … and a prompt last.

        Raises:
            GiveUp: ``base_unusable``, the template fails on these texts.
        """
        # Templates leave the thoughts of earlier turns out.
        talk = [self._without_thought(turn) if number % 2 else turn for number, turn in enumerate(turns)]
        try:
            asked = self._of_answer(talk, _ANY_REPLY)
            return self._coder.encode(asked.text[: asked.start], _within(asked.texts, 0, asked.start)).ids
        except Refused as error:
            message = f"its chat template cannot be used for the prompt {turns[-1][:80]!r}: {error}"
            raise GiveUp("base_unusable", message, "use another template: chat_template.jinja") from error

    def _without_thought(self, reply: str) -> str:
        try:
            return self.said(reply).answer
        except Refused:
            return reply

    # Training

    def note_excess(self, error: TemplateExceeded) -> None:
        """Remember that the template takes too much for an experience; after some of them it gets less time."""
        self.exceeded.append(error)
        if len(self.exceeded) >= SOME:
            self.template.most_seconds = LESS_SECONDS

    def said(self, reply: str) -> Said:
        """A reply as it was written, split into thought and answer; white space behind it is left out.

        Raises:
            Refused: it opens a thought that it never closes, or has nothing but a thought.
        """
        written = reply.rstrip()
        for tags in THOUGHT_TAGS:
            opening, closing = map(re.escape, tags)
            start = "" if self.habits.opened == tags and tags[0] not in written else rf"\s*{opening}"
            found = re.match(rf"{start}(.*?){closing}((?:[^\S\n]*\n)*)(.*)", written, re.DOTALL)
            if found:
                thought, gap, answer = found.groups()
                if not answer.strip():
                    raise Refused("it has a thought and no answer")
                has_thought = bool(thought.strip()) and self.thoughts == "as_written"
                return Said(answer, thought if has_thought else "", tags, gap)
            if written.lstrip().startswith(tags[0]):
                raise Refused(f"it opens a thought ({tags[0]}) that it never closes")
        return Said(written)

    def holds_control_words(self, prompt: str, reply: str) -> bool:
        """Whether a text holds what is a control token where the template writes it. A thought's tags do not count."""
        try:
            said = self.said(reply)
        except Refused:
            return False
        return any(self.words.found_in(text) for text in (prompt, said.answer, said.thought))

    def conversation(self, prompt: str, reply: Said) -> Conversation:
        """One prompt and the reply to it.

        Raises:
            Refused: it cannot be written as what it is.
        """
        for what, text in (("prompt", prompt), ("reply", reply.answer), ("thought", reply.thought)):
            for header in self.habits.headers:
                found = header.search(text)
                if found:
                    raise Refused(f"its {what} holds {found.group().strip()!r}, which begins a turn in this template")
        if not reply.thought.strip():
            return self._of_answer([prompt], reply)
        return self._of_thought([prompt], reply)

    def _of_answer(self, turns: Sequence[str], reply: Said) -> Conversation:
        flags = self.habits.flags
        asked = self.template.render(turns, asks=True, flags=flags)
        if self.habits.closed_lead is not None:
            return self._behind(asked, turns, reply, flags, self.habits.closed_lead)
        whole = self.template.render([*turns, reply], flags=flags)
        place, behind = self._place(whole, REPLY)[0], len(asked.text)
        if whole.text.startswith(asked.text) and behind <= place and not tags_in(whole.text[behind:place]):
            return self._to_the_end(whole, behind)
        if reply.answer[:1].isspace():
            # White space before its first word is the reply's only if it is not there before another reply.
            other = self.template.render([*turns, _ANY_REPLY], flags=flags)
            at = self._place(other, REPLY)[0]
            place = at if whole.text.startswith(other.text[:at]) else place
        return self._to_the_end(whole, place)

    def _of_thought(self, turns: Sequence[str], reply: Said) -> Conversation:
        flags, key = self.habits.thought_flags, self.template.thought_key
        asked = self.template.render(turns, asks=True, flags=flags)
        if not key and not self.habits.can_think:
            raise Refused("it has a thought, and this base is asked behind a closed one: set training.thoughts to drop")
        if not key:
            return self._behind(asked, turns, self._in_own_tags(reply), flags)
        whole = self.template.render([*turns, reply], flags=flags)
        place = self._place(whole, THOUGHT)[0]
        if whole.text.startswith(asked.text) and len(asked.text) <= place:
            return self._to_the_end(whole, len(asked.text))
        if self.habits.opened:
            return self._behind(asked, turns, reply, flags)
        opens_at = max(whole.text.rfind(opening, 0, place) for opening, _ in THOUGHT_TAGS)
        return self._to_the_end(whole, place if opens_at < 0 else opens_at)

    def _in_own_tags(self, reply: Said) -> Said:
        tags = self.template.own_tags
        if tags is None or tags == reply.tags:
            return reply
        return replace(reply, thought=f"\n{reply.thought.strip()}\n", tags=tags, gap="")

    def _behind(
        self, asked: Rendering, turns: Sequence[str], reply: Said, flags: Mapping[str, Any], lead: str = ""
    ) -> Conversation:
        """The reply as it was said, behind the generation prompt."""
        ending = self.habits.tail
        whole = self.template.render(turns, asks=True, flags=flags, continuation=reply, lead=lead, ending=ending)
        return self._to_the_end(whole, len(asked.text))

    def _to_the_end(self, whole: Rendering, start: int) -> Conversation:
        end = self._place(whole, REPLY)[1]
        if whole.text[end:] not in (self.habits.tail, self.habits.thought_tail):
            raise Refused("the chat template ends this reply otherwise than others")
        text = whole.text[:end] + self.habits.end
        return Conversation(text, whole.texts, whole.places.get(PROMPT), start, end)

    @staticmethod
    def _place(whole: Rendering, label: str) -> Span:
        if label not in whole.places:
            raise Refused(f"the chat template loses the text of the {label}")
        return whole.places[label]

    def encode(self, written: Conversation) -> tuple[list[int], int, int]:
        """Its token ids, how many of them stand before what is supervised, and how many up to the reply's end.

        The first ones are those that the model is asked with. Where one token would reach across that border, the two
        sides are tokenised apart, unless that would change the text, as it does for tokenizers that put a blank before
        a text: then the token is supervised.

        Raises:
            Refused: a control word in a text cannot be encoded as characters by this tokenizer.
        """
        whole = self._coder.encode(written.text, written.texts)
        asked = self._coder.encode(written.text[: written.start], _within(written.texts, 0, written.start))
        prompt_tokens = len(asked.ids)
        if whole.ids[:prompt_tokens] != asked.ids:
            rest = _within(written.texts, written.start, len(written.text))
            joined = asked.then(self._coder.encode(written.text[written.start :], rest), written.start)
            if self._text(joined) == self._text(whole):
                whole = joined
            else:
                prompt_tokens = whole.before(written.start)
        return whole.ids, prompt_tokens, whole.before(written.reply_end)

    @staticmethod
    def structure(written: Conversation) -> str:
        """What the template wrote itself, with an empty line where a text stands."""
        at, parts = 0, []
        for start, end in sorted(written.texts):
            parts.append(written.text[at:start])
            at = end
        return "\n\n".join([*parts, written.text[at:]])

    def cut(self, prompt: str, tokens: int) -> str:
        """``prompt`` without its first ``tokens`` tokens."""
        found = self._coder.encode(prompt, [(0, len(prompt))])
        return prompt[found.spans[tokens][0] :] if tokens < len(found.ids) else ""

    def continuation(self, prompt: str, text: str) -> tuple[list[int], int]:
        """A thought without an end that was generated behind ``prompt_ids``, and how many tokens stand before it."""
        asked = self.prompt_ids(prompt)
        opening = next((tags[0] for tags in THOUGHT_TAGS if text.lstrip().startswith(tags[0])), "")
        thought_at = text.find(opening) + len(opening)
        return [*asked, *self._coder.encode(text, [(thought_at, len(text))]).ids], len(asked)

    def _text(self, tokens: Tokens) -> str:
        return str(self.tokenizer.decode(tokens.ids, clean_up_tokenization_spaces=False))


def _within(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    """The spans between ``start`` and ``end``, counted from ``start``."""
    return [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start]
