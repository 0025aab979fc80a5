"""The one place that turns a conversation into token ids and says which of them are supervised.

The whole conversation goes through the base's own template once and is tokenised once. Supervised is what the model
would have to generate: all that stands behind the generation prompt, up to the end of the reply's turn.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import cached_property
from typing import Any, Literal

import msgspec

from sleepd.protocol.chat_example import ChatExample, Message, ToolCall
from sleepd.worker.failure import GiveUp

from .chat_template import ChatTemplate, require_template, template_sources
from .control_tokens import Coder, ControlWords, Refused, Span, Tokens
from .messages import THOUGHT_TAGS, Context, Said, ThinkingMessage, Turn, tags_in, talk, with_ids
from .rendered_conversation import ConversationWriter, RenderedConversation
from .template_limits import LESS_SECONDS, SOME, TEXT_SECONDS, TemplateExceeded
from .template_probing import Habits, learn
from .tool_calls import parsed_tools, strings_in, texts_of
from .tool_probing import ToolHabits

RENDERING = 3
"""Changes with the code that renders, so that answers which were kept under another one are made again."""
Thoughts = Literal["as_written", "drop"]


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
        self.words = ControlWords(tokenizer, template_sources(tokenizer))
        self.template = ChatTemplate(tokenizer, system_prompt, self.words, day or datetime.now().astimezone().date())
        ends = (tokenizer.eos_token_id, *stops)
        self.stops = frozenset(number for number in ends if number is not None)
        self.stop_words = words = {str(tokenizer.convert_ids_to_tokens(number)) for number in self.stops}
        self.habits: Habits = learn(self.template, self.words, words, has_system=bool(system_prompt.strip()))
        self._writer = ConversationWriter(self.template, self.habits, self.words, words)
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
        whole = f"{RENDERING}\0{template_sources(self.tokenizer)}"
        return hashlib.sha256(whole.encode()).hexdigest()

    def tool_habits(self, *, offered: bool) -> ToolHabits:
        """How calls of tools and their results are written where tools are offered, or where none are."""
        return self._writer.tool_habits(offered=offered)

    # Asking

    def prompt_ids(self, prompt: str) -> list[int]:
        """Everything before the reply, exactly as it stands before one that is trained."""
        return self.talk_ids([prompt])

    def talk_ids(self, turns: Sequence[str], system: str = "") -> list[int]:
        """Everything before the next reply of a talk.

        Args:
            turns: prompt, reply, prompt, … and a prompt last.
            system: the talk's own system message; empty: the configured system prompt.

        Raises:
            GiveUp: ``base_unusable``, the template fails on these texts.
        """
        try:
            return self.asked_ids(self.shown(talk(turns, system)))
        except Refused as error:
            message = f"its chat template cannot be used for the prompt {turns[-1][:80]!r}: {error}"
            raise GiveUp("base_unusable", message, "use another template: chat_template.jinja") from error

    def asked_ids(self, context: Context) -> list[int]:
        """Everything before the reply.

        Raises:
            Refused: the template fails on these texts.
        """
        asked = self._writer.asked(context)
        return self._coder.encode(asked.text[: asked.start], _within(asked.texts, 0, asked.start)).ids

    def shown(self, context: Context, *, keeps_thoughts: bool = False) -> Context:
        """A context as it is rendered: templates leave the thoughts of earlier turns out.

        Some show those between two calls until the user speaks again; ``keeps_thoughts``: as they do.
        """
        messages = context.messages
        last = max((place for place, one in enumerate(messages) if one.role == "user"), default=-1)
        has_loop = keeps_thoughts and context.uses_tools
        keeps = has_loop and self.tool_habits(offered=bool(context.tools)).keeps_thoughts
        changed = (
            self._shown(one, keeps_thought=keeps and place > last) if one.role == "assistant" else one
            for place, one in enumerate(messages)
        )
        return replace(context, messages=tuple(changed))

    def _shown(self, message: Message, *, keeps_thought: bool) -> Message:
        if not tags_in(message.text):
            return message
        try:
            said = self.said(message.text, message.calls)
        except Refused:
            return message
        if keeps_thought and said.thought:
            parts = message.__class__.__struct_fields__
            kept = {name: getattr(message, name) for name in parts} | {"text": said.answer}
            return ThinkingMessage(**kept, thought=said.thought, tags=said.tags, gap=said.gap)
        return message if said.answer == message.text.rstrip() else msgspec.structs.replace(message, text=said.answer)

    # Training

    def note_excess(self, error: TemplateExceeded) -> None:
        """Remember that the template takes too much for an experience; after some of them it gets less time."""
        self.exceeded.append(error)
        if len(self.exceeded) >= SOME:
            self.template.most_seconds = LESS_SECONDS

    def split(self, example: ChatExample) -> tuple[Context, Said]:
        """What stands before a reply, and the reply, as they are rendered.

        Raises:
            Refused: the reply opens a thought that it never closes, or has nothing but a thought.
        """
        said = self.said(example.response, example.calls)
        context, calls = with_ids(Context(example.messages, example.tools), said.calls)
        return self.shown(context, keeps_thoughts=True), replace(said, calls=calls)

    def said(self, reply: str, calls: tuple[ToolCall, ...] = ()) -> Said:
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
                if not (answer.strip() or calls):
                    raise Refused("it has a thought and no answer")
                gap = gap if answer else reply[len(written) :]
                has_thought = bool(thought.strip()) and self.thoughts == "as_written"
                return Said(answer, thought if has_thought else "", tags, gap, calls)
            if written.lstrip().startswith(tags[0]):
                raise Refused(f"it opens a thought ({tags[0]}) that it never closes")
        return Said(written, calls=calls)

    def holds_control_words(self, example: ChatExample) -> bool:
        """Whether a text holds what is a control token where the template writes it. A thought's tags do not count."""
        try:
            context, said = self.split(example)
            turns: list[Turn] = [*context.messages, said]
            texts = [text for turn in turns for text in texts_of(turn)]
            texts += strings_in(parsed_tools(context.tools))
        except Refused:
            return False
        return any(self.words.found_in(text) for text in texts)

    def hides_tools(self, example: ChatExample) -> bool:
        """Whether tools were offered that the template does not write."""
        return bool(example.tools) and not self.tool_habits(offered=True).shows_tools

    def conversation(self, context: Context, reply: Said) -> RenderedConversation:
        """A reply and what stands before it.

        Raises:
            Refused: it cannot be written as what it is.
        """
        return self._writer.write(context, reply)

    def encode(self, written: RenderedConversation) -> tuple[list[int], int, int]:
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
    def structure(written: RenderedConversation) -> str:
        """What the template wrote itself, with an empty line where a text stands."""
        at, parts = 0, []
        for start, end in sorted(written.texts):
            parts.append(written.text[at:start])
            at = end
        return "\n\n".join([*parts, written.text[at:]])

    def count(self, text: str) -> int:
        """Tokens of a text by itself."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def tokens_before(self, written: RenderedConversation) -> dict[str, int]:
        """How many tokens stand before each text."""
        tokens = self._coder.encode(written.text, written.texts)
        starts = [start for start, _ in tokens.spans]
        return {label: bisect_left(starts, place) for label, (place, _) in written.places.items()}

    def cut(self, prompt: str, tokens: int) -> str:
        """``prompt`` without its first ``tokens`` tokens."""
        found = self._coder.encode(prompt, [(0, len(prompt))])
        return prompt[found.spans[tokens][0] :] if tokens < len(found.ids) else ""

    def continuation(self, context: Context, text: str) -> tuple[list[int], int]:
        """A thought without an end that was generated behind a context, and how many tokens stand before it."""
        asked = self.asked_ids(context)
        opening = next((tags[0] for tags in THOUGHT_TAGS if text.lstrip().startswith(tags[0])), "")
        thought_at = text.find(opening) + len(opening)
        return [*asked, *self._coder.encode(text, [(thought_at, len(text))]).ids], len(asked)

    def _text(self, tokens: Tokens) -> str:
        return str(self.tokenizer.decode(tokens.ids, clean_up_tokenization_spaces=False))


def _within(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    """The spans between ``start`` and ``end``, counted from ``start``."""
    return [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start]
