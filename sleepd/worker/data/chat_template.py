"""A conversation as the base's own chat template writes it, and where in it each text stands (``marks``)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from sleepd.protocol.chat_example import Message
from sleepd.worker.failure import GiveUp

from .control_tokens import ControlWords, Refused, Span
from .marks import ARGUMENT, Marks, NoMarks, Rendering
from .messages import REPLY, THOUGHT, Said, ThinkingMessage, Turn, labels, opened_thought
from .template_limits import TEMPLATE_SECONDS, bounded_template
from .tool_calls import USUAL_FORM, CallForm, call_entries, parsed_tools, result_keys, strings_in, texts_of

NO_PLACE = "the chat template of this base has no place for tool calls"
_OPTIONS = {"sanitize_control_tokens": False}
"""Control words are dealt with here. To a transformers without this option it is a variable that no template knows."""
_GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
_DATE_FORMAT = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(['"])(.*?)\1""")


class ChatTemplate:
    """The template of a tokenizer, or the plain form of a conversation where there is none.

    The plain form is the system prompt, an empty line, ``User: prompt``, a line ``Assistant:`` and the reply.
    """

    def __init__(self, tokenizer: Any, system_prompt: str, words: ControlWords, day: date) -> None:
        self._tokenizer = tokenizer
        self._system_prompt = system_prompt
        self._words = words
        self._day = day
        self.takes_parts = False
        """Whether a message's content is a list of parts, as templates of multimodal models want it."""
        self.folds_system = False
        """Whether the template knows no system role, so that the system prompt opens the user's turn."""
        self.thought_key = "content"
        """In which key of a message a thought is kept; empty: the template leaves it out."""
        self.most_seconds = TEMPLATE_SECONDS
        """Processor time for one rendering."""
        self.own_tags: tuple[str, str] | None = None
        """In what this base's thoughts stand, where that is not what they were written in; None: in what they were."""

    @property
    def source(self) -> str:
        """Its text; empty: there is none."""
        return template_source(self._tokenizer)

    def render(
        self,
        turns: Sequence[Turn],
        *,
        tools: str = "",
        form: CallForm = USUAL_FORM,
        asks: bool = False,
        flags: Mapping[str, Any] | None = None,
        continuation: Said | None = None,
        lead: str = "",
    ) -> Rendering:
        """The conversation of these turns.

        Args:
            turns: messages, and at most one :class:`Said`: the reply in question. Where none of them is the system's,
                the configured system prompt stands before them.
            tools: what was offered, as JSON; empty: none.
            form: in which calls are given.
            asks: whether the template is to write what makes the model reply.
            flags: further variables of the template.
            continuation: what is written behind all that, as it was said, by no template. Its calls are not.
            lead: what is written before the continuation.

        Raises:
            Refused: the template fails on these texts, or tears or repeats one.
        """
        turns = self._under_system(turns)
        offered = parsed_tools(tools)
        said = [*turns, continuation] if continuation else turns
        marks = Marks([*(text for turn in said for text in texts_of(turn)), *strings_in(offered)], self._words)
        if self._tokenizer.chat_template:
            messages = self._messages(turns, form, marks)
            offer = {"tools": marks.without_words(offered)} if offered else {}
            written = self._apply(messages, asks=asks, **offer, **self._options(bool(offered)), **(flags or {}))
        else:
            written = self._plain(turns, marks, asks=asks)
        if continuation is not None:
            written += lead + self._as_said(continuation, marks, opened=opened_thought(written) is not None)
        return marks.read(written)

    def _under_system(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        has_one = any(isinstance(turn, Message) and turn.role == "system" for turn in turns)
        if has_one or not self._system_prompt:
            return turns
        return [Message(role="system", text=self._system_prompt), *turns]

    def _options(self, offers: bool) -> dict[str, Any]:
        return {**_OPTIONS, **_with_day(template_source(self._tokenizer, offers=offers), self._day)}

    def _messages(self, turns: Sequence[Turn], form: CallForm, marks: Marks) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        opening: list[str] = []
        for turn, label in zip(turns, labels(turns), strict=True):
            if isinstance(turn, Said):
                messages.append(self._reply(turn, form, marks))
                continue
            text = marks.around(label, turn.text, turn.role)
            if turn.role == "system" and self.folds_system and not messages:
                opening.append(text)
                continue
            if opening and turn.role != "user":
                raise Refused("the chat template knows no system role, and no user's turn follows the system prompt")
            message: dict[str, Any] = {"role": turn.role, "content": self._content("\n\n".join([*opening, text]))}
            opening = []
            if turn.calls:
                message["content"] = form.empty if not turn.text.strip() else message["content"]
                message["tool_calls"] = call_entries(turn.calls, form, marks, f"{label}, {ARGUMENT}")
            if isinstance(turn, ThinkingMessage):
                message |= self._with_thought(turn, marks.around(f"{label}, {THOUGHT}", turn.thought), text)
            messages.append(message | result_keys(turn, form, marks))
        return messages

    def _reply(self, said: Said, form: CallForm, marks: Marks) -> dict[str, Any]:
        answer = marks.around(REPLY, said.answer)
        message: dict[str, Any] = {"role": "assistant", "content": self._content(answer)}
        if said.calls:
            message["content"] = form.empty if not answer.strip() else message["content"]
            message["tool_calls"] = call_entries(said.calls, form, marks, ARGUMENT)
        if not said.thought.strip():
            return message
        return message | self._with_thought(said, marks.around(THOUGHT, said.thought), answer)

    def _with_thought(self, said: Said | ThinkingMessage, thought: str, answer: str) -> dict[str, Any]:
        """The keys of a message that hold its thought, which has its marks, and what follows it."""
        if not self.thought_key:
            return {}
        if self.thought_key == "content":
            opening, closing = said.tags
            return {"content": self._content(f"{opening}{thought}{closing}{said.gap}{answer}")}
        # What stands between it and its tags is the template's, which writes it itself.
        return {self.thought_key: thought.strip()}

    @staticmethod
    def _as_said(said: Said, marks: Marks, *, opened: bool) -> str:
        answer = marks.around(REPLY, said.answer)
        if not said.thought.strip():
            return answer
        opening, closing = said.tags
        thought = marks.around(THOUGHT, said.thought)
        # The tag and the white space behind it stand in the generation prompt already.
        return f"{thought.lstrip() if opened else opening + thought}{closing}{said.gap}{answer}"

    def _content(self, text: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": text}] if self.takes_parts else text

    def _plain(self, turns: Sequence[Turn], marks: Marks, *, asks: bool) -> str:
        if any(turn.calls or (isinstance(turn, Message) and turn.role == "tool") for turn in turns):
            raise Refused("this base has no chat template, and so no place for tool calls")
        written = self._tokenizer.bos_token or ""
        for number, (turn, label) in enumerate(zip(turns, labels(turns), strict=True)):
            following = turns[number + 1] if number + 1 < len(turns) else None
            text = marks.around(label, turn.answer if isinstance(turn, Said) else turn.text)
            if isinstance(turn, Said) or turn.role == "assistant":
                written += f"Assistant: {text}" + ((self._tokenizer.eos_token or "") if following is None else "\n\n")
            elif turn.role == "user":
                is_answered = following is None or isinstance(following, Said) or following.role == "assistant"
                written += f"User: {text}\n" + ("" if is_answered else "\n")
            else:
                written += f"{text}\n\n"
        return written + ("Assistant:" if asks else "")

    def assistant_spans(self, turns: Sequence[Turn], flags: Mapping[str, Any]) -> list[Span]:
        """What the template itself marks as the model's, by ``{% generation %}``; empty: it has no such marks."""
        if not _GENERATION.search(self.source):
            return []
        messages = self._messages(self._under_system(turns), USUAL_FORM, NoMarks(self._words))
        with bounded_template(self.most_seconds):
            found = self._tokenizer.apply_chat_template(
                messages,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
                tokenizer_kwargs={"return_offsets_mapping": True},
                **self._options(offers=False),
                **flags,
            )
        marked = zip(found["assistant_masks"], found["offset_mapping"], strict=True)
        return [(span[0], span[1]) for is_marked, span in marked if is_marked]

    def _apply(self, messages: list[dict[str, Any]], *, asks: bool, **options: Any) -> str:
        from jinja2 import TemplateError

        try:
            with bounded_template(self.most_seconds):
                written = self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=asks, **options
                )
            return str(written)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise Refused(f"the chat template fails on it: {_sentence(error)}") from error
        except RecursionError as error:
            raise Refused("the chat template calls itself without end") from error


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


def require_template(tokenizer: Any) -> None:
    """Refuse a tokenizer with several templates of which none is the default.

    Raises:
        GiveUp: ``base_unusable``.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict) and "default" not in template:
        raise GiveUp(
            "base_unusable",
            f"its tokenizer has the chat templates {', '.join(sorted(template))}, and none called default",
            "put the right one beside its tokenizer as chat_template.jinja",
        )


def _with_day(source: str, day: date) -> dict[str, str]:
    """The template with a ``strftime_now`` of its own, by which it is noon of ``day`` in every rendering.

    A function that is given to transformers becomes text there, so it has to be a macro.
    """
    if "strftime_now" not in source:
        return {}
    noon = datetime.combine(day, time(12))
    said = {each: noon.strftime(each) for _, each in _DATE_FORMAT.findall(source)}
    known = "{%- set known = " + json.dumps(said) + " -%}"
    refusal = "{%- if format not in known %}{{ raise_exception('it computes the format of a date') }}{% endif -%}"
    macro = "{% macro strftime_now(format) -%}" + known + refusal + "{{ known[format] }}{%- endmacro %}\n"
    return {"chat_template": macro + source}


def template_source(tokenizer: Any, *, offers: bool = False) -> str:
    """The text of the template that is used, where tools are offered or not; empty: there is none."""
    template = tokenizer.chat_template
    if not isinstance(template, dict):
        return str(template or "")
    return str((template.get("tool_use") if offers else None) or template.get("default", ""))


def template_sources(tokenizer: Any) -> str:
    """The text of the template, and of the one that is used where tools are offered if that is another one."""
    return "\n".join(dict.fromkeys(template_source(tokenizer, offers=offers) for offers in (False, True)))
